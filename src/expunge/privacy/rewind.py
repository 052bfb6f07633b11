"""How far to rewind for a given noise.

Symbols as in ``expunge.privacy.sensitivity``: T steps, K of them redone, step size η, smoothness L.

Source: R2D (arXiv 2409.09778), Corollary 3.2, whose formula we had to reconstruct; the search on exact bounds is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from expunge.core.errors import InputError
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.domain import exp_or_inf, non_negative
from expunge.privacy.gaussian import mu_of
from expunge.privacy.sensitivity import NAMES, bounds, tightest


def rewind_for_sensitivity(run: GradientDescentRun, allowed: float, bound: str = "tightest") -> int:
    """Return the smallest K whose bound (by name, or the tightest valid one) is at most ``allowed`` weights.

    Every bound falls with K and is 0 at K = T, so the answer exists and bisection finds it. ``run.rewind`` is ignored.

    Raises: InputError if ``allowed`` is negative, the bound's name unknown, or the bound invalid for this run.
    Formal guarantee: the chosen bound at the returned K is at most ``allowed``.
    Source: R2D (arXiv 2409.09778), Corollary 3.2, on the exact bound instead of its closed form.

    >>> run = GradientDescentRun(94449, 1079, 3666, 0, 0.01, 0.2065, 0.5946)
    >>> rewind_for_sensitivity(run, tightest({"tight": bounds(run)["tight"]}).value / 2, "tight")  # half the noise
    3331
    """
    non_negative("allowed", allowed, allow_inf=True)
    value = _bound_at(run, bound)
    low, high = -1, run.steps  # value(low) > allowed (or low = -1), value(high) <= allowed
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if value(middle) <= allowed else (middle, high)
    return high


def rewind_for_noise(
    run: GradientDescentRun, sigma: float, epsilon: float, delta: float, bound: str = "tightest"
) -> int:
    """Return the smallest K for which noise of standard deviation ``sigma`` (weights) gives (ε, δ).

    Raises: InputError if σ is negative, the target outside its domain, or the bound unknown or invalid.
    Formal guarantee: with the returned K, N(0, σ²I) is an (ε, δ) mechanism for the chosen bound.
    Source: R2D (arXiv 2409.09778), Corollary 3.2, with the exact Gaussian mechanism.

    >>> run = GradientDescentRun(1000, 20, 300, 0, 1.0, 0.25, 1.0, convex=True)
    >>> rewind_for_noise(run, sigma=10.0, epsilon=1.0, delta=1e-5)
    233
    """
    non_negative("sigma", sigma)
    return rewind_for_sensitivity(run, sigma * mu_of(epsilon, delta), bound)


def rewind_in_closed_form(run: GradientDescentRun, allowed: float) -> int:
    """Return the smallest K for the tight bound: K = ln((1+ηL)^T − H)/ln(1+ηL), H = allowed·Ln/(mB), rounded up.

    Raises: InputError if ``allowed`` is negative.
    Formal guarantee: the tight bound at the returned K is at most ``allowed``, up to rounding of the formula; where that
    matters use ``rewind_for_sensitivity``, which evaluates the bound itself.
    Derived here: the tight bound solved for K.

    >>> rewind_in_closed_form(GradientDescentRun(100, 10, 80, 0, 0.05, 0.5, 1.0), 2.2283805504)
    20
    """
    non_negative("allowed", allowed, allow_inf=True)
    if run.kick == 0 or allowed == math.inf:
        return 0
    if allowed == 0:
        return run.steps
    if run.lr * run.smoothness == 0:
        return max(0, math.ceil(run.steps - min(allowed / run.kick, run.steps)))
    exponent = run.steps * run.log_growth
    share = exp_or_inf(math.log(allowed) + math.log(run.lr * run.smoothness / run.kick) - exponent)  # H / (1+ηL)^T
    if share >= -math.expm1(-exponent):
        return 0
    return min(run.steps, max(0, math.ceil((exponent + math.log1p(-share)) / run.log_growth)))


def _bound_at(run: GradientDescentRun, name: str) -> Callable[[int], float]:
    if name == "tightest":
        return lambda rewind: tightest(bounds(replace(run, rewind=rewind))).value
    if name not in NAMES:
        raise InputError(f"bound must be 'tightest' or one of {', '.join(NAMES)}; got {name!r}. Choose one of them.")
    chosen = bounds(run)[name]
    if not chosen.valid:
        raise InputError(f"the {name} bound must hold for this run; got: {chosen.reason}. Use bound='tightest'.")
    return lambda rewind: bounds(replace(run, rewind=rewind))[name].value
