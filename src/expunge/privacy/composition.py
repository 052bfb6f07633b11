"""Several releases, groups, Rényi bounds: how guarantees add up and how they turn into (ε, δ).

Symbols: μ = sensitivity/σ of one Gaussian release; ρ = zCDP level; α = Rényi order (> 1); all without unit.

Sources stand beside each function; what has none is derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.core.errors import InputError
from expunge.core.trained import Spent
from expunge.privacy.domain import count, failure_probability, non_negative, probability

ORDERS = 1 + np.geomspace(1e-3, 1e6, 3001)  # α − 1 grows by 0.7% a step: ε is missed by less than 1e-4


def compose_gaussian(mus: Iterable[float]) -> float:
    """Return sqrt(Σ μ_j²): one Gaussian mechanism that is as revealing as all these releases with fresh noise together.

    Raises: InputError if a μ is negative.
    Formal guarantee: exact for releases whose noise is independent and whose requests do not depend on earlier
    releases.
    Source: Dong, Roth, Su 2019 (arXiv 1905.02383), Corollary 3.3.

    >>> compose_gaussian([3.0, 4.0]), compose_gaussian([])
    (5.0, 0.0)
    """
    return math.hypot(*(non_negative("mu", mu, allow_inf=True) for mu in mus))


@dataclass(frozen=True)
class EarlierReleases:
    """Earlier releases of a model as a certificate counts them: numbers whose size does not grow with how many there were.

    Attributes:
        releases: how many there were since the model was last trained from scratch.
        mu: what they come to together, see :func:`compose_gaussian`; infinite where nothing bounds one of them.
        theorems: under which they were made, sorted, each once; empty text for none.
        removed: records that the model which a request starts from had removed in all, as the release that it came of counts.
        since: releases after that one, which were given up.
    """

    releases: int = 0
    mu: float = 0.0
    theorems: tuple[str, ...] = ()
    removed: int = 0
    since: int = 0

    @classmethod
    def of(cls, spent: Sequence[Spent], removed: int) -> EarlierReleases:
        """What ``spent`` comes to for a request on a model from which ``removed`` records are gone.

        Where no release counts as many, the last one's count is kept, and differs from ``removed``.

        >>> EarlierReleases.of([Spent("a", 2, 3.0, "newton"), Spent("b", 5, 4.0, "newton")], 2)
        EarlierReleases(releases=2, mu=5.0, theorems=('newton',), removed=2, since=1)
        """
        counts = [0, *(item.removed for item in spent)]
        since = counts[::-1].index(removed) if removed in counts else 0
        theorems = tuple(sorted({item.theorem for item in spent}))
        return cls(len(spent), compose_gaussian(item.mu for item in spent), theorems, counts[-1 - since], since)


def group_privacy(epsilon: float, delta: float, size: int) -> tuple[float, float]:
    """Return (kε, δ(e^{kε} − 1)/(e^ε − 1)), δ capped at 1: the guarantee of a group of k = ``size`` records.

    Raises: InputError if ε < 0, δ outside [0, 1) or k < 1.
    Formal guarantee: exact k-fold use of (ε, δ)-indistinguishability. ``gaussian`` guarantees scale better: use k·μ.
    Source: the usual group privacy. The δe^{(k−1)ε} in the released code of Koloskova et al. (arXiv 2506.06985) is too small.

    >>> group_privacy(1.0, 1e-5, 1), group_privacy(0.0, 1e-5, 2)
    ((1.0, 1e-05), (0.0, 2e-05))
    """
    non_negative("epsilon", epsilon)
    failure_probability("delta", delta)
    count("group size", size, at_least=1)
    if epsilon == 0:
        return 0.0, min(1.0, size * delta)
    # (e^{kε} − 1)/(e^ε − 1) = e^{(k−1)ε} (1 − e^{−kε})/(1 − e^{−ε})
    log_factor = (size - 1) * epsilon + math.log(math.expm1(-size * epsilon) / math.expm1(-epsilon))
    grown = 0.0 if delta == 0 else math.exp(min(0.0, math.log(delta) + log_factor))
    return size * epsilon, grown if size > 1 else delta


def absorb_failure(epsilon: float, delta: float, failure: float) -> tuple[float, float]:
    """Return (ε, δ + p): noise calibrated at Δ when a coupling exceeds the distance Δ with probability at most p.

    Raises: InputError if δ or p is outside [0, 1).
    Formal guarantee: (ε, δ + p)-indistinguishability of the two noisy outputs.
    Source: derived here.

    >>> absorb_failure(1.0, 1e-5, 1e-3)
    (1.0, 0.00101)
    """
    non_negative("epsilon", epsilon)
    return epsilon, min(1.0, failure_probability("delta", delta) + failure_probability("failure", failure))


def markov_sensitivity(expected_distance: float, failure: float) -> float:
    """Return D/p: a distance that a coupling with mean distance D exceeds with probability at most p. Very loose.

    Raises: InputError if D < 0 or p is not in (0, 1).
    Formal guarantee: Markov's inequality; to be used with ``absorb_failure``.
    Source: Markov's inequality.

    >>> markov_sensitivity(0.5, 0.25)
    2.0
    """
    non_negative("expected_distance", expected_distance, allow_inf=True)
    if not 0 < failure < 1:
        raise InputError(f"failure must lie strictly between 0 and 1; got {failure!r}. Choose a part of delta.")
    return expected_distance / failure


@dataclass(frozen=True)
class RenyiConversion:
    """ε at a target δ from a Rényi bound: ``epsilon``, the ``order`` α that gave it, whether that order is an end of
    the grid (then a wider grid could give a smaller ε; the one returned is valid all the same).
    """

    epsilon: float
    order: float
    at_edge: bool


def renyi_to_epsilon(
    divergence: Callable[[np.ndarray], np.ndarray], delta: float, *, improved: bool = True, orders: np.ndarray = ORDERS
) -> RenyiConversion:
    """Return the smallest ε over the grid of orders for a Rényi bound α ↦ ε_α.

    plain: ε_α + ln(1/δ)/(α−1); improved: ε_α + ln((α−1)/α) − (ln δ + ln α)/(α−1), never negative.

    Args: ``divergence`` maps an array of orders to bounds on the Rényi divergence of the same shape.
    Raises: InputError if δ is outside (0, 1), an order is not above 1, or a divergence is negative or NaN.
    Formal guarantee: (ε, δ) whenever the Rényi bound holds at the order used.
    Source: Mironov 2017 (plain); Balle et al. 2020, Canonne et al. 2020 (improved).

    >>> result = renyi_to_epsilon(lambda order: 0.5 * order, 1e-5)
    >>> round(result.epsilon, 3), round(result.order, 1), result.at_edge
    (4.728, 5.4, False)
    """
    probability("delta", delta)
    orders = np.asarray(orders, dtype=float)
    if orders.size == 0 or not np.all(orders > 1):
        raise InputError(f"orders must all be above 1; got {orders!r}. Use ORDERS.")
    divergences = np.asarray(divergence(orders), dtype=float)
    if divergences.shape != orders.shape or not np.all(divergences >= 0):
        raise InputError("divergence must give one number of at least 0 for each order; got something else. Check it.")
    if improved:
        extra = np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    else:
        extra = -math.log(delta) / (orders - 1)
    epsilons = divergences + extra
    best = int(np.argmin(epsilons))
    return RenyiConversion(max(0.0, float(epsilons[best])), float(orders[best]), best in (0, orders.size - 1))


def zcdp_to_epsilon(rho: float, delta: float) -> float:
    """Return ρ + 2 sqrt(ρ ln(1/δ)), the closed form of the plain conversion of ε_α = αρ.

    For a Gaussian mechanism use ``gaussian.epsilon_of(zcdp_to_mu(ρ), δ)``, which is exact and smaller.

    Raises: InputError if ρ < 0 or δ outside (0, 1).
    Formal guarantee: (ε, δ) for every ρ-zCDP mechanism.
    Source: Bun and Steinke 2016, Proposition 1.3.

    >>> round(zcdp_to_epsilon(1.0, 1e-5), 4)
    7.7861
    """
    return non_negative("rho", rho, allow_inf=True) + 2 * math.sqrt(rho * -math.log(probability("delta", delta)))


def zcdp_to_mu(rho: float) -> float:
    """Return μ = sqrt(2ρ): the Gaussian mechanism with Rényi divergence exactly αρ.

    Raises: InputError if ρ < 0.
    Formal guarantee: only for mechanisms that *are* Gaussian; a zCDP bound alone does not give the Gaussian curve.
    Source: the Rényi divergence of two Gaussians at distance μ, which is αμ²/2.

    >>> zcdp_to_mu(0.5)
    1.0
    """
    return math.sqrt(2 * non_negative("rho", rho, allow_inf=True))
