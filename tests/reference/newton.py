"""One Newton step: Sekhari, Acharya, Kamath and Suresh, "Remember What You Want to Forget", arXiv 2103.03279,
Algorithm 1 and Lemma 3.

w_bar = w_hat - H^-1 grad F_{D'}(w_hat), H the Hessian of F_{D'}, D' the retained rows. Where w_hat minimises F_D this is
the paper's w_hat + (1/(n-m)) H^-1 sum of the forgotten rows' gradients. w_hat is found by Newton's method, to a gradient
norm r that the bounds count.
"""

import numpy as np
from tests.reference.gradient_descent import gradient, hessian


def step(weights, x, y, l2):
    """One Newton step on F."""
    move = np.linalg.solve(hessian(weights, x, l2), gradient(weights, x, y, l2).reshape(-1))
    return weights - move.reshape(weights.shape)


def minimise(weights, x, y, l2, tolerance):
    """Newton steps until the gradient norm is at most ``tolerance``, and the norm that was reached."""
    while (reached := np.linalg.norm(gradient(weights, x, y, l2))) > tolerance:
        weights = step(weights, x, y, l2)
    return weights, reached


def unlearn(weights, x, y, present, retained, *, l2, tolerance):
    """w_bar and r. ``present``: the rows before this request, ``retained``: those after it."""
    weights, reached = minimise(weights, x[present], y[present], l2, tolerance)
    return step(weights, x[retained], y[retained], l2), reached


def printed_bound(*, n, m, loss_lipschitz, hessian_lipschitz, strong_convexity):
    """Lemma 3: 2 M m² L² / (lambda³ n²), for exact minimisers; L the Lipschitz constant of a row's whole loss."""
    return 2 * hessian_lipschitz * m**2 * loss_lipschitz**2 / (strong_convexity**3 * n**2)


def newton_bound(*, n, m, loss_lipschitz, hessian_lipschitz, strong_convexity, residual):
    """Distance from w_bar to the minimiser on the retained rows by Newton's error: M/(2 lambda) ||w_hat - minimiser||².

    At w_hat the gradients of all n rows sum to at most n r, those of the m forgotten ones to at most m (L + r): so the
    retained mean has a gradient of at most (n r + m (L + r)) / (n - m), and its minimiser lies within that over lambda.
    """
    pull = (n * residual + m * (loss_lipschitz + residual)) / (n - m)
    return hessian_lipschitz / (2 * strong_convexity) * (pull / strong_convexity) ** 2


def bound(*, residual, strong_convexity, **given):
    """The smaller of both, each with room r/lambda for every minimiser that was found only up to r.

    The printed one presumes two exact minimisers; Newton's error counts the first of them itself.
    """
    room = residual / strong_convexity
    printed = printed_bound(strong_convexity=strong_convexity, **given) + 2 * room
    return min(printed, newton_bound(strong_convexity=strong_convexity, residual=residual, **given) + room)
