"""The regularised cross-entropy of a softmax head as a function of one vector, with its Hessian written out.

In the logits the Hessian of one example's loss is S = diag(p) - pp', so that of the weights is the mean of S ⊗ xx'. S maps the
vector of ones to zero: moving all classes together changes no loss. In an orthonormal basis Q of what is left, k - 1 directions
for k classes, a Newton step solves a system of (k - 1) d unknowns, and along the ones it divides by lambda. For two classes
Q'SQ = 2 p (1 - p): binary logistic regression, one product X'DX and one system of d unknowns.

Formal guarantee: none of its own; equal to differentiating twice, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.tasks.closed_forms import ClosedForm, Examples

# Of a Gram matrix: what lies above its diagonal is not computed. Fastest of 32 to 256 for 64 to 784 features.
COLUMNS_AT_ONCE = 48


@dataclass(frozen=True)
class HeadObjective:
    """Mean loss of a single-layer closed form plus (l2 / 2) ||theta||² plus <linear, theta>, l2 > 0.

    Attributes:
        parts: all examples, in chunks.
        linear: (d,), or ``None``.

    Shapes:
        theta (classes · features,), followed by the biases (classes,) where the head has them.
    """

    form: ClosedForm
    parts: Sequence[Examples]
    l2: float
    linear: Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of examples."""
        return sum(len(part) for part in self.parts)

    def value(self, theta: Tensor) -> Tensor:
        """The objective, a scalar."""
        params = self._params(theta)
        mean = torch.stack([self.form.losses(params, part).sum() for part in self.parts]).sum() / self.rows
        regularised = mean + self.l2 / 2 * theta.square().sum()
        return regularised if self.linear is None else regularised + self.linear @ theta

    def gradient(self, theta: Tensor) -> Tensor:
        """(d,)."""
        params = self._params(theta)
        total = self.l2 * theta if self.linear is None else self.l2 * theta + self.linear
        for part in self.parts:
            share = part.features.new_full((1, len(part)), 1 / self.rows)
            found = self.form.gradient(params, params, part, share)
            total += torch.cat([tensor.reshape(-1) for tensor in found.values()])
        return total

    def hessian(self, theta: Tensor) -> Tensor:
        """(d, d)."""
        classes = self._classes(theta)
        curved = self._curvature(theta, torch.eye(classes, dtype=theta.dtype, device=theta.device))
        order = self._by_class(torch.arange(len(theta), device=theta.device)).reshape(-1)
        return torch.empty_like(curved).index_put_((order[:, None], order[None, :]), curved)

    def newton_direction(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """``H^{-1} gradient`` at ``theta``, (d,)."""
        basis = _sums_to_zero(self._classes(theta), theta)  # (k, k - 1)
        by_class = self._by_class(gradient)  # (k, features)
        lower = torch.linalg.cholesky(self._curvature(theta, basis))
        inside = torch.cholesky_solve((basis.T @ by_class).reshape(-1, 1), lower).view(basis.shape[1], -1)
        step = basis @ inside + by_class.mean(0) / self.l2
        if self.form.layers[0].bias is None:
            return step.reshape(-1)
        return torch.cat([step[:, :-1].reshape(-1), step[:, -1]])

    def _curvature(self, theta: Tensor, basis: Tensor) -> Tensor:
        """The Hessian with classes in another basis (k, m), class by class: (m · features, m · features)."""
        params, (layer,) = self._params(theta), self.form.layers
        size = basis.shape[1]
        width = len(theta) // len(basis)
        total = theta.new_zeros(size, width, size, width)
        for part in self.parts:
            p = torch.softmax(layer.affine(params, part.features), 0)  # (k, n)
            features = part.features
            if layer.bias is not None:
                features = torch.cat([features, features.new_ones(1, len(part))])
            turned = basis.T @ p
            for a in range(size):
                for b in range(a + 1):
                    weights = ((basis[:, a] * basis[:, b]) @ p - turned[a] * turned[b]) / self.rows
                    total[a, :, b] += weighted_gram(features, weights)
        for a in range(size):
            for b in range(a):
                total[b, :, a] = total[a, :, b]
        matrix = total.view(size * width, size * width)
        matrix.diagonal().add_(self.l2)
        return matrix

    def _params(self, theta: Tensor) -> dict[str, Tensor]:
        layer, features = self.form.layers[0], len(self.parts[0].features)
        classes = self._classes(theta)
        params = {layer.weight: theta[: classes * features].view(classes, features)}
        return params if layer.bias is None else {**params, layer.bias: theta[classes * features :]}

    def _classes(self, theta: Tensor) -> int:
        return len(theta) // (len(self.parts[0].features) + (self.form.layers[0].bias is not None))

    def _by_class(self, vector: Tensor) -> Tensor:
        """Weights of each class, with its bias last: (k, features)."""
        if self.form.layers[0].bias is None:
            return vector.view(self._classes(vector), -1)
        classes = self._classes(vector)
        return torch.cat([vector[:-classes].view(classes, -1), vector[-classes:, None]], 1)


def weighted_gram(features: Tensor, weights: Tensor) -> Tensor:
    """The sum of w_i x_i x_i' over examples, (d, d), from features (d, n) and weights (n,)."""
    weighed, size = features * weights, len(features)
    total = features.new_empty(size, size)
    for start in range(0, size, COLUMNS_AT_ONCE):
        end = min(start + COLUMNS_AT_ONCE, size)
        block = weighed[start:] @ features[start:end].T
        total[start:, start:end] = block
        total[start:end, end:] = block[end - start :].T
    return total


def _sums_to_zero(size: int, like: Tensor) -> Tensor:
    """Orthonormal columns that are orthogonal to the vector of ones (Helmert), (size, size - 1)."""
    columns = torch.arange(1, size, dtype=like.dtype, device=like.device)
    basis = torch.ones(size, size - 1, dtype=like.dtype, device=like.device).triu()
    basis[1:].diagonal().copy_(-columns)
    return basis / (columns * (columns + 1)).sqrt()
