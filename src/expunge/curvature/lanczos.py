"""Functions of a symmetric matrix that is known by its products alone, applied to one vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from expunge.curvature.conjugate_gradient import Solution

_EVERY = 4  # products between looks at how far the result still moves


def lanczos(
    product: Callable[[Tensor], Tensor], right: Tensor, function: Callable[[Tensor], Tensor], tolerance: float = 1e-8,
    most: int = 1000,
) -> Solution:  # fmt: skip
    """f(A) b from the Krylov space of A and b: ||b|| V f(T) e_1, T = V' A V tridiagonal (Lanczos 1950; Saad 1992).

    Exact where f is a polynomial of a degree below the number of products. Every new direction is made orthogonal to all
    earlier ones twice, since rounding loses that otherwise.

    Args:
        product: x → A x. right: b, (d,).
        function: eigenvalues (k,) → f of each.
        tolerance: relative change of the result, over some products, at which it stops. most: products.

    Returns:
        the result; its ``residual`` is the last relative change.
    """
    size = float(right.norm())
    if size == 0:
        return Solution(torch.zeros_like(right), 0, 0.0)
    most = min(most, len(right))
    basis, diagonal, beside = [right / size], [], []
    result, moved = torch.zeros_like(right), float("inf")
    while True:
        turned = product(basis[-1])
        diagonal.append(float(basis[-1] @ turned))
        space = torch.stack(basis)
        for _ in range(2):
            turned = turned - space.T @ (space @ turned)
        length, done = float(turned.norm()), len(diagonal)
        ended = done >= most or length <= 1e-14 * max(map(abs, diagonal))
        if ended or done % _EVERY == 0:
            off = torch.tensor(beside, dtype=right.dtype)
            values, vectors = torch.linalg.eigh(
                torch.diag(torch.tensor(diagonal, dtype=right.dtype)) + torch.diag(off, 1) + torch.diag(off, -1)
            )
            last, result = result, size * (space.T @ (vectors @ (function(values) * vectors[0])))
            moved = float((result - last).norm() / result.norm().clamp_min(1e-300))
            if ended or moved <= tolerance:
                return Solution(result, done, moved)
        beside.append(length)
        basis.append(turned / length)
