"""Approximate inverses by a fixed number of steps of a fixed-point iteration, as published influence methods take them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def neumann(
    product: Callable[[Tensor], Tensor], right: Tensor, scale: float, steps: int, damping: float = 0.0
) -> Tensor:
    """h_T / s with h_0 = b and h_{j+1} = b + (1 - damping) h_j - A h_j / s: for many steps A^-1 b.

    In the eigenbasis of A and without damping each component is ``b (1 - (1 - λ/s)^(T+1)) / λ`` (derived here): it converges
    where all 0 < λ < 2 s, and for a large s it is nearly ``(T + 1) b / s``, whatever A is.

    Args:
        product: x → A x. right: b. scale: s. steps: T.

    Source: the released code of GIF (Wu et al. 2023, arXiv 2304.02835) and IDEA (Dong et al. 2024, arXiv 2407.19398).
    """
    h = right
    for _ in range(steps):
        h = right + (1 - damping) * h - product(h) / scale
    return h / scale
