"""Curves through weight space that join two models, and the batch statistics of a point on them.

A curve has fixed ends and one trainable bend (Garipov et al. 2018, arXiv 1802.10026). It knows nothing of how the bend is
trained: ManiF-SMC, mode-connectivity unlearning and plots of a path share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Curve(ABC):
    """A path from ``start`` (t = 0) to ``end`` (t = 1) that bends at ``bend``; only the bend may get gradients."""

    start: Tensors
    bend: Tensors
    end: Tensors

    @abstractmethod
    def weights(self, t: float) -> tuple[float, float, float]:
        """Shares of start, bend and end at ``t``; they sum to 1."""

    def at(self, t: float) -> dict[str, Tensor]:
        """The model at ``t``, differentiable in the bend; the ends are returned bit for bit.

        Tensors that are not floating-point (counters) are the start's.

        Raises:
            InputError: if ``t`` lies outside [0, 1].
        """
        if not 0 <= t <= 1:
            raise InputError(f"Expected a place on the curve between 0 and 1; got {t}.")
        if t in (0.0, 1.0):
            return dict(self.start if t == 0 else self.end)
        a, b, c = self.weights(t)
        return {
            name: a * start.detach() + b * self.bend[name] + c * self.end[name].detach()
            if start.is_floating_point()
            else start
            for name, start in self.start.items()
        }


@dataclass(frozen=True)
class Bezier(Curve):
    """(1-t)² start + 2 t (1-t) bend + t² end."""

    def weights(self, t: float) -> tuple[float, float, float]:
        """See :class:`Curve`."""
        return (1 - t) ** 2, 2 * t * (1 - t), t**2


def middle(start: Tensors, end: Tensors) -> dict[str, Tensor]:
    """Where a bend begins: halfway between the ends."""
    return {name: (tensor + end[name]) / 2 if tensor.is_floating_point() else tensor for name, tensor in start.items()}


@torch.no_grad()
def refreshed_statistics(
    task: Task, model: nn.Module, tensors: Tensors, batch: Batch, batch_size: int
) -> dict[str, Tensor]:
    """``tensors`` with the running statistics that ``batch`` gives: means over its batches, nothing else changes.

    Averaged weights with old statistics are a model that nobody trained: its accuracy collapses without this pass.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not layers:
        return dict(tensors)
    mode, momenta = model.training, [layer.momentum for layer in layers]
    names = {name for name, _ in model.named_buffers()}
    buffers = {name: tensors[name].clone() for name in names}
    for layer in layers:
        layer.momentum = None  # cumulative average
    for prefix, layer in model.named_modules():
        if layer in layers:  # other buffers are none of ours
            for name, _ in layer.named_buffers(prefix):
                buffers[name].fill_(1.0 if name.endswith("running_var") else 0)
    try:
        model.train()
        for number, part in enumerate(batch.parts(batch_size)):
            if len(part) == 1 and number and batch_size > 1:
                break  # one row alone has no variance
            task.outputs(model, {**tensors, **buffers}, part)
    finally:
        model.train(mode)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    return {**tensors, **buffers}
