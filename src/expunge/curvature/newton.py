"""Newton's method on a function of one vector: the step, and the minimiser of a strongly convex function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad

from expunge.curvature.hessian import explicit_hessian

Loss = Callable[[Tensor], Tensor]


def newton_step(loss: Loss, theta: Tensor) -> Tensor:
    """``theta - H^{-1} gradient`` of ``loss`` at ``theta`` (d,): the minimiser itself where the loss is quadratic."""
    return theta - torch.linalg.solve(explicit_hessian(loss, theta), grad(loss)(theta))


def minimise(loss: Loss, theta: Tensor, tolerance: float, max_steps: int) -> tuple[Tensor, float]:
    """Newton steps, halved until the loss does not rise, until the gradient norm is at most ``tolerance``.

    Returns:
        The last point and its gradient norm, which is above ``tolerance`` where ``max_steps`` did not reach it.
    """
    for _ in range(max_steps):
        if float(grad(loss)(theta).norm()) <= tolerance:
            break
        way, share = newton_step(loss, theta) - theta, 1.0
        while loss(theta + share * way) > loss(theta) and share > 1e-6:
            share /= 2
        theta = theta + share * way
    return theta, float(grad(loss)(theta).norm())
