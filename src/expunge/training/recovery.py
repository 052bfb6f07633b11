"""Walking back along a trajectory that nobody stored (R2D Algorithm 3), with the error it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.training.descent import MeanGradient, Step, descend, split
from expunge.training.flat import distance


@dataclass(frozen=True)
class Recovered:
    """An iterate found again.

    Attributes:
        tensors: theta_{T-K}, double precision.
        residual: distance between K forward steps from there and the known end point.
        gradient_passes: full gradients computed.
    """

    tensors: dict[str, Tensor]
    residual: float
    gradient_passes: int


def recover(
    task: Task, model: nn.Module, end: Mapping[str, Tensor], batch: Batch, step: Step, steps: int, *,
    tolerance: float = 1e-13, max_inner: int = 200, watch: Any = None,
) -> Recovered:  # fmt: skip
    """Undo ``steps`` descent steps by the fixed point ``x <- theta_{t+1} + lr * gradient(x)``.

    Source: R2D (arXiv 2409.09778), Algorithm 3; that its sub-problem is solved by a fixed point is our choice.

    A contraction with factor eta * L where that is below 1. The residual is measured by descending forward again; with a
    valid L it bounds the error of the start by ``residual / (1 - eta L)^K`` (``privacy.sensitivity.recovery_error``).

    Raises:
        InputError: in single precision, or where the fixed point does not settle (eta * L is 1 or more).
    """
    moved, fixed = split(model, end)
    if any(tensor.dtype != torch.float64 for tensor in moved.values()):
        raise InputError("Recovering iterates needs double precision; train the model with dtype float64.")
    mean_gradient, passes = MeanGradient.of(task, model, fixed, step).on(batch), 0
    for back in range(1, steps + 1):
        target = {name: tensor.clone() for name, tensor in moved.items()}
        size = max(1.0, float(torch.cat([t.reshape(-1) for t in target.values()]).norm()))
        previous = float("inf")
        for _ in range(max_inner):
            gradient = mean_gradient(moved)
            passes += 1
            following = {name: target[name] + step.lr * gradient[name] for name in target}
            change = distance(following, moved)
            moved = following
            if change <= tolerance * size:
                break
            if change > 1e6 * size or (change >= previous and change > 1e-6 * size):
                raise InputError(
                    f"Recovery does not settle {back} step(s) back (change {change:.2e}): eta * L is too close to 1 "
                    "or above. Retrain with a smaller step, or store iterates."
                )
            previous = change
        if watch:
            watch("recover", back, steps)
    start = {**moved, **fixed}
    forward, _ = descend(task, model, start, batch, step, steps)
    return Recovered(start, distance(forward, dict(end)), passes + steps)
