"""Run a benchmark: what is not on disk yet, in processes, and then the table."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.bench import cells as cells_
from expunge.bench.cells import Cell, run_cell
from expunge.bench.finished import Results
from expunge.bench.recipe import load_recipe
from expunge.bench.table import table
from expunge.bench.tuning import ranges, tune
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.digest import digest_json
from expunge.core.errors import FailedError, InputError
from expunge.core.files import make_folder
from expunge.core.journal import Journal
from expunge.core.method import Watch, silent
from expunge.modalities.benchmark import TUNING_SET
from expunge.modalities.network_benchmark import benchmark_of
from expunge.modalities.recipes import RETRAIN, SOURCE, BenchmarkRecipe
from expunge.training.retrainings import one_thread

Line = Mapping[str, Any]
Margins = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class BenchSettings:
    """How much of a recipe is run.

    Attributes:
        methods: rows; ``None`` or ("all",): all of the recipe.
        seeds: cells of each row; ``None``: the recipe's number.
        forget_sets: how many different ones; ``None``: the recipe's number, or one a seed.
        quick: one seed, and the recipe's shorter settings where it has any.
        defaults: the methods' shipped (published) settings instead of the recipe's.
        jobs: processes of one thread each; ``None``: one for each core. Beside other jobs, seconds are longer.
        tune: trials for each row; 0: the settings of the recipe.
    """

    methods: tuple[str, ...] | None = None
    seeds: int | None = None
    forget_sets: int | None = None
    quick: bool = False
    defaults: bool = False
    jobs: int | None = None
    tune: int = 0

    def __post_init__(self):
        for name in ("seeds", "forget_sets", "jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"Expected --{name.replace('_', '-')} of at least 1; got {value}.")
        if self.tune < 0:
            raise InputError(f"Expected --tune of 0 (none) or more trials; got {self.tune}.")


def bench(
    recipe: Any,
    out: Path,
    settings: BenchSettings | None = None,
    *,
    cache: Cache | None = None,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Run what ``settings`` ask of ``recipe``, and make the table. A cell that is in ``out`` is not run again.

    Args:
        recipe: a name, the path of a YAML file, or what :func:`~expunge.bench.recipe.load_recipe` made of one.

    Returns:
        The record that ``--json`` prints: recipe, rows, reference, source, seconds.

    Raises:
        InputError: for an unknown recipe, row or method setting, missing data, a folder of another benchmark, or one that
            another process works in.
        FailedError: if the original model learnt next to nothing.
    """
    settings = settings or BenchSettings()
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    started = time.perf_counter()
    if settings.defaults:
        recipe = recipe.at_defaults()
    if settings.quick:
        recipe = recipe.shortened()
    rows = _rows(recipe, settings)
    seeds = settings.seeds or (1 if settings.quick else recipe.seeds)
    world = World.of(recipe, cache)
    if settings.tune and not benchmark_of(recipe).tuned_by:
        raise InputError(
            f"Settings are tuned by the gap to retrained models, which {recipe.name} does not measure. Leave --tune out, and "
            "name settings in a recipe of your own."
        )
    sets = int(min(settings.forget_sets or recipe.forget_sets or seeds, world.workload.sets))
    numbers = sorted({seed % sets for seed in range(seeds)})
    if settings.tune and len(numbers) == world.workload.sets:
        raise InputError(
            f"Settings are tuned on a forget set that no table is made of; this one takes all {sets} users or classes that "
            f"there are. Take --forget-sets {sets - 1}."
            if sets > 1
            else "Settings are tuned on a forget set that no table is made of; there is a single user or class to forget."
        )
    for number in [*numbers, *([TUNING_SET] if settings.tune else [])]:
        world.deletion(number)
    make_folder(out)
    with Journal(out / "running"):  # one process at a time works in a folder
        results = Results(out, world.digest)
        jobs = settings.jobs or max(1, (os.cpu_count() or 1) // world.workload.threads)
        sets_of_all = [*numbers, *([TUNING_SET] if settings.tune else [])]
        models = world.models(sets_of_all, jobs, watch, out / "running")
        compared = [Cell(SOURCE, number, 0) for number in numbers]
        compared += [Cell(RETRAIN, number, r) for number in numbers for r in range(recipe.retrained_models)]
        with _Runner(world, results, out / "running", jobs, watch) as runner:
            runner.run(compared)  # a source that learnt nothing ends here, before any method runs
            tuned = runner.tune(rows, settings.tune) if settings.tune else {}
            wanted = compared + [
                Cell(row, seed % sets, seed, tuple(sorted(tuned.get(row, {}).get("settings", {}).items())))
                for seed in range(seeds)
                for row in rows
            ]
            runner.run(wanted)
        record = table(recipe, results.only([cell.key(recipe) for cell in wanted]), rows, tuned)
    return {
        **record,
        "quick": settings.quick,
        "defaults": settings.defaults,
        "seeds": seeds,
        "forget_sets": len(numbers),
        "jobs": jobs,
        "from_cache": all(model.cached for model in models.values()),
        "seconds": time.perf_counter() - started,
    }


def _rows(recipe: BenchmarkRecipe, settings: BenchSettings) -> list[str]:
    """The rows asked for, each once."""
    asked = settings.methods or ("all",)
    rows = list(dict.fromkeys(each for row in asked for each in (recipe.rows if row == "all" else [row])))
    for row in rows:
        if row in (SOURCE, RETRAIN):
            raise InputError(f"{row} is no row to ask for: the table has it beside all others.")
        recipe.method(row)  # refuses unknown rows and settings before anything is trained
    return rows


class _Runner:
    """Runs cells that are not on disk, here or in processes, and stores each as soon as it is done."""

    def __init__(self, world: World, results: Results, folder: Path, jobs: int, watch: Watch):
        self.world, self.results, self.folder, self.jobs, self.watch = world, results, folder, jobs, watch
        self._storing = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Runner:
        if self.jobs > 1:
            given = (self.world.recipe, self.world.cache.folder)
            self._pool = ProcessPoolExecutor(self.jobs, get_context("spawn"), cells_.open_world, given)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, cells: Sequence[Cell]) -> None:
        """All of ``cells``."""
        recipe = self.world.recipe
        wanted = {cell.key(recipe): cell for cell in cells}
        missing = [cell for key, cell in wanted.items() if key not in self.results.cells]
        done = len(wanted) - len(missing)
        for _ in self._each(self._line, missing):
            done += 1
            self.watch("cells", done, len(wanted))

    def tune(self, rows: Sequence[str], trials: int) -> dict[str, dict[str, Any]]:
        """Row → what was tried and found: a study for each row, side by side; no trial that is on disk is run again."""
        recipe = self.world.recipe
        total = sum(trials if ranges(recipe.method(row)) else 1 for row in rows)
        done = 0

        def run(cell: Cell) -> Line:
            nonlocal done
            line = self._line(cell)
            if cell.row != RETRAIN:
                with self._storing:
                    done += 1
                    self.watch("tuning", done, total)
            return line

        found = self._each(lambda row: (row, tune(recipe, row, trials, run)), rows)
        return dict(found)

    def _each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """``work`` on all items, as many at a time as there are processes that do it; in the order they finish."""
        if self._pool is None:
            yield from map(work, items)
            return
        with ThreadPoolExecutor(self.jobs) as threads:  # they only wait for processes
            running = [threads.submit(work, item) for item in items]
            try:
                for future in as_completed(running):
                    yield future.result()
            except BrokenProcessPool as error:
                raise FailedError(
                    "A process that ran cells died: memory ran out, or the script that was started lacks the "
                    "`if __name__ == '__main__':` guard. Run again with --jobs 1: finished cells are kept."
                ) from error
            finally:
                for future in running:
                    future.cancel()

    def _line(self, cell: Cell) -> Line:
        """The line of ``cell``: found, or run and stored."""
        key = cell.key(self.world.recipe)
        if key in self.results.cells:
            return self.results.cells[key]
        if self._pool is None:
            with one_thread():
                torch.set_num_threads(self.world.workload.threads)
                line, margins = run_cell(self.world, cell, self.folder)
        else:
            line, margins = self._pool.submit(cells_.run_here, cell, self.folder).result()
        with self._storing:
            if key not in self.results.cells:  # two studies ask for the same retrained models
                self.results.add(line, margins)
        shutil.rmtree(self.folder / key, ignore_errors=True)  # only now: a cell that was not stored is taken up there
        return line


def folder_of(recipe: BenchmarkRecipe) -> Path:
    """Where results go when no folder is named."""
    return Path("bench-results") / recipe.name


def fingerprint(record: Mapping[str, Any]) -> str:
    """Digest of what a table says, without what it took: equal for a resumed and an uninterrupted run."""
    rows = [{k: v for k, v in row.items() if k != "tuning"} for row in record["rows"]]
    for row in rows:
        row["metrics"] = {k: v for k, v in row["metrics"].items() if k != "seconds"}
    return digest_json([record["recipe"], rows])
