"""The exact Gaussian mechanism.

Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", arXiv 1805.06530, Theorem 8; composition as
Gaussian differential privacy, Dong, Roth and Su, arXiv 1905.02383, Corollary 3.3.

Two Gaussians of deviation sigma whose means lie Delta apart have mu = Delta / sigma and

    delta(epsilon) = Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu).
"""

import math

from scipy.special import log_ndtr


def delta_of(epsilon, mu):
    """delta(epsilon), both terms as logarithms so that neither overflows."""
    if mu == 0:
        return 0.0
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return 0.0 if second >= first else math.exp(first) * -math.expm1(second - first)


def bisect(holds, low, high):
    """The border between ``holds(low)`` and ``not holds(high)``, to the last digit."""
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if holds(middle) else (low, middle)


def epsilon_of(mu, delta):
    """The smallest epsilon >= 0 with delta(epsilon) <= delta."""
    if delta_of(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while delta_of(high, mu) > delta:
        high *= 2
    return bisect(lambda epsilon: delta_of(epsilon, mu) > delta, 0.0, high)


def mu_of(epsilon, delta):
    """The largest mu with delta(epsilon) <= delta."""
    high = 1.0
    while delta_of(epsilon, high) <= delta:
        high *= 2
    return bisect(lambda mu: delta_of(epsilon, mu) <= delta, 0.0, high)


def sigma_of(sensitivity, epsilon, delta):
    """The smallest deviation that hides a distance."""
    return sensitivity / mu_of(epsilon, delta)


def compose(mus):
    """mu of several releases with fresh noise, seen together."""
    return math.sqrt(math.fsum(mu * mu for mu in mus))
