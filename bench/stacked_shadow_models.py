"""How much faster shadow models train stacked, or in two processes, than one after another.

Run from the repository root: ``python bench/stacked_shadow_models.py [--quick] [--json] [--threads 1]``. 32 shadow models of
the digits MLP 64-32-10, each on a random half of 1,437 images, over batch sizes. The goal is 3 x at batches up to 64.
``2 processes`` are timed over ten times the steps, with their start (seconds), each by the same rule and with
one thread. ``rule`` is what ``train_shadow_models`` chooses.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from expunge.data.digits import digits
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron
from expunge.training.descent import Step
from expunge.training.shadow_models import (
    EnsembleSettings,
    train_in_processes,
    train_one_by_one,
    train_stacked,
    worth_stacking,
)

MODELS = 32
GOAL, GOAL_BATCH = 3.0, 64


@dataclass(frozen=True)
class Line:
    batch: int | None
    steps: int
    one_by_one_s: float
    stacked_s: float
    processes_s: float | None
    largest_gap: float
    rule: str

    @property
    def cells(self) -> list[str]:
        processes = "-" if self.processes_s is None else f"{self.one_by_one_s / self.processes_s:.2f} x"
        return [
            "full" if self.batch is None else str(self.batch),
            str(self.steps),
            f"{self.one_by_one_s:.2f}",
            f"{self.one_by_one_s / self.stacked_s:.2f} x",
            processes,
            f"{self.largest_gap:.0e}",
            self.rule,
        ]


def least(
    rounds: int, *ways: Callable[[], dict[str, torch.Tensor]]
) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """Least seconds of each way over ``rounds``, taking turns; and what each gave."""
    seconds, given = [float("inf")] * len(ways), [{}] * len(ways)
    for _ in range(rounds):
        for i, way in enumerate(ways):
            start = time.perf_counter()
            given[i] = way()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds, given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer steps, no processes")
    parser.add_argument("--json", action="store_true", help="one more line with all numbers")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows, _ = digits()
    task = Classification(functools.partial(perceptron, [64, 32, 10]))
    membership = np.random.default_rng(0).random((MODELS, len(rows))) < 0.5
    seeds = range(MODELS)
    lines = []
    for batch in (16, 64, 256, None):
        steps = 30 if given.quick else 200
        settings = EnsembleSettings(Step(0.1), steps=steps, batch_size=batch)
        call = (task, rows, membership, settings, seeds)
        seconds, results = least(
            2 if given.quick else 3, lambda call=call: train_one_by_one(*call), lambda call=call: train_stacked(*call)
        )
        processes = None
        if not given.quick:
            longer = EnsembleSettings(Step(0.1), steps=10 * steps, batch_size=batch)
            began = time.perf_counter()
            train_in_processes(task, rows, membership, longer, seeds, jobs=2)
            processes = (time.perf_counter() - began) / 10
        gap = max(float((results[0][name] - results[1][name]).abs().max()) for name in results[0])
        rule = "stacked" if worth_stacking(task, rows, settings) else "one by one"
        lines.append(Line(batch, steps, seconds[0], seconds[1], processes, gap, rule))
    table = [["batch", "steps", "one by one, s", "stacked", "2 processes", "largest gap", "rule"]]
    table += [line.cells for line in lines]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    print(f"{MODELS} shadow models of the digits MLP 64-32-10, {given.threads} thread(s)")
    for row in table:
        print("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
    small = [line for line in lines if line.batch is not None and line.batch <= GOAL_BATCH]
    met = all(line.one_by_one_s / line.stacked_s >= GOAL for line in small)
    print(f"goal of {GOAL:.0f} x stacked at batches up to {GOAL_BATCH}: {'met' if met else 'missed'}")
    if given.json:
        print(json.dumps({"bench": "stacked_shadow_models", "met": met, "lines": [asdict(line) for line in lines]}))


if __name__ == "__main__":
    main()
