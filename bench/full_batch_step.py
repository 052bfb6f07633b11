"""One full-batch descent step: ours, and the loops that most people write.

``ours`` is a step of ``training.descent.descend``. ``PyTorch tutorial's loop`` accumulates the full gradient over shuffled
DataLoader batches of 256 and steps with ``torch.optim.SGD``; ``one batch, autograd`` does so on all rows at once.
Run from the repository root: ``python bench/full_batch_step.py [--smoke] [--json] [--threads 1]``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from comparison import Case, Growth, main
from expunge.core.data import Ids
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.descent import Step, descend

LR, STEPS = 0.01, 5


def plain(task: Classification, rows: Rows, batch_size: int | None) -> Callable[[], None]:
    """``STEPS`` steps as most people write them."""
    model = task.build().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    x = rows.x.to(task.dtype)
    batches = [(x, rows.y)] if batch_size is None else DataLoader(TensorDataset(x, rows.y), batch_size, shuffle=True)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            for part, labels in batches:
                (nn.functional.cross_entropy(model(part), labels, reduction="sum") / len(rows)).backward()
            optimizer.step()

    return run


def operations(widths: list[int], rows: int) -> float:
    return STEPS * sum(2 * rows * i * o * (3 if k else 2) for k, (i, o) in enumerate(itertools.pairwise(widths)))


def case(name: str, factory: Callable[[], nn.Module], rows: Rows, widths: list[int]) -> Case:
    task = Classification(factory)
    model, start = task.build(), task.build().state_dict()

    def ours(count: int) -> Callable[[], object]:
        index = torch.arange(count) % len(rows)
        batch = task.batch(rows, index)
        return lambda: descend(task, model, start, batch, Step(LR), STEPS)

    n = len(rows)
    return Case(
        name=name, ours=ours(n), operations=operations(widths, n), rounds=7,
        baselines={"one batch, autograd": plain(task, rows, None), "PyTorch tutorial's loop": plain(task, rows, 256)},
        growth=Growth(what="rows", ways={size: ours(size) for size in (n // 4, n // 2, n, 2 * n)}),
    )  # fmt: skip


def cases(smoke: bool) -> Iterable[Case]:
    rows = digits()[0].only(Ids.rows(range(64))) if smoke else digits()[0]
    n = 64 if smoke else 10_000
    large = Rows.of(torch.randn(n, 256), torch.randint(0, 10, (n,)))
    yield case("head 64-10", functools.partial(SoftmaxHead, 64, 10), rows, [64, 10])
    yield case("SmeLU 64-32-10", functools.partial(perceptron, (64, 32, 10)), rows, [64, 32, 10])
    yield case("SmeLU 256-256-10", functools.partial(perceptron, (256, 256, 10)), large, [256, 256, 10])


if __name__ == "__main__":
    main(__doc__, cases)
