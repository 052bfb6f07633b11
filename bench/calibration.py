"""All R2D bounds and exact noise calibration (goal: under 10 ms at 100,000 steps), against the recursion and dp_accounting.

Run from the repository root: ``python bench/calibration.py [--smoke] [--json]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from dp_accounting import get_sigma_gaussian

from comparison import Case, Growth, main
from expunge.privacy import sensitivity
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.gaussian import sigma_of


def run_of(steps: int) -> GradientDescentRun:
    return GradientDescentRun(
        samples=94449, forget=1079, steps=steps, rewind=steps // 10, lr=0.01, smoothness=0.2065, gradient_bound=0.5946
    )


def recursion(run: GradientDescentRun) -> float:
    """The path bound of ``privacy.sensitivity.path``, step by step."""
    distance, growth = 0.0, run.lr * run.smoothness
    bound = run.gradient_bound or 0.0
    push, cap = 2 * run.lr * run.forget * bound / run.samples, 2 * run.lr * bound
    for step in range(run.steps):
        distance += min(growth * distance + (push if step < run.steps - run.rewind else 0.0), cap)
    return distance


def near(tolerance: float) -> Callable[[float, float], None]:
    def agree(expected: float, found: float) -> None:
        if not math.isclose(expected, found, rel_tol=tolerance):
            raise SystemExit(f"Expected {expected}; ours is {found}.")

    return agree


def cases(smoke: bool) -> Iterable[Case]:
    steps = 1_000 if smoke else 100_000
    run = run_of(steps)
    grown = {
        size: lambda size=size: sensitivity.path(run_of(size)) for size in (steps // 4, steps // 2, steps, 2 * steps)
    }
    yield Case(
        name=f"path bound, T = {steps:,}", baselines={"recursion, step by step": lambda: recursion(run)},
        ours=lambda: sensitivity.path(run), agree=near(1e-9), growth=Growth(what="steps", ways=grown),
    )  # fmt: skip
    yield Case(
        name="sigma of (1, 1e-5)", baselines={"dp_accounting": lambda: get_sigma_gaussian(1.0, 1e-5)},
        ours=lambda: sigma_of(1.0, 1.0, 1e-5), agree=near(1e-6),
    )  # fmt: skip
    yield Case(
        name="all bounds and sigma",
        baselines={"recursion and dp_accounting": lambda: (recursion(run), get_sigma_gaussian(1.0, 1e-5))},
        ours=lambda: (sensitivity.bounds(run), sigma_of(1.0, 1.0, 1e-5)),
    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
