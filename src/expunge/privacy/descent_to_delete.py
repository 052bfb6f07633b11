"""Descent-to-Delete: on a strongly convex loss, descent on the retained samples forgets where it started.

Symbols: λ strong convexity, L smoothness (L >= λ), step 2/(L+λ), contraction g = (L−λ)/(L+λ) per step; n samples, m
forgotten, M (``loss_lipschitz``) bound on a sample's gradient norm.

Source: Neel, Roth, Sharifi-Malvajerdi 2021 (arXiv 2007.02923), read from two public implementations; the numbers of its
theorems are not known to us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from expunge.core.errors import InputError
from expunge.privacy.domain import count, non_negative, positive
from expunge.privacy.gaussian import check_target


def contraction(smoothness: float, strong_convexity: float) -> float:
    """Return g = (L−λ)/(L+λ): one step of size 2/(L+λ) shrinks distances to at most g of themselves.

    Raises: InputError unless 0 < λ <= L.
    Formal guarantee: Lipschitz constant of the gradient step on a λ-strongly convex, L-smooth loss.
    Source: the usual contraction of gradient descent; Neel et al. 2021 use the same step.

    >>> round(contraction(1.0, 0.1), 6)
    0.818182
    """
    positive("smoothness (L)", smoothness)
    positive("strong_convexity (lambda)", strong_convexity)
    if strong_convexity > smoothness:
        raise InputError(
            f"strong_convexity must be at most smoothness = {smoothness!r}; got {strong_convexity!r}. "
            "Both bound the same Hessian: recompute them from the same loss."
        )
    return (smoothness - strong_convexity) / (smoothness + strong_convexity)


def sensitivity(
    *,
    samples: int,
    forget: int,
    steps: int,
    lr: float,
    unlearn_steps: int,
    smoothness: float,
    gradient_bound: float,
    strong_convexity: float,
    start_norm: float,
    earlier: int = 0,
    removed_before: int = 0,
) -> float:
    """Return g^K·a + (1 + g^K)·b in weights: K descent steps on the retained samples against retraining by T steps.

    a = (2mG/(nλ))(1−ρ^T) is how far training with and without the forgotten samples can be apart, ρ = 1−ηλ (as in
    ``sensitivity.strongly_convex``); b = ρ^T(‖θ₀‖ + G/λ) is how far T steps of retraining can be from the retained
    minimiser, whose norm is at most G/λ. The unlearned model starts at most a + b from that minimiser, shrinks this by
    g^K, and retraining is b from it.

    The j-th request starts from what the one before left, at most its own bound away from the model retrained then; by
    induction b counts 2j−1 times instead of once before it shrinks, with ``forget`` the records removed in all and n the
    smallest number trained on before this request.

    Args: ``steps`` T and ``lr`` η of training, ``unlearn_steps`` K of size 2/(L+λ), ``gradient_bound`` G of the data
    part, ``start_norm`` ‖θ₀‖ (weights), ``earlier`` = j−1 requests, which removed ``removed_before`` records.
    Raises: InputError if a constant is outside its domain, m >= n, or η > 2/(L+λ).
    Formal guarantee: ‖unlearned − retrained‖ <= value, both un-noised, same start; no exact minimisation is assumed.
    Source: derived here, by the contraction argument of Neel et al. 2021 (arXiv 2007.02923).

    >>> constants = dict(smoothness=0.5, gradient_bound=1.0, strong_convexity=0.1, start_norm=0.0)
    >>> round(sensitivity(samples=1000, forget=10, steps=300, lr=1.0, unlearn_steps=20, **constants), 6)
    6e-05
    """
    g = contraction(smoothness, strong_convexity)
    count("forget (m)", forget, at_most=count("samples (n)", samples, at_least=1) - 1)
    count("steps (T)", steps)
    count("unlearn_steps (K)", unlearn_steps)
    non_negative("gradient_bound (G)", gradient_bound)
    non_negative("start_norm", start_norm)
    if positive("lr (eta)", lr) * (smoothness + strong_convexity) > 2 * (1 + 1e-12):
        raise InputError(
            f"lr must be at most 2/(L+lambda) = {2 / (smoothness + strong_convexity):.6g} for steps to contract; "
            f"got {lr!r}. Train with a smaller step."
        )
    if forget == 0 and unlearn_steps == 0:
        return 0.0
    kept = max(0.0, 1 - lr * strong_convexity) ** steps
    count("earlier", earlier)
    count("removed_before", removed_before, at_most=forget)
    apart = 2 * forget * gradient_bound / ((samples - removed_before) * strong_convexity) * (1 - kept)
    unfinished = kept * (start_norm + gradient_bound / strong_convexity)
    return g**unlearn_steps * (apart + (1 + 2 * earlier) * unfinished) + unfinished


def published_sigma(
    *,
    loss_lipschitz: float,
    smoothness: float,
    strong_convexity: float,
    samples: int,
    unlearn_steps: int,
    epsilon: float,
    delta: float,
) -> float:
    """Return σ = 4√2 M g^K / (λn(1−g^K)(sqrt(ln(1/δ)+ε) − sqrt(ln(1/δ)))) for one deletion at a time, K >= 1 steps.

    Raises: InputError if a constant is outside its domain or K < 1.
    Formal guarantee: (ε, δ) as claimed by the paper, for training that reached the minimiser; taken as published.
    Source: Neel et al. 2021 (arXiv 2007.02923), read from two public implementations.

    >>> constants = dict(loss_lipschitz=1, smoothness=1, strong_convexity=0.1, samples=1000, epsilon=1, delta=1e-3)
    >>> [float(f"{published_sigma(unlearn_steps=k, **constants):.6g}") for k in (10, 20)]
    [0.0477966, 0.00566392]
    """
    g = contraction(smoothness, strong_convexity)
    check_target(epsilon, delta)
    non_negative("loss_lipschitz (M)", loss_lipschitz)
    count("samples (n)", samples, at_least=2)
    shrunk = g ** count("unlearn_steps (K)", unlearn_steps, at_least=1)
    gap = _root_gap(math.log(1 / delta), epsilon)
    return 4 * math.sqrt(2) * loss_lipschitz * shrunk / (strong_convexity * samples * (1 - shrunk) * gap)


@dataclass(frozen=True)
class Stream:
    """A schedule for a stream of deletions: ``base_steps`` I, ``steps`` of each deletion, ``sigma`` (weights)."""

    base_steps: int
    steps: tuple[int, ...]
    sigma: float


def published_stream(
    *,
    loss_lipschitz: float,
    smoothness: float,
    strong_convexity: float,
    samples: int,
    dimension: int,
    deletions: int,
    epsilon: float,
    delta: float,
) -> Stream:
    """Return the schedule of the secret-state ("imperfect") variant: K_i = I + ceil(ln ln(4di/δ)/ln(1/g)) steps.

    I is the smallest whole number with I >= ln(sqrt(2d)/((1−g)(sqrt(2 ln(2/δ)+ε) − sqrt(2 ln(2/δ)))))/ln(1/g), at
    least 1.

    Raises: InputError if a constant is outside its domain.
    Formal guarantee: (ε, δ) after every deletion of a *non-adaptive* stream, as claimed by the paper.
    Source: Neel et al. 2021 (arXiv 2007.02923), read from two public implementations.

    >>> stream = published_stream(loss_lipschitz=1, smoothness=1, strong_convexity=0.1, samples=1000, dimension=10,
    ...                           deletions=3, epsilon=1, delta=1e-3)
    >>> stream.base_steps, stream.steps, round(stream.sigma, 5)
    (27, (39, 40, 40), 0.003)
    """
    g = contraction(smoothness, strong_convexity)
    check_target(epsilon, delta)
    non_negative("loss_lipschitz (M)", loss_lipschitz)
    count("samples (n)", samples, at_least=2)
    count("dimension (d)", dimension, at_least=1)
    count("deletions", deletions)
    rate = math.log(1 / g) if g > 0 else math.inf  # g = 0: one step reaches the minimiser
    tail = 2 * math.log(2 / delta)
    base = max(1, math.ceil(math.log(math.sqrt(2 * dimension) / ((1 - g) * _root_gap(tail, epsilon))) / rate))
    extra = [math.ceil(math.log(math.log(4 * dimension * i / delta)) / rate) for i in range(1, deletions + 1)]
    shrunk = g**base
    gap = _root_gap(tail + 2 * epsilon, epsilon)
    sigma = 8 * loss_lipschitz * shrunk / (strong_convexity * samples * (1 - shrunk) * gap)
    return Stream(base, tuple(base + more for more in extra), sigma)


def _root_gap(level: float, epsilon: float) -> float:
    """sqrt(level + ε) − sqrt(level) without cancellation."""
    return epsilon / (math.sqrt(level + epsilon) + math.sqrt(level))
