"""Full-batch gradient descent on softmax regression, written by hand.

F(W) = (1/n) sum_i [ log sum_k exp(w_k . x_i) - w_{y_i} . x_i ] + (l2/2) ||W||²,   W one row a class, (classes, features).

The training half of Mu and Klabjan, "Rewind-to-Delete", arXiv 2409.09778, Algorithm 1: constant step, no momentum, the
mean taken over the rows that are given. Clipping: each row's gradient is brought to norm at most ``clip`` before the
mean; the l2 term is never clipped.
"""

import numpy as np


def features(x, radius, bias):
    """Rows brought into the ball of ``radius``; a bias is a last feature that is 1 in every row."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = x * np.minimum(1.0, radius / norms)
    return np.hstack([x, np.ones((len(x), 1))]) if bias else x


def probabilities(weights, x):
    """softmax(x W'), one row an example."""
    scores = x @ weights.T
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def row_gradients(weights, x, y, clip=np.inf):
    """Gradient of each row's loss, without the l2 term: (p_i - e_{y_i}) x_i', shape (n, classes, features)."""
    errors = probabilities(weights, x) - np.eye(len(weights))[y]
    gradients = errors[:, :, None] * x[:, None, :]
    norms = np.sqrt((gradients**2).sum((1, 2), keepdims=True))
    return gradients * np.minimum(1.0, clip / np.maximum(norms, 1e-300))


def gradient(weights, x, y, l2, clip=np.inf):
    """Gradient of F."""
    return row_gradients(weights, x, y, clip).sum(0) / len(x) + l2 * weights


def hessian(weights, x, l2):
    """Second derivative of F, a square matrix over the flattened W (class by class)."""
    p = probabilities(weights, x)
    in_scores = p[:, :, None] * np.eye(len(weights)) - p[:, :, None] * p[:, None, :]  # diag(p) - pp' of each row
    total = np.einsum("nab,ni,nj->aibj", in_scores, x, x).reshape(weights.size, weights.size)
    return total / len(x) + l2 * np.eye(weights.size)


def descend(weights, x, y, *, l2, lr, steps, clip=np.inf):
    """All iterates, the start first: ``steps + 1`` arrays."""
    iterates = [np.array(weights, dtype=np.float64)]
    for _ in range(steps):
        iterates.append(iterates[-1] - lr * gradient(iterates[-1], x, y, l2, clip))
    return iterates


def gradient_bound(radius):
    """Largest norm that a row's gradient can have: ||p - e_y|| <= sqrt(2), and ||x|| <= radius (a bias counted)."""
    return np.sqrt(2) * radius


def smoothness(radius, l2):
    """Lipschitz constant of the gradient: diag(p) - pp' has norm at most 1/2."""
    return radius**2 / 2 + l2


def hessian_lipschitz(radius):
    """Lipschitz constant of the Hessian.

    The third derivative of log-sum-exp along u is the third central moment of the values u_k under the softmax. For
    ||u|| = 1 two values lie at most sqrt(2) apart, and p(1-p)(1-2p) is at most 1/(6 sqrt(3)).
    """
    return np.sqrt(2) ** 3 / (6 * np.sqrt(3)) * radius**3
