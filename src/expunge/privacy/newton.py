"""One Newton step instead of retraining: how far it can miss, and how long a certified-removal budget lasts.

Symbols: n samples, m forgotten; λ strong convexity of the mean loss; M Lipschitz constant of a sample's Hessian; L
(``loss_lipschitz``) bound on a sample's gradient norm near the minimiser, *not* smoothness.

Source: Sekhari et al. 2021 (arXiv 2103.03279); Guo et al. 2020 (arXiv 1911.03030).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from expunge.core.errors import InputError
from expunge.privacy.domain import count, non_negative, positive
from expunge.privacy.gaussian import check_target, classic_sigma, sigma_of


def sekhari_sensitivity(
    *, hessian_lipschitz: float, loss_lipschitz: float, strong_convexity: float, samples: int, forget: int
) -> float:
    """Return γ = 2Mm²L²/(λ³n²) (weights): distance of the Newton-updated from the retrained minimiser.

    Raises: InputError if a constant is outside its domain or m >= n.
    Formal guarantee: holds for exact minimisers and an exact Hessian solve; 0 for quadratics (M = 0).
    Source: Sekhari et al. 2021 (arXiv 2103.03279), Lemma 3, read from a public re-implementation.

    >>> constants = dict(hessian_lipschitz=1, loss_lipschitz=1, strong_convexity=0.1)
    >>> round(sekhari_sensitivity(samples=10_000, forget=10, **constants), 9)
    0.002
    """
    _check(hessian_lipschitz, loss_lipschitz, strong_convexity, samples, forget)
    return 2 * hessian_lipschitz * (forget * loss_lipschitz / samples) ** 2 / strong_convexity**3


def sekhari_sigma(sensitivity: float, epsilon: float, delta: float, *, published: bool = False) -> float:
    """Return σ for the Newton step's ``sensitivity`` γ: exact Gaussian; ``published``: the paper's classic formula.

    Raises: InputError if the target is outside its domain, or ``published`` above ε = 1.
    Formal guarantee: (ε, δ) unlearn-versus-unlearn indistinguishability: what comes out is compared with what the
    same procedure makes when the forgotten records were never there, and not with the retrained model itself.
    Source: Sekhari et al. 2021 (arXiv 2103.03279).

    >>> round(sekhari_sigma(0.002, 1.0, 1e-5), 7), round(sekhari_sigma(0.002, 1.0, 1e-5, published=True), 7)
    (0.0074613, 0.0096896)
    """
    return (classic_sigma if published else sigma_of)(sensitivity, epsilon, delta)


def newton_step_error(
    *,
    hessian_lipschitz: float,
    loss_lipschitz: float,
    strong_convexity: float,
    samples: int,
    forget: int,
    residual: float = 0.0,
) -> float:
    """Return (M/(2λ)) d², d = (mL + (n+m)r)/((n−m)λ) (weights): the Newton step's miss, solver residual included.

    ``residual`` r = gradient norm of the mean loss over all samples where the step starts. There a sample's gradient
    is at most L + r (its regulariser's share grows with the distance from the minimiser), so the gradient over the
    retained samples is at most (nr + m(L + r))/(n−m), hence the new minimiser at most d away, and Newton squares that
    distance.

    Raises: InputError if a constant is outside its domain or m >= n.
    Formal guarantee: ‖w − H⁻¹∇F_retained(w) − argmin F_retained‖ <= value, for an exact linear solve.
    Derived here from Newton's error recursion; with r = 0 and m << n it is a quarter of Sekhari's γ.

    >>> constants = dict(hessian_lipschitz=1, loss_lipschitz=1, strong_convexity=0.1, samples=10_000, forget=10)
    >>> round(newton_step_error(**constants), 8)
    0.000501
    """
    _check(hessian_lipschitz, loss_lipschitz, strong_convexity, samples, forget)
    non_negative("residual", residual, allow_inf=True)
    gradient = (forget * loss_lipschitz + (samples + forget) * residual) / (samples - forget)
    return hessian_lipschitz / (2 * strong_convexity) * (gradient / strong_convexity) ** 2 if hessian_lipschitz else 0.0


def guo_worst_residual(*, curvature: float, gradient_bound: float, strong_convexity: float, samples: int) -> float:
    """Return 4γC²/(λ²(n−1)): gradient residual after removing one sample by a Newton step, whatever the data are.

    ``curvature`` γ = Lipschitz constant of the scalar loss's second derivative (1/4 is used for logistic regression);
    ``gradient_bound`` C = bound on one sample's gradient; the loss is the *sum* over samples plus (λn/2)‖w‖².

    Raises: InputError if a constant is outside its domain or n < 2.
    Formal guarantee: holds for inputs of norm at most 1 and an exact minimiser (add the solver's own residual).
    Source: Guo et al. 2020 (arXiv 1911.03030), Theorem 1.

    >>> round(guo_worst_residual(curvature=0.25, gradient_bound=1.0, strong_convexity=0.01, samples=10_001), 6)
    1.0
    """
    non_negative("curvature (gamma)", curvature)
    non_negative("gradient_bound (C)", gradient_bound)
    positive("strong_convexity (lambda)", strong_convexity)
    count("samples (n)", samples, at_least=2)
    return 4 * curvature * gradient_bound**2 / (strong_convexity**2 * (samples - 1))


def guo_data_residual(*, curvature: float, data_norm: float, step_norm: float, data_step_norm: float) -> float:
    """Return γ‖X‖₂‖H⁻¹Δ‖₂‖XH⁻¹Δ‖₂: the residual bound for these very data, usually far below the worst case.

    Raises: InputError if an argument is negative.
    Formal guarantee: bounds the gradient residual of one Newton removal; depends on private data: keep it secret.
    Source: Guo et al. 2020 (arXiv 1911.03030), Corollary 1.

    >>> guo_data_residual(curvature=0.25, data_norm=10.0, step_norm=0.01, data_step_norm=0.04)
    0.001
    """
    non_negative("data_norm", data_norm)
    non_negative("step_norm", step_norm)
    non_negative("data_step_norm", data_step_norm)
    return non_negative("curvature (gamma)", curvature) * data_norm * step_norm * data_step_norm


def guo_budget(sigma: float, epsilon: float, delta: float) -> float:
    """Return sε/c, c = sqrt(2 ln(1.5/δ)): the total gradient residual that objective perturbation N(0, s²I) can hide.

    Raises: InputError if the target is outside its domain, or ε > 1 (the tail argument behind c is proven up to there).
    Formal guarantee: (ε, δ) certified removal while the summed residual bounds stay within the budget.
    Source: Guo et al. 2020 (arXiv 1911.03030), Theorem 3.

    >>> round(guo_budget(10.0, 1.0, 1e-4), 4)
    2.2803
    """
    check_target(epsilon, delta)
    non_negative("sigma", sigma)
    if epsilon > 1:
        raise InputError(f"the residual budget is proven for epsilon <= 1; got {epsilon!r}. Use sekhari_sigma instead.")
    return sigma * epsilon / math.sqrt(2 * math.log(1.5 / delta))


def guo_epsilon(residual: float, sigma: float, delta: float) -> float:
    """Return the ε at δ that a total gradient ``residual`` comes to under objective perturbation N(0, s²I): c·residual/s.

    Infinite where that exceeds 1 (the constant is proven up to there) or where there is no noise.

    Raises: InputError if an argument is outside its domain.
    Formal guarantee: as ``guo_budget``, whose inverse it is.
    Source: Guo et al. 2020 (arXiv 1911.03030), Theorem 3.

    >>> round(guo_epsilon(2.2803, 10.0, 1e-4), 4), guo_epsilon(2.3, 10.0, 1e-4)
    (1.0, inf)
    """
    check_target(1.0, delta)
    non_negative("residual", residual, allow_inf=True)
    if residual == 0:
        return 0.0
    epsilon = math.sqrt(2 * math.log(1.5 / delta)) * residual / sigma if non_negative("sigma", sigma) else math.inf
    return epsilon if epsilon <= 1 else math.inf


@dataclass(frozen=True)
class RemovalBudget:
    """How far sequential removals have used a residual budget; ``exhausted`` means: retrain now."""

    allowed: float
    spent: float
    exhausted: bool


def guo_spent(residuals: Iterable[float], sigma: float, epsilon: float, delta: float) -> RemovalBudget:
    """Add up the residual bounds of all removals so far and compare with the budget.

    Raises: InputError if a residual is negative, or as ``guo_budget``.
    Formal guarantee: (ε, δ) certified removal of the whole sequence while not exhausted.
    Source: Guo et al. 2020 (arXiv 1911.03030), section 3.2.

    >>> guo_spent([1.0, 1.2], 10.0, 1.0, 1e-4).exhausted, guo_spent([1.0, 1.3], 10.0, 1.0, 1e-4).exhausted
    (False, True)
    """
    allowed = guo_budget(sigma, epsilon, delta)
    spent = math.fsum(non_negative("residual", residual, allow_inf=True) for residual in residuals)
    return RemovalBudget(allowed, spent, spent > allowed)


def _check(hessian_lipschitz: float, loss_lipschitz: float, strong_convexity: float, samples: int, forget: int) -> None:
    non_negative("hessian_lipschitz (M)", hessian_lipschitz)
    non_negative("loss_lipschitz (L)", loss_lipschitz)
    positive("strong_convexity (lambda)", strong_convexity)
    count("forget (m)", forget, at_most=count("samples (n)", samples, at_least=1) - 1)
