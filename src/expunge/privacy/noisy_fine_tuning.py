"""Noisy fine-tuning: clip the model once, clip every gradient, add noise at every step; nothing is assumed of the loss.

1. x ← clip(θ, C0);  2. T times x ← x − η(clip(g, C1) + λx) + N(0, σ²I), g a batch-mean gradient on retained data;
3. any noiseless fine-tuning on retained data (post-processing).

Symbols: C0 ``clip_model`` (weights), C1 ``clip`` (loss/weights), η ``lr``, λ ``l2``, ρ = 1 − ηλ. Two starting models
are at most 2C0 apart; a step shrinks that by ρ and adds at most 2ηC1 (the shift); noise accumulates the same way, and

    μ = shift_T / noise_T = (2C0 ρ^T + 2ηC1(1−ρ^T)/(1−ρ)) / (σ sqrt((1−ρ^{2T})/(1−ρ²))).

Source: Koloskova et al. 2025 (arXiv 2506.06985), gradient clipping, from its released code; the text of its theorem was
not available to us. The accounting is derived here by the shifted-divergence argument, whose Gaussian form is due to Bok,
Su and Altschuler 2024 (arXiv 2403.00278).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from expunge.core.errors import InputError
from expunge.privacy.domain import count, non_negative, positive
from expunge.privacy.gaussian import check_target, mu_of

if TYPE_CHECKING:
    from expunge.privacy.witness import Draw


def shift(*, clip_model: float, clip: float, lr: float, l2: float, steps: int) -> float:
    """Return 2C0ρ^T + 2ηC1(1−ρ^T)/(1−ρ) (weights): how far two noiseless runs can be apart after T steps.

    Raises: InputError if a constant is outside its domain, T < 1 or ηλ > 1.
    Formal guarantee: holds for any two starting models, any loss and any batches.
    Source: derived here.

    >>> shift(clip_model=1.0, clip=1.0, lr=0.01, l2=0.0, steps=100)
    4.0
    """
    rho, geometric = _decay(lr, l2, steps)
    non_negative("clip_model (C0)", clip_model)
    return 2 * clip_model * rho**steps + 2 * lr * non_negative("clip (C1)", clip) * geometric(1)


def accumulated_noise(*, sigma: float, lr: float, l2: float, steps: int) -> float:
    """Return σ sqrt((1−ρ^{2T})/(1−ρ²)) (weights): standard deviation, per coordinate, that T noisy steps amount to.

    Raises: InputError if a constant is outside its domain, T < 1 or ηλ > 1.
    Formal guarantee: none by itself, see ``mu``.
    Source: derived here.

    >>> accumulated_noise(sigma=0.5, lr=0.01, l2=0.0, steps=100)
    5.0
    """
    _, geometric = _decay(lr, l2, steps)
    return non_negative("sigma", sigma) * math.sqrt(geometric(2))


def mu(*, sigma: float, clip_model: float, clip: float, lr: float, l2: float, steps: int) -> float:
    """Return μ = shift/accumulated noise: the release looks no more revealing than N(0, 1) against N(μ, 1).

    Raises: InputError as ``shift``.
    Formal guarantee: μ-Gaussian indistinguishability of unlearning from any two models; attained by linear losses.
    Source: derived here; Bok, Su and Altschuler 2024 (arXiv 2403.00278) for the Gaussian form.

    >>> round(mu(sigma=1.4923, clip_model=1.0, clip=1.0, lr=0.01, l2=0.0, steps=100), 4)
    0.268
    """
    apart = shift(clip_model=clip_model, clip=clip, lr=lr, l2=l2, steps=steps)
    noise = accumulated_noise(sigma=sigma, lr=lr, l2=l2, steps=steps)
    if apart == 0:
        return 0.0
    return apart / noise if noise > 0 else math.inf


def sigma_for(
    *, epsilon: float, delta: float, clip_model: float, clip: float, lr: float, l2: float, steps: int
) -> float:
    """Return the σ of every step (weights), rounded up, that makes T noisy steps (ε, δ).

    Raises: InputError as ``shift``, or if the target is outside its domain.
    Formal guarantee: (ε, δ) of the whole run, noiseless fine-tuning afterwards included.
    Source: derived here from ``mu`` and the exact Gaussian curve.

    >>> target = dict(epsilon=1, delta=1e-5, clip_model=1, clip=1, lr=0.01)
    >>> round(sigma_for(l2=0, steps=100, **target), 4), round(sigma_for(l2=10, steps=50, **target), 5)
    (1.4923, 0.34032)
    """
    constants = {"lr": lr, "l2": l2, "steps": steps}
    needed = shift(clip_model=clip_model, clip=clip, **constants) / mu_of(epsilon, delta)
    return needed / accumulated_noise(sigma=1.0, **constants) * (1 + 1e-12)


def closed_form_sigma(
    *, epsilon: float, delta: float, clip_model: float, clip: float, lr: float, steps: int, published: bool = False
) -> float:
    """Return sqrt(18 ln(1/δ)/T)(C0 + ηC1T)/ε for λ = 0: what ρ-zCDP with ρ = ε²/(9 ln(1/δ)) asks for.

    ``published=True`` takes the factor 9 that is believed to stand in the paper (its theorem's text is unknown to us);
    half the variance is not what this argument proves.

    Raises: InputError as ``shift``, or if ε > 3 ln(1/δ), where that ρ no longer gives ε.
    Formal guarantee: (ε, δ) by default; none for ``published``. About twice the noise of ``sigma_for``.
    Source: derived here; the form follows Koloskova et al. 2025 (arXiv 2506.06985).

    >>> target = dict(epsilon=1, delta=1e-5, clip_model=1, clip=1, lr=0.01, steps=100)
    >>> round(closed_form_sigma(**target), 4), round(closed_form_sigma(published=True, **target), 4)
    (2.8791, 2.0358)
    """
    check_target(epsilon, delta)
    if epsilon > 3 * math.log(1 / delta):
        raise InputError(f"the closed form needs epsilon <= 3 ln(1/delta); got {epsilon!r}, {delta!r}. Use sigma_for.")
    factor = 9 if published else 18
    half_shift = shift(clip_model=clip_model, clip=clip, lr=lr, l2=0.0, steps=steps) / 2
    return math.sqrt(factor * math.log(1 / delta) / steps) * half_shift / epsilon


def best_steps(*, clip_model: float, clip: float, lr: float, l2: float) -> int | None:
    """Return the T that needs the least noise; None if noise falls with every further step.

    With x = ρ^T the ratio shift/noise is smallest at x = 1 − λC0/C1: T = ln(1−λC0/C1)/ln(1−ηλ), and C0/(ηC1) for λ = 0.
    If λC0 >= C1 there is no such T.

    Raises: InputError as ``shift``.
    Formal guarantee: none; a choice of the number of steps before looking at data.
    Source: derived here.

    >>> best_steps(clip_model=1.0, clip=1.0, lr=0.01, l2=0.0), best_steps(clip_model=1.0, clip=1.0, lr=0.01, l2=10.0)
    (100, None)
    """
    _decay(lr, l2, 1)
    non_negative("clip_model (C0)", clip_model)
    if l2 * clip_model >= non_negative("clip (C1)", clip):
        return None
    if lr * l2 == 0:
        ideal = clip_model / (lr * clip)
    elif lr * l2 == 1:
        ideal = 1.0
    else:
        ideal = math.log1p(-l2 * clip_model / clip) / math.log1p(-lr * l2)
    candidates = {max(1, math.floor(ideal)), max(1, math.ceil(ideal))}
    constants = {"clip_model": clip_model, "clip": clip, "lr": lr, "l2": l2}
    return min(sorted(candidates), key=lambda steps: mu(sigma=1.0, steps=steps, **constants))


def steps_bounded(draws: Sequence[Draw], *, clip_model: float, clip: float, lr: float, l2: float) -> bool:
    """Return whether every noisy step started from a model of norm C0 at most and followed a gradient of norm C1 at most.

    The start is the model before, clipped to C0; each further step starts from what the draw before it left. Nothing is
    believed of the code that made the steps: norms and inner products were taken where the noise entered.

    Formal guarantee: the theorem's conditions on x_0 and g_t hold for the draws that were seen, up to rounding.
    Source: steps 1 and 2 at the top of this module.
    """
    rho = 1 - lr * l2
    for first, draw in enumerate(draws):
        if first == 0:
            shrink = min(1.0, clip_model / draw.previous_norm) if draw.previous_norm > 0 else 1.0
            draw = replace(draw, previous_norm=shrink * draw.previous_norm, product=shrink * draw.product)
        slack = draw.step_rounding(lr) + 2e-6 * clip_model / lr * (first == 0)  # the clipped start lies an ulp inside
        if draw.step_norm(rho, lr) > clip * (1 + 1e-5) + slack:
            return False
    return True


def _decay(lr: float, l2: float, steps: int):
    """ρ and the function j ↦ Σ_{t<T} ρ^{jt}, stable as λ → 0."""
    positive("lr (eta)", lr)
    non_negative("l2 (lambda)", l2)
    count("steps (T)", steps, at_least=1)
    if lr * l2 > 1:
        raise InputError(f"lr*l2 must be at most 1, so that steps contract; got {lr * l2!r}. Lower lr or l2.")
    if lr * l2 == 0:
        return 1.0, lambda power: float(steps)
    if lr * l2 == 1:
        return 0.0, lambda power: 1.0
    log_rho = math.log1p(-lr * l2)
    return math.exp(log_rho), lambda power: math.expm1(power * steps * log_rho) / math.expm1(power * log_rho)
