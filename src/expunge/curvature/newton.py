"""Newton's method on a function of one vector: the step, and the minimiser of a strongly convex function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.func import grad

from expunge.curvature.conjugate_gradient import conjugate_gradient
from expunge.curvature.hessian import explicit_hessian, hessian_products


class Objective(Protocol):
    """A smooth, strongly convex function of one vector (d,)."""

    def value(self, theta: Tensor) -> Tensor:
        """A scalar."""
        ...

    def gradient(self, theta: Tensor) -> Tensor:
        """(d,)."""
        ...

    def newton_direction(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """``H^{-1} gradient`` with the Hessian at ``theta``, (d,)."""
        ...


@dataclass(frozen=True)
class Differentiated:
    """Any function, by autograd.

    Attributes:
        loss: maps (d,) to a scalar.
    """

    loss: Callable[[Tensor], Tensor]

    def value(self, theta: Tensor) -> Tensor:
        """The function itself."""
        return self.loss(theta)

    def gradient(self, theta: Tensor) -> Tensor:
        """By one backward pass."""
        return grad(self.loss)(theta)

    def newton_direction(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """By d backward passes and the solution of a (d, d) system."""
        return torch.linalg.solve(explicit_hessian(self.loss, theta), gradient)


@dataclass(frozen=True)
class ByProducts(Differentiated):
    """A strongly convex function of many unknowns: its systems are solved by products with the Hessian alone.

    Attributes:
        tolerance, most: of conjugate gradients; 1e-8: what a step leaves the next one takes.
    """

    tolerance: float = 1e-8
    most: int = 2000

    def newton_direction(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """By conjugate gradients."""
        return conjugate_gradient(hessian_products(self.loss, theta), gradient, self.tolerance, self.most).solution


def newton_step(objective: Objective, theta: Tensor) -> Tensor:
    """``theta - H^{-1} gradient`` at ``theta`` (d,): the minimiser itself where the objective is quadratic."""
    return theta - objective.newton_direction(theta, objective.gradient(theta))


def minimise(objective: Objective, theta: Tensor, tolerance: float, max_steps: int) -> tuple[Tensor, float]:
    """Newton steps, halved until the objective does not rise, until the gradient norm is at most ``tolerance``.

    Returns:
        The last point and its gradient norm, which is above ``tolerance`` where ``max_steps`` did not reach it.
    """
    gradient = objective.gradient(theta)
    for _ in range(max_steps):
        if float(gradient.norm()) <= tolerance:
            break
        way, share, here = objective.newton_direction(theta, gradient), 1.0, objective.value(theta)
        while objective.value(theta - share * way) > here and share > 1e-6:
            share /= 2
        theta = theta - share * way
        gradient = objective.gradient(theta)
    return theta, float(gradient.norm())
