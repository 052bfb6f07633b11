"""How long one full-batch descent step takes: ours, the plain ways, and what the matrix products alone would take.

Run from the repository root: ``python bench/full_batch_step.py [--quick] [--json] [--threads 1]``. Times are the best
of several rounds that take turns, because the machine may be shared.

Columns: ``ours`` is a step of ``training.descent.descend``; ``DataLoader`` accumulates the full gradient over shuffled
batches of 256 with autograd and steps with ``torch.optim.SGD``; ``one batch`` does so on all rows at once, without
a DataLoader; both as multiples of our time. ``products`` is the time of the step's matrix products alone, in their own
shapes, and ``of peak`` that of its arithmetic at the rate of a large square product, both as shares of our time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.descent import Step, descend

LR = 0.01


@dataclass(frozen=True)
class Line:
    case: str
    ours_ms: float
    dataloader_ms: float
    one_batch_ms: float
    products_ms: float
    peak_ms: float

    @property
    def cells(self) -> list[str]:
        return [
            self.case,
            f"{self.ours_ms:.3f}",
            f"{self.dataloader_ms / self.ours_ms:.1f} x",
            f"{self.one_batch_ms / self.ours_ms:.2f} x",
            f"{self.products_ms / self.ours_ms:.0%}",
            f"{self.peak_ms / self.ours_ms:.0%}",
        ]


def best(rounds: int, ways: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Milliseconds of one step of each way: the least over ``rounds``, the ways taking turns."""
    least = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + 1):
        for name, (call, steps) in ways.items():
            start = time.perf_counter()
            call()
            if turn:  # the first turn warms up
                least[name] = min(least[name], (time.perf_counter() - start) / steps * 1e3)
    return least


def plain(task: Any, rows: Rows, batch_size: int | None) -> Callable[[], None]:
    """The step as most people write it."""
    model = task.build().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    batches = (
        [(rows.x, rows.y)]
        if batch_size is None
        else DataLoader(TensorDataset(rows.x, rows.y), batch_size=batch_size, shuffle=True)
    )

    def step() -> None:
        optimizer.zero_grad()
        for x, y in batches:
            (nn.functional.cross_entropy(model(x), y, reduction="sum") / len(rows)).backward()
        optimizer.step()

    return step


def products(widths: list[int], n: int) -> tuple[Callable[[], None], int]:
    """The step's matrix products alone, and how many floating-point operations they are."""
    layers = [(torch.randn(n, i), torch.randn(i, o), torch.randn(n, o)) for i, o in itertools.pairwise(widths)]
    flops = sum(2 * n * w.numel() * (3 if k else 2) for k, (_, w, _) in enumerate(layers))

    def run() -> None:
        for k, (x, w, g) in enumerate(layers):
            x @ w  # forward
            g.T @ x  # gradient of the weights
            if k:
                g @ w.T  # gradient of the inputs, which the first layer does not need

    return run, flops


def gemm_rate(size: int, rounds: int) -> float:
    """Floating-point operations a millisecond of a square float32 product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / best(rounds, {"gemm": (lambda: a @ b, 1)})["gemm"]


def measure(name: str, task: Any, rows: Rows, widths: list[int], rate: float, rounds: int, steps: int) -> Line:
    start, batch = task.build().state_dict(), task.batch(rows)
    model = task.build()
    alone, flops = products(widths, len(rows))
    found = best(
        rounds,
        {
            "ours": (lambda: descend(task, model, start, batch, Step(LR), steps), steps),
            "dataloader": (plain(task, rows, 256), 1),
            "one_batch": (plain(task, rows, None), 1),
            "products": (alone, 1),
        },
    )
    return Line(name, found["ours"], found["dataloader"], found["one_batch"], found["products"], flops / rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a smaller large case")
    parser.add_argument("--json", action="store_true", help="one more line with all numbers")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    rounds = 5 if given.quick else 30
    n = 4_000 if given.quick else 20_000
    rate = gemm_rate(1024, rounds)
    train, _ = digits()
    large = Rows.of(torch.randn(n, 256), torch.randint(0, 10, (n,)))
    lines = [
        measure("digits head 64-10", Classification(lambda: SoftmaxHead(64, 10)), train, [64, 10], rate, rounds, 20),
        measure(
            "digits MLP 64-32-10",
            Classification(lambda: perceptron([64, 32, 10])),
            train,
            [64, 32, 10],
            rate,
            rounds,
            10,
        ),
        measure(
            f"{n} x MLP 256-256-10",
            Classification(lambda: perceptron([256, 256, 10])),
            large,
            [256, 256, 10],
            rate,
            max(5, rounds // 5),
            1,
        ),
    ]
    table = [["case", "ours, ms", "DataLoader", "one batch", "products", "of peak"], *(line.cells for line in lines)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    print(f"full-batch step, {given.threads} thread(s), square product {rate / 1e6:.1f} GFLOP/s")
    for row in table:
        print(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )
    if given.json:
        print(json.dumps({"bench": "full_batch_step", "gflops": rate / 1e6, "lines": [asdict(line) for line in lines]}))


if __name__ == "__main__":
    main()
