"""Hessian products, the explicit Hessian of a small model, and its largest eigenvalue."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacrev, vjp

ROWS_AT_ONCE = 64  # of the Hessian: each takes one backward pass' memory


def hessian_product(loss: Callable[[Tensor], Tensor], theta: Tensor, vector: Tensor) -> Tensor:
    """``(d² loss / d theta²) vector`` by reverse over reverse differentiation (H is symmetric).

    Shapes:
        ``theta``, ``vector``: (d,). ``loss`` maps (d,) to a scalar. Returns (d,).

    >>> import torch
    >>> hessian_product(lambda t: (t**3).sum(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
    tensor([ 6., 12.])
    """
    return vjp(grad(loss), theta)[1](vector)[0]


def hessian_products(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Callable[[Tensor], Tensor]:
    """``vector → H vector`` at one point: what a product needs of the point is computed once.

    Shapes:
        as :func:`hessian_product`.
    """
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(leaf), [leaf], create_graph=True)

    def product(vector: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(gradient, [leaf], vector, retain_graph=True, materialize_grads=True)
        return found

    return product


def explicit_hessian(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """The (d, d) Hessian, symmetrised; d² memory, so for thousands of parameters at the most."""
    hessian = jacrev(grad(loss), chunk_size=ROWS_AT_ONCE)(theta)
    return (hessian + hessian.T) / 2


def spectral_norm(
    loss: Callable[[Tensor], Tensor], theta: Tensor, generator: torch.Generator, iterations: int = 30
) -> float:
    """Largest |eigenvalue| of the Hessian by power iteration.

    Formal guarantee: a lower bound on the largest |eigenvalue| at ``theta``; says nothing about other points.
    """
    vector = torch.randn(theta.shape, generator=generator, dtype=theta.dtype, device="cpu").to(theta.device)
    vector /= vector.norm()
    size = torch.zeros((), dtype=theta.dtype)
    products = hessian_products(loss, theta)
    for _ in range(iterations):
        product = products(vector)
        size = product.norm()
        if size == 0:
            return 0.0
        vector = product / size
    return float(size)
