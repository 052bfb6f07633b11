"""Langevin unlearning: Chien, Wang, Chen and Li, "Langevin Unlearning: A New Perspective of Noisy Gradient Descent for
Machine Unlearning", arXiv 2401.10371, sections 3 and 4.

w <- w - lr ( (1/n) sum_i clip(g_i, M) + l2 w ) + sqrt(2 lr) sigma N(0, I), in training on all rows and then in
unlearning. Data sets that are compared have n rows both: who is forgotten is replaced, here by a row without gradient, so
the sum runs over fewer rows and n stays.
"""

import math

import numpy as np
from tests.reference.gradient_descent import row_gradients


def noisy_steps(weights, x, y, noises, *, n, l2, lr, clip):
    """The states before noise and after it, step by step. ``noises``: what is added in each."""
    state, before, after = weights, [], []
    for noise in noises:
        drift = row_gradients(state, x, y, clip).sum(0) / n + l2 * state
        before.append(state - lr * drift)
        state = before[-1] + noise
        after.append(state)
    return before, after


def deviation(lr, sigma):
    """Of the noise in one step."""
    return math.sqrt(2 * lr) * sigma


def renyi(order, *, n, m, steps, lr, sigma, clip, strong_convexity):
    """Renyi level of ``steps`` unlearning steps after training that has converged, ``m`` records replaced."""
    start = 4 * order * m**2 * clip**2 / (strong_convexity * sigma**2 * n**2)
    return np.exp(-steps * strong_convexity * lr / order) * start


def epsilon_of(delta, **settings):
    """min over orders of renyi(order) + ln(1/delta)/(order - 1)."""
    order = 1 + np.geomspace(1e-4, 1e7, 200_001)
    return float((renyi(order, **settings) + math.log(1 / delta) / (order - 1)).min())
