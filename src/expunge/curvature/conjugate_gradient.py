"""Linear systems with a symmetric positive definite matrix that is known by its products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients came to.

    Attributes:
        solution: of the shape of the right-hand side.
        products: how many products with the matrix it took.
        residual: ||A x - b|| / ||b||; 0 for b = 0.
        definite: whether every direction that was tried bends upwards; otherwise it stopped at the first that does not.
    """

    solution: Tensor
    products: int
    residual: float
    definite: bool = True


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], right: Tensor, tolerance: float = 1e-8, most: int = 1000
) -> Solution:
    """Solve A x = b from x = 0 (Hestenes and Stiefel 1952) until ||A x - b|| <= tolerance ||b||.

    Args:
        product: x → A x.
        right: b, of any shape.
        tolerance: relative residual. most: products after which it stops; the residual then says how far it came.
    """
    size = float(right.norm())
    x = torch.zeros_like(right)
    if size == 0:
        return Solution(x, 0, 0.0)
    residual, square, done = right.clone(), size**2, 0
    way = residual.clone()
    while done < most and square**0.5 > tolerance * size:
        turned = product(way)
        done += 1
        bend = float((way * turned).sum())
        if not bend > 0:
            return Solution(x, done, square**0.5 / size, False)
        step = square / bend
        x += step * way
        residual -= step * turned
        before, square = square, float(residual.square().sum())
        way = residual + (square / before) * way
    return Solution(x, done, square**0.5 / size)
