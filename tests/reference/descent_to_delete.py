"""Descent to delete: Neel, Roth and Sharifi-Malvajerdi, "Descent-to-Delete: Gradient-Based Methods for Machine
Unlearning", arXiv 2007.02923, section 3, in the form whose un-noised state is kept secret.

Gradient descent on the retained rows from the weights at hand, step 2/(L + s), which brings any point nearer to the
minimiser by the factor g = (L - s)/(L + s) a step; L smoothness, s strong convexity.
"""

import math

from tests.reference.gradient_descent import descend


def step_size(smoothness, strong_convexity):
    """2 / (L + s)."""
    return 2 / (smoothness + strong_convexity)


def contraction(smoothness, strong_convexity):
    """g = (L - s)/(L + s)."""
    return (smoothness - strong_convexity) / (smoothness + strong_convexity)


def unlearn(weights, x, y, retained, *, steps, l2, smoothness):
    """Iterates on the retained rows, the weights at hand first."""
    return descend(weights, x[retained], y[retained], l2=l2, lr=step_size(smoothness, l2), steps=steps)


def apart(*, n, m, steps, lr, gradient_bound, strong_convexity):
    """How far two trainings of T steps can be apart of which one lacks m of n rows: 2mG/(ns) (1 - (1 - lr s)^T)."""
    return 2 * m * gradient_bound / (n * strong_convexity) * (1 - (1 - lr * strong_convexity) ** steps)


def unfinished(*, steps, lr, gradient_bound, strong_convexity, start_norm):
    """How far training of T steps can be from the minimiser, whose norm is at most G/s."""
    return (1 - lr * strong_convexity) ** steps * (start_norm + gradient_bound / strong_convexity)


def bound(requests, *, n, smoothness, strong_convexity, gradient_bound, steps, lr, unlearn_steps, start_norm):
    """Distance to training on the retained rows alone, after each of ``requests`` (how many rows each takes away).

    What the request before left is e from the training that it is compared with; that one is ``apart`` from the next
    training, which is b from its minimiser. K steps shrink the sum, and b leads back to the next training.
    """
    g = contraction(smoothness, strong_convexity) ** unlearn_steps
    shared = {"steps": steps, "lr": lr, "gradient_bound": gradient_bound, "strong_convexity": strong_convexity}
    b, e, bounds = unfinished(start_norm=start_norm, **shared), 0.0, []
    for m in requests:
        e = g * (e + apart(n=n, m=m, **shared) + b) + b
        bounds.append(e)
        n -= m
    return bounds


def closed_bound(requests, *, n, smoothness, strong_convexity, gradient_bound, steps, lr, unlearn_steps, start_norm):
    """The last of ``bound`` without its recursion, and never below it: g^K (A + (2j - 1) b) + b for the j-th request.

    Steps never stretch a distance, so what the requests before left is at most the sum of their ``apart`` and 2b each;
    all those rows at once, out of the fewest that a request has found, are at least as far ``apart`` (A) as their sum.
    """
    g = contraction(smoothness, strong_convexity) ** unlearn_steps
    shared = {"steps": steps, "lr": lr, "gradient_bound": gradient_bound, "strong_convexity": strong_convexity}
    b = unfinished(start_norm=start_norm, **shared)
    together = apart(n=n - sum(requests[:-1]), m=sum(requests), **shared)
    return g * (together + (2 * len(requests) - 1) * b) + b


def printed_sigma(*, n, steps, smoothness, strong_convexity, gradient_bound, epsilon, delta):
    """The paper's noise for one record a request, training that reached the minimiser."""
    g = contraction(smoothness, strong_convexity) ** steps
    root = math.sqrt(math.log(1 / delta))
    noise = math.sqrt(math.log(1 / delta) + epsilon) - root
    return 4 * math.sqrt(2) * gradient_bound * g / (strong_convexity * n * (1 - g) * noise)
