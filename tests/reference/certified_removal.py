"""Certified removal: Guo, Goldstein, Hannun and van der Maaten, "Certified Data Removal from Machine Learning Models",
arXiv 1911.03030, sections 3.1 to 3.3.

Train:  w = argmin sum_i loss_i(w) + (l2 n/2) ||w||² + <b, w>,  b ~ N(0, s² I).
Remove: one Newton step on the same objective of the retained rows, b included.
Certify: the gradient norms that steps leave behind (residuals) add up over requests and are hidden by b while
their sum is at most s epsilon / c, c = sqrt(2 ln(1.5/delta)).
"""

import math

import numpy as np
from tests.reference.gradient_descent import hessian, row_gradients


def gradient(weights, x, y, l2, b):
    """Gradient of the sum objective."""
    return row_gradients(weights, x, y).sum(0) + l2 * len(x) * weights + b


def step(weights, x, y, l2, b):
    """One Newton step on the sum objective."""
    move = np.linalg.solve(len(x) * hessian(weights, x, l2), gradient(weights, x, y, l2, b).reshape(-1))
    return weights - move.reshape(weights.shape)


def train(weights, x, y, l2, b):
    """The minimiser, to the last digits."""
    for _ in range(50):
        weights = step(weights, x, y, l2, b)
    return weights


def unlearn(weights, x, y, retained, l2, b):
    """The weights after one removal (of any number of rows)."""
    return step(weights, x[retained], y[retained], l2, b)


def residual_bound(move, *, retained, hessian_lipschitz):
    """What a step of this length leaves by Taylor's formula, wherever it began: n' M/2 ||move||², n' rows retained.

    The paper's own bounds are for binary labels; this one is their step before the factor gamma is put in.
    """
    return retained * hessian_lipschitz / 2 * np.linalg.norm(move) ** 2


def allowed(s, epsilon, delta):
    """s epsilon / c."""
    return s * epsilon / math.sqrt(2 * math.log(1.5 / delta))


def epsilon_of(residual, s, delta):
    """The epsilon that a total residual comes to."""
    return residual * math.sqrt(2 * math.log(1.5 / delta)) / s
