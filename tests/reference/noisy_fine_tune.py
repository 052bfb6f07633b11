"""Noisy fine-tuning with clipped gradients: Koloskova, Allouah, Jha, Guerraoui and Koyejo, "Certified Unlearning for
Neural Networks", arXiv 2506.06985, the algorithm of gradient clipping.

x_0 = clip(theta, C0);  x <- x - lr (clip(g, C1) + l2 x) + N(0, sigma² I)   T times, g the mean gradient of a batch of
retained rows; then fine-tuning without noise on retained rows, which costs nothing.

Two starts lie within 2 C0 of each other. A step multiplies the distance by rho = 1 - lr l2 and adds at most 2 lr C1;
shifting the noise of all steps against that distance (privacy amplification by iteration) gives mu.
"""

import math

import numpy as np
from tests.reference.gaussian import mu_of
from tests.reference.gradient_descent import gradient


def clip(value, radius, inside=1.0):
    """The nearest point of the ball. ``inside``: the share of the radius that something outside is brought to."""
    norm = np.linalg.norm(value)
    return value if norm <= radius else value * (inside * radius / norm)


def unlearn(weights, x, y, batches, noises, *, model_clip, gradient_clip, lr, l2, inside=1.0):
    """The states before noise and after it, step by step: two lists as long as ``batches``.

    ``batches``: row numbers of each step; ``noises``: what is added in each step; ``inside``: see ``clip``. Below 1 it
    leaves room for rounding, and mu holds all the same.
    """
    state, before, after = clip(weights, model_clip, inside), [], []
    for rows, noise in zip(batches, noises, strict=True):
        pull = clip(gradient(state, x[rows], y[rows], 0.0), gradient_clip, inside)
        before.append(state - lr * (pull + l2 * state))
        state = before[-1] + noise
        after.append(state)
    return before, after


def mu(sigma, *, steps, model_clip, gradient_clip, lr, l2):
    """Delta_T / sqrt(V_T)."""
    rho = 1 - lr * l2
    distance = 2 * model_clip * rho**steps + 2 * lr * gradient_clip * math.fsum(rho**t for t in range(steps))
    variance = math.fsum((sigma * rho**t) ** 2 for t in range(steps))
    return distance / math.sqrt(variance)


def sigma_of(epsilon, delta, **settings):
    """The deviation a step with which mu is what (epsilon, delta) allows; mu falls as 1/sigma."""
    return mu(1.0, **settings) / mu_of(epsilon, delta)
