"""Retrainings here against the loop of PyTorch's tutorial, one after another (goal: 4 x for 32 small models).

``PyTorch tutorial's loop`` is ``DataLoader(TensorDataset)``, ``nn.Module``, ``torch.optim.SGD``: the same network, epochs and
batch, and the same layout of memory (``channels_last`` for convolutions, which the tutorial on it recommends). ``ours`` trains
one after another in this process, or stacked. Run from the repository root: ``python bench/retrainings.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from comparison import Case, Growth, main
from expunge.core.data import Ids
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron
from expunge.training.recipes import Stochastic
from expunge.training.retrainings import retrain_all

Jobs = list[tuple[Rows, int]]


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


def tutorial(task: Classification, jobs: Jobs, recipe: Stochastic) -> None:
    for rows, seed in jobs:
        torch.manual_seed(seed)
        images = rows.x.ndim == 4
        layout = torch.channels_last if images else torch.contiguous_format
        model: Any = task.factory()
        model = model.to(memory_format=layout)
        loader = DataLoader(TensorDataset(rows.x, rows.y), batch_size=recipe.batch_size, shuffle=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
        for _ in range(recipe.epochs):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x.contiguous(memory_format=layout)), y).backward()
                optimizer.step()


def left_out(rows: Rows, count: int) -> Jobs:
    """``count`` jobs, each without ten rows of its own."""
    return [(rows.without(Ids.rows(range(10 * r % len(rows), 10 * r % len(rows) + 10))), r) for r in range(count)]


def case(
    name: str,
    factory: Callable[[], nn.Module],
    rows: Rows,
    count: int,
    recipe: Stochastic,
    stacked: bool,
    goal: float | None,
) -> Case:
    task = Classification(factory)

    def ours(models: int) -> Callable[[], object]:
        jobs = left_out(rows, models)
        return lambda: retrain_all(task, jobs, recipe, stacked=stacked)

    jobs = left_out(rows, count)
    grown = {models: ours(models) for models in (1, 2, 3, 4)} if count <= 4 else {
        models: ours(models) for models in (count // 4, count // 2, count, 2 * count)
    }  # fmt: skip
    return Case(
        name=f"{count} x {name}{', stacked' if stacked else ''}",
        baselines={"PyTorch tutorial's loop": lambda: tutorial(task, jobs, recipe)}, ours=ours(count), rounds=2, goal=goal,
        growth=Growth(what="models", ways=grown),
    )  # fmt: skip


def cases(smoke: bool) -> Iterable[Case]:
    few, epochs = (2, 1) if smoke else (32, 3)
    rows = digits()[0].only(Ids.rows(range(64))) if smoke else digits()[0]
    n = 24 if smoke else 2000
    images = Rows.of(torch.randn(n, 1, 28, 28), torch.randint(0, 10, (n,)))
    small, recipe = (
        functools.partial(perceptron, (64, 32, 10)),
        Stochastic(epochs=epochs, lr=0.1, batch_size=64, momentum=0.9),
    )
    yield case("64-32-10, batch 64", small, rows, few, recipe, True, 4.0)
    yield case("64-32-10, batch 64", small, rows, few, recipe, False, None)
    recipe = Stochastic(epochs=1, lr=0.01, batch_size=128, momentum=0.9)
    yield case("two convolutions, batch 128", convolutional, images, 1 if smoke else 4, recipe, False, None)


if __name__ == "__main__":
    main(__doc__, cases)
