"""What a token that walks through a network tells its peers about one client, whose visits add Gaussian noise.

RR-DU, "Fully Decentralized Certified Unlearning" (Lamri and Maniatakos, arXiv 2512.08443). At each visit of the client u the
token takes a gradient of norm at most L with N(0, sigma²) on each coordinate; hops elsewhere add no noise.

Two accountants. The *conservative* one composes all visits for an observer of every message: nothing is amplified. The
*as-claimed* one multiplies the Rényi divergence by kappa = E[1/K], K the hops until another peer first sees the token, which
has the shape of Corollary 5.2; its printed constant is UNKNOWN to us. Amplification by iteration needs noise at the hops in
between, and RR-DU adds none there, so that the step which justifies kappa is UNKNOWN too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from expunge.core.errors import InputError
from expunge.privacy import gaussian
from expunge.privacy.domain import non_negative, probability

ADJACENCIES = ("replace", "query", "forgotten")


def sensitivity(adjacency: str, clip: float, share: float, exact: bool) -> float:
    """Delta: by how much a visit's gradient can differ between the two worlds that are compared.

    Args:
        adjacency: ``replace`` (another queried set: 2 L), ``query`` (with and without the query: L), or ``forgotten`` (with and
            without the forget set in it: (m / n_u) L, and 0 for exact alignment, which never reads it).
        clip: L. share: m / n_u.
        exact: whether u descends on what it retains instead of ascending on what it forgets.
    """
    non_negative("clip", clip)
    if adjacency not in ADJACENCIES:
        raise InputError(f"Expected an adjacency among {', '.join(ADJACENCIES)}; got {adjacency!r}.")
    return {"replace": 2 * clip, "query": clip, "forgotten": 0.0 if exact else share * clip}[adjacency]


def conservative_epsilon(visits: int, delta_l2: float, sigma: float, delta: float) -> float:
    """epsilon of ``visits`` Gaussian releases together: mu = sqrt(visits) Delta / sigma, exactly.

    Formal guarantee: holds for whoever sees all messages after the request, for adaptive queries of sensitivity ``delta_l2``.
    Source: Dong, Roth and Su 2022 (arXiv 1905.02383), composition of Gaussian trade-offs.

    >>> round(conservative_epsilon(10, 0.5, 2.574, 1e-5), 2)
    2.51
    """
    non_negative("visits", visits)
    if visits == 0 or delta_l2 == 0:
        return 0.0
    return gaussian.epsilon_of(math.sqrt(visits) * delta_l2 / sigma if sigma > 0 else math.inf, delta)


def inverse_delay(peers: int, restart: float) -> float:
    """kappa = E[1 / K] for K ~ Geometric(q), q = (1 - p) / (N - 1): -q ln q / (1 - q).

    >>> round(inverse_delay(10, 0.1), 4)
    0.2558
    """
    if peers < 2:
        raise InputError(f"Expected at least two peers; got {peers}: nobody else sees the token.")
    if not 0 < restart <= 1:
        raise InputError(f"Expected a restart probability in (0, 1]; got {restart}.")
    q = (1 - restart) / (peers - 1)
    return 0.0 if q == 0 else 1.0 if q >= 1 else -q * math.log(q) / (1 - q)


def claimed_epsilon(visits: float, delta_l2: float, sigma: float, delta: float, kappa: float) -> float:
    """epsilon of one other peer's view as Corollary 5.2 has its shape: kappa times the Rényi divergence of all visits.

    Formal guarantee: none that we can derive; see the module's text. Converted from Rényi divergence by Balle et al. 2020
    (arXiv 1905.09982), Theorem 21: min over alpha of rho alpha + ln(1 - 1/alpha) - ln(alpha delta) / (alpha - 1).

    >>> round(claimed_epsilon(10, 0.5, 2.574, 1e-5, inverse_delay(10, 0.1)), 2)
    1.28
    """
    probability("delta", delta)
    if visits == 0 or delta_l2 == 0:
        return 0.0
    if not sigma > 0:
        return math.inf
    rho = kappa * visits * delta_l2**2 / (2 * sigma**2)

    def epsilon(log_order: float) -> float:
        alpha = 1 + math.exp(log_order)
        return rho * alpha + math.log1p(-1 / alpha) - math.log(alpha * delta) / (alpha - 1)

    from scipy.optimize import minimize_scalar

    centre = 0.5 * math.log(math.log(1 / delta) / rho)  # of the plain conversion
    found: Any = minimize_scalar(epsilon, bounds=(centre - 6, centre + 6), method="bounded")
    return max(0.0, float(found.fun))


def iterated_mu(apart: float, step_noise: float, contractions: Sequence[float]) -> float:
    """mu of the final model alone, of two walks that start ``apart`` and share all maps and noise levels from then on (T1b).

    mu = R0 / (eta sigma sqrt(sum_j g_j^-2)), g_j = c_1 … c_j: noise of later visits covers what contractions left of the start.

    Args:
        apart: R0, distance of the two starts (weights).
        step_noise: eta sigma, standard deviation of a visit's noise on each weight.
        contractions: c_j, the Lipschitz constant of everything between visit j and the one before; 1: distances never grow.

    Formal guarantee: for whoever sees the final model and nothing of the walk, where every map is c_j-Lipschitz: convex losses,
    steps of at most 2 / smoothness, no clipping that acts and no projection around a start that differs. RR-DU clips, and its
    trust region lies around the start: no certificate here rests on this number. Exact for linear maps.
    Source: amplification by iteration, Feldman et al. 2018 (arXiv 1808.06651), for Gaussian trade-offs as in Bok, Su and
    Altschuler 2024 (arXiv 2403.00278), with the whole shift at the start.

    >>> iterated_mu(1.0, 0.5, [1.0]), iterated_mu(1.0, 0.5, [1.0] * 4), round(iterated_mu(1.0, 0.5, [0.5, 0.5]), 4)
    (2.0, 1.0, 0.4472)
    """
    non_negative("apart", apart)
    if not contractions or not all(0 < c <= 1 for c in contractions):
        raise InputError("Expected at least one visit and contractions in (0, 1]; a map that expands covers nothing.")
    if not step_noise > 0:
        raise InputError(f"Expected noise above 0 at each visit; got {step_noise}.")
    growth, total = 1.0, 0.0
    for contraction in contractions:
        growth *= contraction
        total += growth**-2 if growth > 1e-150 else math.inf
    return apart / (step_noise * math.sqrt(total))


def published_sigma(clip: float, epsilon: float, delta: float, peers: int, hops: int, restart: float) -> float:
    """(L / epsilon) sqrt(p T_u ln(1 / delta) ln(N) / N): the scale of Corollary 5.2 with constant 1.

    >>> round(published_sigma(0.5, 1.0, 1e-5, 10, 100, 0.1), 2)
    2.57
    """
    return clip / epsilon * math.sqrt(restart * hops * math.log(1 / delta) * math.log(peers) / peers)


def group_sigma(clip: float, epsilon: float, delta: float, peers: int, hops: int, group: int) -> float:
    """(m L / epsilon) sqrt(T ln(1 / delta) ln(N) / N): network differential privacy at every hop for a group of m examples.

    >>> round(group_sigma(0.5, 1.0, 1e-5, 10, 100, 1000))
    8141
    """
    return group * clip / epsilon * math.sqrt(hops * math.log(1 / delta) * math.log(peers) / peers)


def conservative_sigma(visits: int, delta_l2: float, epsilon: float, delta: float) -> float:
    """The noise with which ``visits`` come to ``epsilon`` by the conservative accountant.

    >>> round(conservative_sigma(10, 0.5, 1.0, 1e-5), 2)
    5.9
    """
    return gaussian.sigma_of(math.sqrt(visits) * delta_l2, epsilon, delta)


def signal_to_noise(gradient: float, sigma: float, weights: int) -> float:
    """eta ||g|| / (eta sigma sqrt(d)): how long the useful part of a visit's step is beside its noise.

    >>> round(100 * signal_to_noise(0.5, 2.57, 20522), 2)
    0.14
    """
    return math.inf if sigma == 0 else gradient / (sigma * math.sqrt(weights))


def capacity(excess: float, fixed: float, clip: float, rows: int) -> int:
    """Deletion capacity m* = (gamma - A) n_u / L where gamma > A, else 0, with constant 1 (the printed one is UNKNOWN).

    Args:
        excess: gamma, the excess risk that is allowed. fixed: A, what optimisation and privacy cost whatever m is.
        clip: L. rows: n_u.

    >>> capacity(0.2, 0.1, 0.5, 6000), capacity(0.1, 0.2, 0.5, 6000)
    (1200, 0)
    """
    return max(0, math.floor((excess - fixed) * rows / clip)) if excess > fixed else 0
