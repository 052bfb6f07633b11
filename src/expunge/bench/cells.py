"""One cell: one method, one forget set, one seed; or one model that methods are compared with."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge import planning
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.digest import digest_arrays, digest_json
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.journal import Journal
from expunge.methods import registry
from expunge.modalities.recipes import RETRAIN, SOURCE, BenchmarkRecipe
from expunge.training.retrainings import end_with_parent

HASH_KEY = b"benchmark"  # subjects of a benchmark are nobody: their hashes need no secret


@dataclass(frozen=True)
class Cell:
    """What is to be run.

    Attributes:
        row: its row of the table; :data:`SOURCE` and :data:`RETRAIN` are models that methods are compared with.
        forget_set: number of the forget set.
        seed: of the method; the number of the reference for a retrained model.
        settings: of the method, over the recipe's.
        trial: number of a tuning trial, or ``None``.
    """

    row: str
    forget_set: int
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()
    trial: int | None = None

    def key(self, recipe: BenchmarkRecipe) -> str:
        """Digest of everything that decides its result."""
        own: Any = None
        if self.row not in (SOURCE, RETRAIN):
            own = recipe.identity(self.row, dict(self.settings))
        return digest_json([recipe.digest, self.row, own, self.forget_set, self.seed])[:32]


def run_cell(world: World, cell: Cell, folder: Path) -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
    """Run ``cell`` and measure what came: its line of the results file, and its margins.

    A method that refuses or fails has a line too: it says so in words. Of a network every view is scored; its numbers are
    the means over views, and ``views`` holds those of each.

    Args:
        folder: for the journal of a running method, which a killed run takes up; the caller removes it once the line is
            stored.

    Raises:
        InputError: if another process works on this cell.
    """
    recipe = world.recipe
    models = world.models([cell.forget_set])
    line: dict[str, Any] = {
        "key": cell.key(recipe), "recipe": recipe.name, "row": cell.row, "forget_set": cell.forget_set, "seed": cell.seed,
        "trial": cell.trial, "n_forget": world.deletion(cell.forget_set).size,
    }  # fmt: skip
    if cell.row in (SOURCE, RETRAIN):
        number = (cell.forget_set, cell.seed) if cell.row == RETRAIN else (0, 0)
        model = models[cell.row, *number]
        metrics, margins, views = _measured(world, cell, model.views or {"model": model.tensors})
        done = {
            "status": "done",
            "metrics": {**metrics, "seconds": model.seconds},
            "weights": digest_arrays(model.tensors),
        }
        return {**line, **done, **views}, margins
    method = recipe.method(cell.row, dict(cell.settings))
    line["method"] = registry.settings_of(method)
    with Journal(folder / line["key"]) as journal:  # what speaks against the folder is no result of the method
        try:
            if journal.entries():
                line["resumed"] = True  # seconds are then those since the restart
            outcome, seconds = _unlearn(world, cell, method, journal)
            held = {peer: item.artifact.tensors for item in outcome.releases for peer in item.views}
            measured, margins, views = _measured(world, cell, held)
        except (RefusedError, FailedError, InputError) as error:
            word = "refused" if isinstance(error, RefusedError) else "failed"
            return {**line, "status": word, "error": str(error)}, {}
    details = outcome.details
    metrics = {
        **measured,
        "seconds": seconds,
        "gradient_evaluations": outcome.cost["gradient_evaluations"],
        **{name: details[name] for name in ("optimizer_bytes", "signal_to_noise") if details.get(name) is not None},
    }
    kept = (
        "steps", "seconds", "guard", "stopped", "dampened", "lune", "visits", "products", "relative_residual", "kept",
    )  # fmt: skip
    extra = {name: details[name] for name in kept if name in details}
    weights = digest_arrays(outcome.releases[0].artifact.tensors)
    return {**line, "status": "done", "metrics": metrics, "weights": weights, "details": extra, **views}, margins


def _measured(
    world: World, cell: Cell, held: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, float], Mapping[str, np.ndarray], dict[str, Any]]:
    """Numbers of what views hold, each different model scored once: means over models; margins of one model; and what the cell
    says besides: the numbers of each model where there are several, and what the original one knows. Comparisons of many models
    take the margins of one model: a network has none.
    """
    distinct = {id(tensors): (view, tensors) for view, tensors in reversed(list(held.items()))}
    scores = {each: world.score(cell.row, cell.forget_set, tensors) for each, (_, tensors) in distinct.items()}
    first = scores[id(next(iter(held.values())))]
    metrics = {name: float(np.mean([of.metrics[name] for of in scores.values()])) for name in first.metrics}
    metrics |= world.among_peers(cell.forget_set, held, {view: scores[id(tensors)] for view, tensors in held.items()})
    known = {} if first.knowledge is None else {"knowledge": asdict(first.knowledge)}
    if len(distinct) == 1:
        return metrics, first.margins, known
    views = {
        view: {"metrics": dict(scores[each].metrics), "weights": digest_arrays(tensors)}
        for each, (view, tensors) in reversed(distinct.items())
    }
    return metrics, {}, {"views": views, **known}


def _unlearn(world: World, cell: Cell, method: Any, journal: Journal) -> tuple[Any, float]:
    """The outcome, and seconds of this process: of a run that was taken up, those since then."""
    source = world.source(world.models([cell.forget_set])[SOURCE, 0, 0])
    turns = world.workload.turns(cell.row, cell.forget_set, world.deletion(cell.forget_set), cell.seed)
    outcome, evaluations, started = None, 0, time.perf_counter()
    for turn in turns:
        presented, deletion = turn.presented, turn.deletion
        outcome = planning.plan(
            source if outcome is None else outcome.after, turn.request, method, key=HASH_KEY, probes=deletion.probes,
            wording=presented.wording, material=presented.material,
            deletion=None if presented.material is None else deletion, journal=journal, seed=cell.seed,
        ).run()  # fmt: skip
        evaluations += outcome.cost["gradient_evaluations"]
    assert outcome is not None  # there is at least one request
    return replace(outcome, cost={**outcome.cost, "gradient_evaluations": evaluations}), time.perf_counter() - started


# --- in a process of its own ---------------------------------------------------------------------------------------------

_world: list[World] = []


def open_world(recipe: BenchmarkRecipe, cache: Path) -> None:
    """Make a fresh process ready for cells: its threads, and the recipe's world with models from the cache at ``cache``."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    end_with_parent()
    world = World.of(recipe, Cache(cache))
    torch.set_num_threads(world.workload.threads)
    _world[:] = [world]


def run_here(cell: Cell, folder: Path) -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
    """:func:`run_cell` in the world of this process."""
    return run_cell(_world[0], cell, folder)
