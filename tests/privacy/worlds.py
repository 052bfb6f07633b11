"""Small losses with known constants, and gradient descent on them, for the oracles of the spec's section 7."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (θ (d,), sample indices (k,)) → per-sample gradients (k, d)


def descend(gradient: Gradient, theta: np.ndarray, ids: np.ndarray, lr: float, steps: int) -> np.ndarray:
    """Full-batch gradient descent on the mean loss over ``ids``."""
    for _ in range(steps):
        theta = theta - lr * gradient(theta, ids).mean(axis=0)
    return theta


def rewound_distance(
    gradient: Gradient, start: np.ndarray, n: int, m: int, steps: int, rewind: int, lr: float
) -> float:
    """‖unlearned − retrained‖ of R2D when samples 0..m−1 are forgotten, without noise."""
    everything, retained = np.arange(n), np.arange(m, n)
    checkpoint = descend(gradient, start, everything, lr, steps - rewind)
    unlearned = descend(gradient, checkpoint, retained, lr, rewind)
    return float(np.linalg.norm(unlearned - descend(gradient, start, retained, lr, steps)))


def waves(rng: np.random.Generator, n: int, dimension: int, clip: float | None = None) -> Gradient:
    """f_z(θ) = cos(w_z·θ + b_z), ‖w_z‖ <= 1: nonconvex, G = 1 and L = 1 everywhere; optionally clipped per sample."""
    directions = rng.standard_normal((n, dimension))
    directions /= np.maximum(1.0, np.linalg.norm(directions, axis=1, keepdims=True))
    phases = rng.uniform(0, 2 * np.pi, n)

    def gradient(theta: np.ndarray, ids: np.ndarray) -> np.ndarray:
        found = -np.sin(directions[ids] @ theta + phases[ids])[:, None] * directions[ids]
        if clip is None:
            return found
        return found / np.maximum(1.0, np.linalg.norm(found, axis=1, keepdims=True) / clip)

    return gradient


def concave_quadratic(curvature: float, bound: float, m: int, dimension: int) -> Gradient:
    """O2: f_z = −(L/2)‖θ‖² + g_z·θ with g = +G e₁ on the first m samples, −G e₁ on the others."""
    first = np.eye(dimension)[0]

    def gradient(theta: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return -curvature * theta + np.where(ids < m, bound, -bound)[:, None] * first

    return gradient


def logistic(x: np.ndarray, y: np.ndarray, l2: float) -> Gradient:
    """ln(1 + e^{−y θ·x}) + (l2/2)‖θ‖², y = ±1."""

    def gradient(theta: np.ndarray, ids: np.ndarray) -> np.ndarray:
        margin = y[ids] * (x[ids] @ theta)
        return -(y[ids] / (1 + np.exp(margin)))[:, None] * x[ids] + l2 * theta

    return gradient
