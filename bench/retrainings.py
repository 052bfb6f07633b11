"""How much faster references are retrained here than by a plain DataLoader loop, one after another.

Run from the repository root: ``python bench/retrainings.py [--quick] [--json]``. The baseline is what most code does:
``DataLoader(TensorDataset)``, ``nn.Module``, ``torch.optim.SGD``, on one thread. Same network, epochs and batch. ``ours``
trains one after another in this process, ``ours, NCHW`` without the CPU's layout for convolutions, ``stacked`` all at
once: these are in processor time of one thread, which busy neighbours disturb less. ``2 processes`` are wall time against
the baseline's wall time, with their start (seconds); ``without start`` leaves that out, and both need two idle cores.
Cases: 32 references of the digits perceptron (goal: 4 x), and a network of two convolutions on 2,000 random images of
MNIST's size.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from expunge.core.data import Ids
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron
from expunge.training import stochastic
from expunge.training.recipes import Stochastic, UserFit
from expunge.training.retrainings import retrain_all

GOAL = 4.0


@dataclass(frozen=True)
class Line:
    case: str
    references: int
    epochs: int
    baseline_s: float
    baseline_wall_s: float
    ours_s: float
    contiguous_s: float | None
    stacked_s: float | None
    processes_s: float
    start_s: float

    @property
    def cells(self) -> list[str]:
        def ratio(seconds: float | None) -> str:
            return "-" if seconds is None else f"{self.baseline_s / seconds:.2f} x"

        return [
            self.case,
            str(self.references),
            f"{self.baseline_s:.2f}",
            ratio(self.ours_s),
            ratio(self.contiguous_s),
            ratio(self.stacked_s),
            f"{self.baseline_wall_s / self.processes_s:.2f} x",
            f"{self.baseline_wall_s / max(self.processes_s - self.start_s, 1e-3):.2f} x",
        ]


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


def plain(task: Classification, jobs: list[tuple[Rows, int]], recipe: Stochastic) -> None:
    """The baseline."""
    for rows, seed in jobs:
        torch.manual_seed(seed)
        model = task.factory()
        loader = DataLoader(TensorDataset(rows.x, rows.y), batch_size=recipe.batch_size, shuffle=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
        for _ in range(recipe.epochs):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()


def no_training(data: Any, seed: int) -> nn.Module:
    return convolutional() if data.x.ndim == 4 else perceptron([64, 32, 10])


def seconds(way: Callable[[], Any], rounds: int = 1) -> tuple[float, float]:
    """Least processor time and least wall time."""
    found = []
    for _ in range(rounds):
        wall, processor = time.perf_counter(), time.process_time()
        way()
        found.append((time.process_time() - processor, time.perf_counter() - wall))
    return min(item[0] for item in found), min(item[1] for item in found)


def line(
    case: str, task: Classification, jobs: list[tuple[Rows, int]], recipe: Stochastic, rounds: int, convolves: bool
) -> Line:
    contiguous = None
    if convolves:
        prefer, stochastic.prefer_channels_last = stochastic.prefer_channels_last, lambda *_: None
        contiguous = seconds(lambda: retrain_all(task, jobs, recipe), rounds)[0]
        stochastic.prefer_channels_last = prefer
    return Line(
        case,
        len(jobs),
        recipe.epochs,
        *seconds(lambda: plain(task, jobs, recipe), rounds),
        seconds(lambda: retrain_all(task, jobs, recipe), rounds)[0],
        contiguous,
        None if convolves else seconds(lambda: retrain_all(task, jobs, recipe, stacked=True), rounds)[0],
        seconds(lambda: retrain_all(task, jobs, recipe, processes=2))[1],
        seconds(lambda: retrain_all(task, jobs, UserFit(no_training), processes=2))[1],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer epochs, one round")
    parser.add_argument("--json", action="store_true", help="one more line with all numbers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if given.quick else 2
    train, _ = digits()
    small = [(train.without(Ids.rows(range(10 * r, 10 * r + 10))), r) for r in range(32)]
    images = Rows.of(torch.randn(2000, 1, 28, 28), torch.randint(0, 10, (2000,)))
    large = [(images.without(Ids.rows(range(10 * r, 10 * r + 10))), r) for r in range(4)]
    recipes = [
        Stochastic(epochs=2 if given.quick else 5, lr=0.1, batch_size=64, momentum=0.9),
        Stochastic(epochs=1 if given.quick else 2, lr=0.01, batch_size=128, momentum=0.9),
    ]
    lines = [
        line("perceptron 64-32-10, batch 64", Classification(functools.partial(perceptron, [64, 32, 10])), small,
             recipes[0], rounds, False),
        line("two convolutions, batch 128", Classification(convolutional), large, recipes[1], rounds, True),
    ]  # fmt: skip
    table = [
        ["case", "references", "DataLoader, s", "ours", "ours, NCHW", "stacked", "2 processes", "without start"],
        *(item.cells for item in lines),
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
    assert lines[0].stacked_s is not None
    best = lines[0].baseline_s / lines[0].stacked_s
    print(f"goal of {GOAL:.0f} x for 32 small references: {'met' if best >= GOAL else 'missed'} ({best:.1f} x)")
    print(
        "what limits it: alone, a small step is overhead (half a millisecond whatever it computes), which stacking pays once; "
        "convolutions are arithmetic, where only the layout of memory and more cores help."
    )
    if given.json:
        print(json.dumps({"bench": "retrainings", "met": best >= GOAL, "lines": [asdict(item) for item in lines]}))


if __name__ == "__main__":
    main()
