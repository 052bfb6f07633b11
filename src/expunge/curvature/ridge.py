"""Ridge regression that rows can leave and join: inverse and weights are updated, not computed anew (Woodbury)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core.errors import InputError

FACTORISING = 2.3  # a flop of a factorisation, in flops of a product: 1.6 to 2.9 measured (bench/graph_editor.py)


@dataclass(frozen=True, eq=False)
class Ridge:
    """``S = (Z'Z + lambda I)^-1`` and ``W = S Z'Y``, in double precision.

    Shapes:
        inverse (d, d); weights (d, k).

    Source: the closed forms of GraphEditor (Cong and Mahdavi, submission to ICLR 2023).
    """

    inverse: Tensor
    weights: Tensor

    @classmethod
    def fit(cls, z: Tensor, y: Tensor, l2: float) -> Ridge:
        """From all rows.

        Shapes:
            z (n, d), y (n, k).

        Raises:
            InputError: unless ``l2`` is above 0: without it the inverse may not exist.
        """
        if not l2 > 0:
            raise InputError(f"Expected l2 above 0 for ridge regression; got {l2}.")
        gram = z.T @ z
        gram.diagonal().add_(l2)
        lower = torch.linalg.cholesky(gram)
        return cls(torch.cholesky_inverse(lower), torch.cholesky_solve(z.T @ y, lower))

    def removed(self, z: Tensor, y: Tensor) -> Ridge:
        """Without the rows z (r, d), y (r, k), which were among those fitted."""
        return self._changed(z, y, -1.0)

    def added(self, z: Tensor, y: Tensor) -> Ridge:
        """With further rows z (r, d), y (r, k)."""
        return self._changed(z, y, 1.0)

    def _changed(self, z: Tensor, y: Tensor, sign: float) -> Ridge:
        if not len(z):
            return self
        turned = z @ self.inverse  # (r, d)
        middle = sign * (turned @ z.T)
        middle.diagonal().add_(1)
        lower = torch.linalg.cholesky(middle)
        missed = y - z @ self.weights
        return Ridge(
            self.inverse - sign * turned.T @ torch.cholesky_solve(turned, lower),
            self.weights + sign * turned.T @ torch.cholesky_solve(missed, lower),
        )


def residual(weights: Tensor, z: Tensor, y: Tensor, l2: float) -> float:
    """``||(Z'Z + lambda I) W - Z'Y|| / ||Z'Y||``: how far weights are from solving the normal equations."""
    right = z.T @ y
    return float(
        (z.T @ (z @ weights) + l2 * weights - right).norm() / right.norm().clamp_min(torch.finfo(y.dtype).tiny)
    )


def cost_of_fit(rows: int, columns: int) -> float:
    """Flops of :meth:`Ridge.fit`, in flops of a matrix product: the Gram matrix, its factor and its inverse."""
    return 2.0 * rows * columns**2 + FACTORISING * columns**3


def cost_of_change(rows: int, columns: int) -> float:
    """The same of :meth:`Ridge.removed` or :meth:`Ridge.added` of ``rows``: two products with d², two with r², one factor."""
    return 4.0 * rows * columns**2 + 2.0 * columns * rows**2 + FACTORISING * (rows**3 / 3 + columns * rows**2 * 2 / 3)
