"""Trainable weights as one vector and back: what second-order methods and distances speak of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.task import Task
from expunge.curvature.newton import Differentiated, Objective
from expunge.curvature.softmax_head import HeadObjective
from expunge.tasks.closed_forms import closed_form
from expunge.tasks.passes import MEAN_GRADIENT
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
    task: Task, model: nn.Module, like: Mapping[str, Tensor], batch: Batch, l2: float, linear: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Mean loss over ``batch`` + (l2 / 2) ||theta||² + <linear, theta> as a function of the flat trainable weights."""
    names, batch = trainable(model), batch.read()

    def loss(theta: Tensor) -> Tensor:
        mean = task.losses(model, unflatten(theta, like, names), batch).mean() + l2 / 2 * theta.square().sum()
        return mean if linear is None else mean + linear @ theta

    return loss


def objective(
    task: Task, model: nn.Module, like: Mapping[str, Tensor], batch: Batch, l2: float, linear: Tensor | None = None
) -> Objective:
    """The same function with its derivatives: written out for a softmax head with l2 > 0, by autograd otherwise."""
    form = closed_form(task, model)
    if form is None or len(form.layers) > 1 or not l2 > 0 or set(trainable(model)) != form.names:
        return Differentiated(flat_loss(task, model, like, batch, l2, linear))
    return HeadObjective(form, [form.examples(part) for part in batch.parts(MEAN_GRADIENT)], l2, linear)


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
