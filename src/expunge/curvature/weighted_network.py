"""Weighted cross-entropy of any classifier with products of its Gauss-Newton matrix, without forming it.

f(theta) = sum_z w_z l(theta; z) + (l2 / 2) ||theta||². The Gauss-Newton matrix sum_z w_z J_z' (diag(p_z) - p_z p_z') J_z,
J_z the derivative of the logits, leaves out of the Hessian what the network itself bends; it is never negative, and for
cross-entropy it is the true Fisher information (Martens 2014, arXiv 1412.1193, section 9). Of a linear head it is the Hessian
(``weighted_head``).

Formal guarantee: none of its own; products equal those of the matrix written out, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import vjp

from expunge.core.batch import Batch
from expunge.core.task import Task

AT_ONCE = 512  # examples of a pass: a few hundred megabytes of activations for small images


@dataclass(frozen=True, eq=False)
class WeightedNetwork:
    """The function.

    Attributes:
        task, model: how the network is run; the module's own trainable weights are never read.
        like: name → tensor of the trainable weights, in the order in which they are flattened.
        batch: examples with labels ``y`` (n,). weights: w, (n,).
        l2: of the regulariser, over all weights and biases.

    Shapes:
        theta and vectors (d,).
    """

    task: Task
    model: nn.Module
    like: Mapping[str, Tensor]
    batch: Batch
    weights: Tensor
    l2: float

    def gradient(self, theta: Tensor) -> Tensor:
        """(d,)."""
        total = self.l2 * theta
        for part, weights in self._parts():
            logits, back = vjp(lambda flat, part=part: self._logits(flat, part), theta)[:2]
            error = torch.softmax(logits, -1)
            error[torch.arange(len(error)), part["y"]] -= 1
            total = total + back(weights[:, None] * error)[0]
        return total

    def gauss_newton(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """v → (sum_z w_z J_z' (diag(p_z) - p_z p_z') J_z + l2) v, (d,)."""

        def product(vector: Tensor) -> Tensor:
            total = self.l2 * vector
            for part, weights in self._parts():
                logits, back = vjp(lambda flat, part=part: self._logits(flat, part), theta)[:2]
                # u -> J' u is linear, so that its transpose at any u is v -> J v: two backward passes for a forward-mode one
                (turned,) = vjp(lambda u, back=back: back(u)[0], torch.zeros_like(logits))[1](vector)
                p = torch.softmax(logits, -1)
                total = total + back(weights[:, None] * p * (turned - (p * turned).sum(-1, keepdim=True)))[0]
            return total

        return product

    def _parts(self) -> Iterator[tuple[Batch, Tensor]]:
        return zip(self.batch.parts(AT_ONCE), self.weights.split(AT_ONCE), strict=True)

    def _logits(self, flat: Tensor, part: Batch) -> Tensor:
        pieces = flat.split([tensor.numel() for tensor in self.like.values()])
        params = {name: piece.reshape(t.shape) for (name, t), piece in zip(self.like.items(), pieces, strict=True)}
        return self.task.outputs(self.model, params, part).logits
