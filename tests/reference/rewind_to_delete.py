"""Rewind to delete: Mu and Klabjan, "Rewind-to-Delete: Certified Machine Unlearning for Nonconvex Functions",
arXiv 2409.09778, Algorithms 1 and 2, Theorem 3.1; tighter bounds on the distance under the same assumptions.

Learn:   theta_t = theta_{t-1} - lr grad F_D(theta_{t-1}) for t = 1..T; keep theta_{T-K}; publish theta_T + noise.
Unlearn: start at theta_{T-K}, K steps of the same length on the retained rows only; publish the last + fresh noise.

The bounds say how far that last iterate is from the one that training on the retained rows alone would have reached.
"""

import math

from tests.reference.gradient_descent import descend


def unlearn(iterates, x, y, retained, *, rewind, l2, lr):
    """Iterates of Algorithm 2, the checkpoint first. ``iterates``: those of the training on all rows."""
    checkpoint = iterates[len(iterates) - 1 - rewind]
    return descend(checkpoint, x[retained], y[retained], l2=l2, lr=lr, steps=rewind)


def published_bound(*, n, m, steps, rewind, lr, smoothness, gradient_bound):
    """Theorem 3.1: 2 m G h(K) / (L n)."""
    a, b = lr * smoothness * n / (n - m), lr * smoothness
    h = ((1 + a) ** (steps - rewind) - 1) * (1 + b) ** rewind
    return 2 * m * gradient_bound * h / (smoothness * n)


def tight_bound(*, n, m, steps, rewind, lr, smoothness, gradient_bound):
    """The same recursion with the two means compared at one point: no factor n/(n-m)."""
    b = 1 + lr * smoothness
    return 2 * m * gradient_bound / (smoothness * n) * (b**steps - b**rewind)


def path_bound(*, n, m, steps, rewind, lr, smoothness, gradient_bound):
    """Two runs cannot part faster than 2 lr G a step; needs lr l2 <= 2."""
    distance = 0.0
    for t in range(steps):
        push = 2 * lr * m * gradient_bound / n if t < steps - rewind else 0.0
        distance += min(lr * smoothness * distance + push, 2 * lr * gradient_bound)
    return distance


def convex_bound(*, n, m, steps, rewind, lr, gradient_bound):
    """Convex losses and lr <= 2/L: a step on the same rows never parts two runs."""
    return 2 * lr * m * gradient_bound * (steps - rewind) / n


def strongly_convex_bound(*, n, m, steps, rewind, lr, gradient_bound, strong_convexity):
    """Strongly convex losses and lr <= 2/(L + strong convexity): a step contracts by rho = 1 - lr * strong convexity."""
    rho = 1 - lr * strong_convexity
    learned = math.fsum(rho**t for t in range(steps - rewind))
    return rho**rewind * learned * 2 * lr * m * gradient_bound / n
