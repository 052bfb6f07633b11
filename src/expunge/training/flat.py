"""Trainable weights as one vector and back: what second-order methods and distances speak of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.task import Task
from expunge.training.descent import trainable


def flatten(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor:
    """The tensors called ``names`` as one vector (d,)."""
    return torch.cat([tensors[name].reshape(-1) for name in names])


def unflatten(theta: Tensor, like: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """``like`` with the tensors called ``names`` read from the vector ``theta`` (d,)."""
    sizes = [like[name].numel() for name in names]
    parts = theta.split(sizes)
    return {**like, **{n: part.view(like[n].shape) for n, part in zip(names, parts, strict=True)}}


def flat_loss(
    task: Task, model: nn.Module, like: Mapping[str, Tensor], batch: Batch, l2: float
) -> Callable[[Tensor], Tensor]:
    """Mean loss over ``batch`` plus (l2 / 2) ||theta||² as a function of the flat trainable weights."""
    names = trainable(model)

    def loss(theta: Tensor) -> Tensor:
        return task.losses(model, unflatten(theta, like, names), batch).mean() + l2 / 2 * theta.square().sum()

    return loss


def distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """L2 distance over all floating-point tensors, in double precision."""
    return float(
        sum(
            (first[name].double().cpu() - second[name].double().cpu()).square().sum()
            for name in first
            if first[name].is_floating_point()
        )
        ** 0.5
    )
