"""The same number of trials for every row, on a forget set that no table is made of.

What is minimised is the gap to a retrained model: tuning *uses* retraining, which an engineer who unlearns to avoid it
does not have (the search of DualOptim, arXiv 2504.15827, does the same). So the number of trials stands beside each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.bench.cells import Cell
from expunge.core.errors import ExtraMissingError
from expunge.core.method import Ranges
from expunge.modalities.benchmark import TUNING_SET
from expunge.modalities.network_benchmark import benchmark_of
from expunge.modalities.recipes import RETRAIN, BenchmarkRecipe

Run = Callable[[Cell], Mapping[str, Any]]  # a cell → its line, run now or found
FAILED = 100.0  # stands for the gap of a trial that has none: as far off as can be


def ranges(method: Any) -> Ranges:
    """What is searched for a method, as its class has it."""
    return getattr(method, "dual_ranges" if getattr(method, "dual", False) else "ranges", {})


def tune(recipe: BenchmarkRecipe, row: str, trials: int, run: Run) -> dict[str, Any]:
    """The settings of ``row`` with the smallest gap among its own and ``trials`` - 1 more.

    The first trial has the row's own settings, so tuning cannot make it worse on the tuning set.

    Args:
        run: runs a cell, or finds it finished: a study that is started again repeats nothing.

    Raises:
        ExtraMissingError: without Optuna.
    """
    try:
        import optuna
    except ImportError:
        raise ExtraMissingError("tune", "optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, names = ranges(recipe.method(row)), benchmark_of(recipe).tuned_by
    retrained = [run(Cell(RETRAIN, TUNING_SET, r, trial=-1)) for r in range(recipe.retrained_models)]
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=recipe.seed))
    best: tuple[float, dict[str, Any]] = (float("inf"), {})
    seconds = 0.0
    count = trials if space else 1
    for number in range(count):
        settings: dict[str, Any] = {}
        trial = None
        if number:
            trial = study.ask()
            settings = {name: trial.suggest_float(name, *limits, log=True) for name, limits in space.items()}
        line = run(Cell(row, TUNING_SET, 0, tuple(sorted(settings.items())), trial=number))
        value = _gap(line, retrained, names)
        seconds += float(line.get("metrics", {}).get("seconds", 0.0))
        if trial is not None:
            study.tell(trial, value)
        if value < best[0]:
            best = (value, settings)
    return {"trials": count, "seconds": seconds, "settings": best[1], "gap": best[0] if best[0] < FAILED else None}


def _gap(line: Mapping[str, Any], retrained: Sequence[Mapping[str, Any]], names: Sequence[str]) -> float:
    """The gap of one trial; a failed one is as far off as can be."""
    if line["status"] != "done":
        return FAILED
    return float(np.mean([abs(line["metrics"][n] - np.mean([r["metrics"][n] for r in retrained])) for n in names]))
