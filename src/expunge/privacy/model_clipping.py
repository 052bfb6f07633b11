"""Noisy fine-tuning by clipping the *model* after every step: each noisy step on a ball forgets a fixed share of δ.

Source: Koloskova et al. 2025 (arXiv 2506.06985), model clipping by contractive coefficients, from its released code.
"""

from __future__ import annotations

import math

from expunge.core.errors import InputError
from expunge.privacy.domain import count, non_negative, positive
from expunge.privacy.gaussian import check_target, log_delta_of


def model_clipping_steps(
    *,
    epsilon: float,
    delta: float,
    clip_model: float,
    sigma: float,
    start_clip: float | None = None,
    start_sigma: float = 0.0,
    step_size: float = 0.0,
    gradient_clip: float = 0.0,
    max_steps: int = 1_000_000,
) -> int:
    """Return how many steps "project to radius C2, add N(0, σ²I)" reach (ε, δ) from any two models.

    δ_0 = θ_ε(2C0/σ_0), or 1 without initial noise; each step δ ← δ·θ_ε~(2C2/σ), ε~ = ln(1 + (e^ε − 1)/δ), with θ_ε(r)
    the hockey-stick divergence of unit Gaussians at distance r (``gaussian.delta_of``).

    Args: C2 ``clip_model``, C0 ``start_clip``, σ_0 ``start_sigma`` (weights). If noise is added *before* the
    projection, pass η ``step_size`` and C1 ``gradient_clip``: the radius is then C2 + ηC1.
    Raises: InputError if a constant is outside its domain or ``max_steps`` do not suffice.
    Formal guarantee: (ε, δ) after the returned number of steps, whatever the loss.
    Source: Koloskova et al. 2025 (arXiv 2506.06985), from the released code; the number of the theorem is not known to us.

    >>> settings = [(0.5, 0.5), (1, 0.5), (0.001, 0.01)]
    >>> [model_clipping_steps(epsilon=1, delta=1e-5, clip_model=c, sigma=s) for c, s in settings]
    [6, 40, 1]
    """
    check_target(epsilon, delta)
    non_negative("clip_model (C2)", clip_model)
    positive("sigma", sigma)
    non_negative("start_sigma", start_sigma)
    count("max_steps", max_steps, at_least=1)
    radius = clip_model + non_negative("step_size", step_size) * non_negative("gradient_clip", gradient_clip)
    log_delta = 0.0
    if start_sigma > 0:
        if start_clip is None:
            raise InputError("start_sigma needs start_clip (C0), the radius that the model was clipped to; got None.")
        log_delta = log_delta_of(epsilon, 2 * non_negative("start_clip (C0)", start_clip) / start_sigma)
    log_odds = epsilon + math.log(-math.expm1(-epsilon))  # ln(e^ε − 1)
    for done in range(max_steps):
        if log_delta <= math.log(delta):
            return done
        gap = log_odds - log_delta
        widened = gap + math.log1p(math.exp(-gap)) if gap > 0 else math.log1p(math.exp(gap))
        log_delta += log_delta_of(widened, 2 * radius / sigma)
    raise InputError(
        f"model clipping must reach delta = {delta!r} within max_steps = {max_steps}; got {math.exp(log_delta):.3g}. "
        "Raise sigma or lower clip_model."
    )
