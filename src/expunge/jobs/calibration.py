"""Sensitivity bounds and noise levels from constants alone."""

from __future__ import annotations

from typing import Any

from expunge.core.digest import finite
from expunge.privacy import gaussian, sensitivity
from expunge.privacy.descent_run import GradientDescentRun


def calibrate_r2d(
    *, smoothness: float, gradient_bound: float, lr: float, samples: int, forget: int, steps: int, rewind: int,
    epsilon: float, delta: float, convex: bool = False, strong_convexity: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Every R2D bound that holds for these constants, and sigma for (epsilon, delta) under each.

    Source: R2D (arXiv 2409.09778), Theorem 3.1; the tighter bounds are derived in ``privacy.sensitivity``.

    Returns:
        ``{"sensitivity": {bound: value}, "sigma": {bound: value}, "tightest": bound, ...}``; infinite values are ``None``.

    Raises:
        InputError: for constants outside their range.
    """
    gaussian.check_target(epsilon, delta)
    run = GradientDescentRun(
        samples=samples, forget=forget, steps=steps, rewind=rewind, lr=lr, smoothness=smoothness,
        gradient_bound=gradient_bound, convex=convex, strong_convexity=strong_convexity,
    )  # fmt: skip
    bounds = sensitivity.bounds(run)
    valid = {name: bound.value for name, bound in bounds.items() if bound.valid}
    return {
        "sensitivity": {name: finite(value) for name, value in valid.items()},
        "sigma": {name: finite(gaussian.sigma_of(value, epsilon, delta)) for name, value in valid.items()},
        "tightest": sensitivity.tightest(bounds).name,
        "epsilon": epsilon,
        "delta": delta,
    }
