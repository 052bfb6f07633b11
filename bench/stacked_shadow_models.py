"""Shadow models trained stacked, against one after another (goal: 3 x at batches up to 64).

32 models of the digits' perceptron 64-32-10 and of its softmax head, each on a random half of the images. ``chosen`` in the
name is what ``worth_stacking`` would do.
Run from the repository root: ``python bench/stacked_shadow_models.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor, nn

from comparison import Case, Growth, main
from expunge.core.data import Ids
from expunge.data.digits import digits
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.descent import Step
from expunge.training.shadow_models import EnsembleSettings, train_one_by_one, train_stacked, worth_stacking

GOAL, GOAL_BATCH = 3.0, 64
Trained = dict[str, Tensor]


def agree(expected: Trained, found: Trained) -> None:
    if (gap := max(float((expected[name] - found[name]).abs().max()) for name in expected)) > 1e-3:
        raise SystemExit(f"Stacked models differ from models alone by {gap:.1e}.")


def case(name: str, factory: Callable[[], nn.Module], batch: int | None, models: int, steps: int, few: bool) -> Case:
    rows = digits()[0].only(Ids.rows(range(60))) if few else digits()[0]
    task, settings = Classification(factory), EnsembleSettings(Step(0.1), steps=steps, batch_size=batch)

    def way(train: Callable[..., Trained], count: int) -> Callable[[], Trained]:
        membership = np.random.default_rng(0).random((count, len(rows))) < 0.5
        return lambda: train(task, rows, membership, settings, range(count))

    chosen = "stacked" if worth_stacking(task, rows, settings) else "one by one"
    return Case(
        name=f"{name}, batch {batch or 'full'} (chosen: {chosen})",
        baselines={"one after another": way(train_one_by_one, models)},
        ours=way(train_stacked, models), agree=agree, rounds=2,
        growth=Growth(what="models", ways={n: way(train_stacked, n) for n in (models // 4, models // 2, models, 2 * models)}),
        goal=GOAL if batch is not None and batch <= GOAL_BATCH else None,
    )  # fmt: skip


def cases(smoke: bool) -> Iterable[Case]:
    models, steps = (4, 2) if smoke else (32, 30)
    networks = {
        "64-32-10": functools.partial(perceptron, (64, 32, 10)),
        "head 64-10": functools.partial(SoftmaxHead, 64, 10),
    }
    for name, factory in networks.items():
        for batch in (16, None) if smoke else (16, 64, 256, None):
            yield case(name, factory, batch, models, steps, smoke)


if __name__ == "__main__":
    main(__doc__, cases)
