"""The exact Gaussian mechanism, both ways: noise for a target (ε, δ), and the whole curve δ(ε) that a noise level buys.

Symbols: ``sensitivity`` Δ = largest Euclidean distance between the two vectors that must look alike (units of the
weights); ``sigma`` σ = standard deviation of the noise in every coordinate (same units); ``mu`` μ = Δ/σ (no unit).
N(0, σ²I) on vectors at distance at most Δ is (ε, δ)-indistinguishable if and only if

    δ >= Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ).

With u = ε/μ − μ/2, v = u + μ and the Mills ratio R(x) = Φ(−x)/φ(x) the right side is φ(u)·(R(u) − R(v)), because
e^ε φ(v) = φ(u): that is what is computed, in logarithms, so that δ = 1e-300 is an ordinary number.

Source: Balle and Wang 2018 (arXiv 1805.06530), Theorem 8; the form in logarithms is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from expunge.core.errors import InputError
from expunge.privacy.domain import non_negative, positive, probability

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
_ROUNDING = 16 * 2.0**-52  # generous multiple of the unit roundoff: see _surely_within


def check_target(epsilon: float, delta: float) -> None:
    """Refuse a privacy target outside 0 < ε < inf, 0 < δ < 1.

    Raises: InputError that names the symbol.
    Formal guarantee: none.
    Source: our rule.

    >>> check_target(1.0, 1e-5)
    """
    positive("epsilon", epsilon)
    probability("delta", delta)


def log_delta_of(epsilon: float, mu: float) -> float:
    """Return ln δ(ε) of the Gaussian mechanism with μ = sensitivity/σ; −inf for μ = 0, 0 for μ = inf.

    Raises: InputError if ε or μ is negative.
    Formal guarantee: exact value of the hockey-stick divergence, up to about 1e-11 relative rounding in δ.
    Source: Balle and Wang 2018, Theorem 8.

    >>> round(log_delta_of(1.0, 1 / 3.730632), 4)  # ln(1e-5) = -11.5129
    -11.5129
    >>> round(log_delta_of(1.0, 0.025), 1)  # far below the smallest double
    -811.5
    """
    non_negative("epsilon", epsilon, allow_inf=True)
    non_negative("mu", mu, allow_inf=True)
    if mu == 0 or epsilon == math.inf:
        return -math.inf
    if mu == math.inf:
        return 0.0
    u = epsilon / mu - mu / 2
    if u == math.inf:
        return -math.inf
    log_density = -u * u / 2 - _LOG_ROOT_TWO_PI
    if mu < 0.1 * max(1.0, u):  # R(u) − R(v) would cancel: integrate −R' over [u, v] instead
        points = u + mu * (_NODES + 1) / 2
        return log_density + math.log(mu / 2) + math.log(float(_WEIGHTS @ _mills_descent(points)))
    if u >= 0:
        return log_density + math.log(float(_mills(u)) - float(_mills(u + mu)))
    miss = 0.5 * math.erfc(-u / math.sqrt(2)) + math.exp(log_density) * float(_mills(u + mu))
    return math.log1p(-miss)


def delta_of(epsilon: float, mu: float) -> float:
    """Return δ(ε) of the Gaussian mechanism with μ = sensitivity/σ; ε = 0 gives the total variation distance.

    Raises: InputError if ε or μ is negative.
    Formal guarantee: N(0, σ²I) on vectors at most Δ = μσ apart is (ε, δ)-indistinguishable, and for no smaller δ.
    Source: Balle and Wang 2018, Theorem 8.

    >>> round(delta_of(1.0, 1.0), 6), delta_of(1.0, 0.0), delta_of(1.0, float("inf"))
    (0.126937, 0.0, 1.0)
    """
    return math.exp(log_delta_of(epsilon, mu))


def epsilon_of(mu: float, delta: float) -> float:
    """Return the smallest ε with δ(ε) <= delta, rounded up; 0 if δ(0) <= delta already, inf for μ = inf.

    Raises: InputError if μ is negative or δ outside (0, 1).
    Formal guarantee: the mechanism is (ε, δ)-indistinguishable for the returned ε.
    Source: Balle and Wang 2018, Theorem 8, solved for ε.

    >>> round(epsilon_of(1.0, 1e-5), 4), epsilon_of(0.0, 1e-5)
    (4.3772, 0.0)
    """
    non_negative("mu", mu, allow_inf=True)
    probability("delta", delta)
    if mu == 0:
        return 0.0
    above = mu * (mu / 2 + math.sqrt(-2 * math.log(delta)))
    while above < math.inf and not _surely_within(above, mu, delta):
        above *= 2
    if above == math.inf:
        return math.inf
    if _surely_within(0.0, mu, delta):
        return 0.0
    return _last_safe(lambda epsilon: _surely_within(epsilon, mu, delta), above, 0.0)


def mu_of(epsilon: float, delta: float) -> float:
    """Return the largest μ = sensitivity/σ that satisfies (ε, δ), rounded down.

    Raises: InputError if the target is outside its domain.
    Formal guarantee: δ(ε) at the returned μ never exceeds delta, rounding included.
    Source: Balle and Wang 2018, Theorem 8, solved for μ.

    >>> round(1 / mu_of(1.0, 1e-5), 6)
    3.730632
    """
    check_target(epsilon, delta)
    safe, unsafe = 1.0, 1.0
    while _surely_within(epsilon, unsafe, delta):
        safe, unsafe = unsafe, 2 * unsafe
    while not _surely_within(epsilon, safe, delta):
        safe, unsafe = safe / 2, safe
    return _last_safe(lambda mu: _surely_within(epsilon, mu, delta), safe, unsafe)


def sigma_of(sensitivity: float, epsilon: float, delta: float) -> float:
    """Return the smallest σ, rounded up, that makes N(0, σ²I) an (ε, δ) mechanism for this sensitivity (same units).

    Raises: InputError if an argument is outside its domain.
    Formal guarantee: (ε, δ)-indistinguishability of any two vectors at most ``sensitivity`` apart.
    Source: Balle and Wang 2018, Theorem 8.

    >>> round(sigma_of(136.797, 40, 0.1), 2), sigma_of(0.0, 1, 1e-5), sigma_of(float("inf"), 1, 1e-5)
    (17.41, 0.0, inf)
    """
    non_negative("sensitivity", sensitivity, allow_inf=True)
    mu = mu_of(epsilon, delta)
    return math.nextafter(sensitivity / mu, math.inf) if sensitivity > 0 else 0.0


def classic_sigma(sensitivity: float, epsilon: float, delta: float) -> float:
    """Return the textbook σ = Δ sqrt(2 ln(1.25/δ))/ε, refused above ε = 1 where it has no proof.

    Raises: InputError if ε > 1 (from about ε = 8 it adds too little noise) or an argument is outside its domain.
    Formal guarantee: (ε, δ) for ε <= 1; about 30% more noise than ``sigma_of`` at (1, 1e-5).
    Source: Dwork and Roth 2014, Theorem A.1; R2D's Theorem 3.1 (arXiv 2409.09778) uses it for ε <= 1.

    >>> round(classic_sigma(1.0, 1.0, 1e-5), 5)
    4.84481
    """
    check_target(epsilon, delta)
    if epsilon > 1:
        raise InputError(f"the classic formula is proven for epsilon <= 1 only; got {epsilon!r}. Use sigma_of.")
    return non_negative("sensitivity", sensitivity, allow_inf=True) * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def curve(mu: float, epsilons: Iterable[float]) -> np.ndarray:
    """Return δ(ε) for every ε: the whole guarantee, of which one (ε, δ) is one point. Shape (len(epsilons),).

    Raises: InputError if μ or an ε is negative.
    Formal guarantee: every point holds at once, for the same noise.
    Source: Balle and Wang 2018, Theorem 8, at every ε.

    >>> [round(float(delta), 6) for delta in curve(1.0, [0.0, 1.0, 2.0])]
    [0.382925, 0.126937, 0.020924]
    """
    return np.array([delta_of(epsilon, mu) for epsilon in epsilons])


def _mills(x):
    """R(x) = Φ(−x)/φ(x), for x >= 0 (and slightly below)."""
    from scipy.special import erfcx

    return math.sqrt(math.pi / 2) * erfcx(x / math.sqrt(2))


def _mills_descent(x: np.ndarray) -> np.ndarray:
    """−R'(x) = 1 − x R(x); beyond 40 by its asymptotic series, where the difference would lose digits."""
    far = np.maximum(x, 40.0) ** -2
    series = far * (1 - far * (3 - far * (15 - far * (105 - far * (945 - far * 10395)))))
    near = np.minimum(x, 40.0)
    return np.where(x > 40.0, series, 1 - near * _mills(near))


def _surely_within(epsilon: float, mu: float, delta: float) -> bool:
    """Whether δ(ε) <= delta even if every rounding in ``log_delta_of`` went the wrong way."""
    log_delta, ratio = log_delta_of(epsilon, mu), epsilon / mu
    if log_delta == -math.inf:
        return True
    slack = _ROUNDING * ((abs(ratio - mu / 2) + 1) * (ratio + mu / 2) + abs(log_delta) + 1)
    return log_delta + slack <= math.log(delta)


def _last_safe(is_safe: Callable[[float], bool], safe: float, unsafe: float) -> float:
    """Bisect down to two neighbouring floats and return the one on the safe side."""
    while True:
        middle = safe + (unsafe - safe) / 2
        if middle in (safe, unsafe):
            return safe
        safe, unsafe = (middle, unsafe) if is_safe(middle) else (safe, middle)
