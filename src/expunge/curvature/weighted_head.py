"""Weighted cross-entropy of a linear head with products of its Hessian and of Fisher matrices, without forming any of them.

f(theta) = sum_z w_z l(theta; z) + (l2 / 2) ||theta||². For a linear head under cross-entropy the Hessian is the Gauss-Newton
matrix and the true Fisher information; the empirical Fisher takes the gradients at the labels as they are, which is something
else away from a perfect fit (Kunstner, Balles and Hennig 2019, arXiv 1905.12558).

Formal guarantee: none of its own; products equal those of differentiating twice, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.tasks.closed_forms import ClosedForm, Examples


@dataclass(frozen=True, eq=False)
class WeightedHead:
    """The function; leading axes stand for objectives of several peers, each at a model of its own.

    Attributes:
        form: of one layer. examples: features (..., d_x, n), labels (..., n). weights: w, (..., 1, n).
        l2: of the regulariser, over all weights and biases.

    Shapes:
        theta and vectors (..., d) with d = classes · d_x, plus classes for biases, which come last.
    """

    form: ClosedForm
    examples: Examples
    weights: Tensor
    l2: float

    def gradient(self, theta: Tensor) -> Tensor:
        """(..., d)."""
        params = self._params(theta)
        found = self.form.gradient(params, list(params), self.examples, self.weights)
        return self._flat(*found.values()) + self.l2 * theta

    def gauss_newton(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """v → H v, (..., d); probabilities at ``theta`` are computed once for all products."""
        p = self._probabilities(theta)
        likely = self.weights * p

        def product(vector: Tensor) -> Tensor:
            turned = self._affine(vector)
            return self._outer(likely * (turned - (p * turned).sum(-2, keepdim=True))) + self.l2 * vector

        return product

    def hessian_diagonal(self, theta: Tensor) -> Tensor:
        """The diagonal of H, (..., d): of the true Fisher matrix."""
        p = self._probabilities(theta)
        return self._outer(self.weights * p * (1 - p), squared=True) + self.l2

    def empirical(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """v → (sum_z w_z g_z g_z' + l2) v with g_z the gradient of one example's loss, (..., d)."""
        error = self._errors(theta)

        def product(vector: Tensor) -> Tensor:
            along = (error * self._affine(vector)).sum(-2, keepdim=True)  # g_z · v
            return self._outer(self.weights * along * error) + self.l2 * vector

        return product

    def kronecker(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """v → (A ⊗ G + l2) v, (..., d): the true Fisher matrix as if inputs a and output gradients were independent.

        A is the weighted mean of a a', a with a 1 where there are biases, G the weighted sum of diag(p) - p p'. K-FAC, Martens
        and Grosse 2015 (arXiv 1503.05671), section 3. Exact where all examples have the same probabilities.
        """
        p, biased = self._probabilities(theta), self.form.layers[0].bias is not None
        inputs, likely = self.examples.features, self.weights * p
        if biased:
            inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1, :])], -2)
        outputs = torch.diag_embed(likely.sum(-1)) - likely @ p.mT
        second = (self.weights * inputs) @ inputs.mT / self.weights.sum(-1, keepdim=True)

        def product(vector: Tensor) -> Tensor:
            weight, *bias = self._params(vector).values()
            whole = torch.cat([weight, bias[0].unsqueeze(-1)], -1) if biased else weight
            turned = outputs @ whole @ second
            parts = (turned[..., :-1], turned[..., -1]) if biased else (turned,)
            return self._flat(*parts) + self.l2 * vector

        return product

    def empirical_diagonal(self, theta: Tensor) -> Tensor:
        """The diagonal of the empirical Fisher matrix plus l2, (..., d)."""
        return self._outer(self.weights * self._errors(theta).square(), squared=True) + self.l2

    def _errors(self, theta: Tensor) -> Tensor:
        """softmax minus one-hot, (..., classes, n)."""
        p = self._probabilities(theta)
        labels = self.examples.labels.unsqueeze(-2).expand(*p.shape[:-2], 1, -1)
        return p.scatter_add(-2, labels, -torch.ones_like(labels, dtype=p.dtype))

    def _probabilities(self, theta: Tensor) -> Tensor:
        return torch.softmax(self._affine(theta), -2)

    def _affine(self, theta: Tensor) -> Tensor:
        (layer,) = self.form.layers
        return layer.affine(self._params(theta), self.examples.features)

    def _outer(self, error: Tensor, squared: bool = False) -> Tensor:
        features = self.examples.features.square() if squared else self.examples.features
        parts = [error @ features.mT]
        if self.form.layers[0].bias is not None:
            parts.append(error.sum(-1))
        return self._flat(*parts)

    def _params(self, theta: Tensor) -> dict[str, Tensor]:
        (layer,), width = self.form.layers, self.examples.features.shape[-2]
        lead = theta.shape[:-1]
        if layer.bias is None:
            return {layer.weight: theta.reshape(*lead, -1, width)}
        classes = theta.shape[-1] // (width + 1)
        weight, bias = theta.split([classes * width, classes], -1)
        return {layer.weight: weight.reshape(*lead, classes, width), layer.bias: bias}

    def _flat(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        flat = weight.flatten(-2)
        return flat if bias is None else torch.cat([flat, bias], -1)
