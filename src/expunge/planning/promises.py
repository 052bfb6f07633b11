"""What a promise must be worth: one that promises nothing is refused, and noise that drowns the weights is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from expunge.core.data import Data
from expunge.core.errors import InputError
from expunge.core.trained import Budget, Trained
from expunge.training.descent import trainable

WEAK_EPSILON = 10.0  # above it guarantees are weak to none: Ponomareva et al. 2023 (arXiv 2303.00654), section 5.2


def hollow(epsilon: float | None, delta: float, rows: int) -> str:
    """Why (epsilon, delta) promises nothing about ``rows`` records, as a sentence; empty where it promises something.

    delta of 1 / n or more permits to publish a record drawn at random, whole: Dwork & Roth 2014 (The Algorithmic
    Foundations of Differential Privacy), section 2.3. An epsilon under which an observer who began at even odds may end
    certain, in double precision (1 / (1 + exp(-epsilon)) = 1, from about 37), bounds nothing.
    """
    if rows and delta * rows >= 1:
        return (
            f"Expected delta below 1/n = {1 / rows:.3g} for {rows} records; got {delta:g}, under which the promise permits to "
            f"publish one of the records whole. Choose delta well below it, for example {min(1e-5, 0.01 / rows):.1g}."
        )
    if epsilon is not None and 1 / (1 + math.exp(-epsilon)) == 1:
        return (
            f"Expected an epsilon that promises something; with {epsilon:g} an observer may be certain who was removed. "
            "1 is a common choice, and above 10 little is promised."
        )
    return ""


def must_promise(budget: Budget, data: Data | None) -> None:
    """Raise InputError for a budget that promises nothing about ``data`` (:func:`hollow`)."""
    if reason := hollow(budget.epsilon, budget.delta, 0 if data is None else len(data)):
        raise InputError(reason)


def cautions(trained: Trained) -> tuple[str, ...]:
    """What an operator should know of a published promise before relying on it, one sentence each; empty for nothing.

    The expected norm of noise on d coordinates is sigma sqrt(d); a model whose weights are shorter answers by chance.
    """
    budget = trained.budget
    if budget is None or not budget.sigma:
        return ()
    names = trainable(trained.task.build())
    weights = [trained.secret[name].double() for name in names if name in trained.secret]
    norm = float(torch.stack([tensor.square().sum() for tensor in weights]).sum().sqrt())
    noise = budget.sigma * math.sqrt(sum(tensor.numel() for tensor in weights))
    said: list[str] = []
    if noise > norm:
        said.append(
            f"The noise (norm {noise:.3g}, sigma {budget.sigma:.3g} on every weight) is longer than the weights (norm "
            f"{norm:.3g}): the released model will hardly be better than chance. Use another method or more regularisation, "
            "a smaller capacity, fewer releases or a larger epsilon."
        )
    if budget.epsilon is not None and budget.epsilon > WEAK_EPSILON:
        said.append(f"epsilon {budget.epsilon:g} promises little: above 10, guarantees are weak to none.")
    return tuple(said)


def hollow_promise(promises: Mapping[str, Any], rows: int) -> str:
    """As :func:`hollow`, of what a method estimates that it will promise."""
    return hollow(None, promises["delta"], rows) if promises.get("delta") else ""
