"""Unlearning by rewinding against retraining: R2D does K of T steps on n - m of n rows and nothing else that costs.

The ratio should be T n / (K (n - m)); ``goal`` is nine tenths of it. Run from the repository root:
``python bench/unlearn_over_retrain.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

from comparison import Case, Growth, main
from expunge.core.data import Ids
from expunge.data.digits import digits
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.descent import Step, descend


def cases(smoke: bool) -> Iterable[Case]:
    steps = 20 if smoke else 200
    rows, _ = digits()
    after = rows.without(Ids.rows(range(170, 180)))
    tasks = {
        "softmax head": Classification(functools.partial(SoftmaxHead, 64, 10), dtype=torch.float64),
        "perceptron 64-32-10": Classification(functools.partial(perceptron, (64, 32, 10))),
    }
    for name, task in tasks.items():
        model, step, full, kept = task.build(), Step(0.5, 1e-3), task.batch(rows), task.batch(after)
        start = dict(model.state_dict())

        def descended(batch, count, task=task, model=model, start=start, step=step):
            return lambda: descend(task, model, start, batch, step, count)

        for share in (0.1, 0.5):
            grown = {n: descended(kept, n) for n in (steps // 4, steps // 2, steps, 2 * steps)}
            yield Case(
                name=f"{name}, K/T {share:g}", baselines={"retraining": descended(full, steps)},
                ours=descended(kept, round(share * steps)), rounds=5, growth=Growth(what="steps", ways=grown),
                goal=0.9 * len(rows) / len(after) / share,
            )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
