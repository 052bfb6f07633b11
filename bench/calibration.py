"""Time of all R2D bounds and of exact noise calibration at T = 100,000 (goal: under 10 ms), and against the plain loop.

Run: python bench/calibration.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from dp_accounting import get_sigma_gaussian

from expunge.privacy import sensitivity
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.gaussian import sigma_of

STEPS = 100_000


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def recursion(run: GradientDescentRun) -> float:
    """The path bound of ``privacy.sensitivity.path``, step by step."""
    distance, growth = 0.0, run.lr * run.smoothness
    bound = run.gradient_bound or 0.0
    push, cap = 2 * run.lr * run.forget * bound / run.samples, 2 * run.lr * bound
    for step in range(run.steps):
        distance += min(growth * distance + (push if step < run.steps - run.rewind else 0.0), cap)
    return distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    repeats = 5 if arguments.quick else 50
    run = GradientDescentRun(
        samples=94449, forget=1079, steps=STEPS, rewind=STEPS // 10, lr=0.01, smoothness=0.2065, gradient_bound=0.5946
    )
    result = {
        "all bounds, ms": milliseconds(lambda: sensitivity.bounds(run), repeats),
        "sigma of (1, 1e-5), ms": milliseconds(lambda: sigma_of(1.0, 1.0, 1e-5), repeats),
        "sigma by dp_accounting, ms": milliseconds(lambda: get_sigma_gaussian(1.0, 1e-5), repeats),
        "path bound, plain loop, ms": milliseconds(lambda: recursion(run), max(3, repeats // 10)),
        "path bound, ours, ms": milliseconds(lambda: sensitivity.path(run), repeats),
    }
    agree = recursion(run) / sensitivity.path(run) - 1
    for name, value in result.items():
        print(f"{name:<28} {value:9.3f}")
    total = result["all bounds, ms"] + result["sigma of (1, 1e-5), ms"]
    print(f"calibration at T = {STEPS}: {total:.2f} ms (goal 10); loop and closed form differ by {agree:+.1e}")
    if arguments.json:
        print(json.dumps({**result, "calibration, ms": total}))


if __name__ == "__main__":
    main()
