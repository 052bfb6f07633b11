"""Scoring against plain per-example loops: LiRA (goal: 10 x), U-LiRA, KLOM, the challenge score, the SVC of MIA-efficacy.

Loops and vectorised code run in this process on the same data, and must agree. Run: python bench/metric_scoring.py
[--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np
from sklearn.svm import SVC

from expunge.metrics.challenge import epsilons
from expunge.metrics.klom import klom
from expunge.metrics.membership import lira_scores
from expunge.metrics.membership_conventions import svc_nonmember_percent
from expunge.metrics.ulira import ulira_scores


def seconds(function: Callable[[], np.ndarray], repeats: int) -> tuple[float, np.ndarray]:
    best, result = math.inf, np.empty(0)
    for _ in range(repeats):
        begun = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - begun)
    return best, result


def log_normal(x: float, mean: float, variance: float) -> float:
    return -((x - mean) ** 2) / (2 * variance) - math.log(variance) / 2


def lira_loop(target: np.ndarray, scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Online, a variance for each record; the floor plays no part in this data."""
    found = np.empty(len(target))
    for i in range(len(target)):
        inside, outside = scores[members[:, i], i], scores[~members[:, i], i]
        found[i] = log_normal(target[i], inside.mean(), inside.var(ddof=1))
        found[i] -= log_normal(target[i], outside.mean(), outside.var(ddof=1))
    return found


def ulira_loop(u: np.ndarray, r: np.ndarray) -> np.ndarray:
    found = np.empty((2, *u.shape))
    for i in range(u.shape[1]):
        for j in range(len(u)):
            a, b = np.delete(u[:, i], j), np.delete(r[:, i], j)
            one, two = (a.mean(), a.var(ddof=1)), (b.mean(), b.var(ddof=1))
            for side, group in enumerate((u, r)):
                found[side, j, i] = log_normal(group[j, i], *one) - log_normal(group[j, i], *two)
    return found


def klom_loop(u: np.ndarray, r: np.ndarray) -> np.ndarray:
    found = np.empty(u.shape[1])
    for i in range(u.shape[1]):
        a, b = u[:, i], r[:, i]
        edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), 21)
        p, q = np.histogram(a, edges)[0] / len(a), np.histogram(b, edges)[0] / len(b)
        q = np.where(p > 0, np.maximum(q, 1e-5), q)
        q = q / q.sum()
        found[i] = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)
    return found


def challenge_loop(u: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Example by example; all thresholds of an example are compared at once with one model after the other."""
    found = np.empty(u.shape[1])
    for i in range(u.shape[1]):
        a, b = u[:, i], r[:, i]
        positive, negative = (b, a) if np.median(b) > np.median(a) else (a, b)
        low, high = min(a.min(), b.min()), max(a.max(), b.max())
        at = np.linspace(low, high, math.ceil((high - low) * 100))
        narrow, wide = (a, b) if np.ptp(a) < np.ptp(b) else (b, a)
        right = np.repeat(np.linspace(narrow.max() - 2, narrow.max() + 2, 400), 400)
        left = right - np.ptp(narrow) + np.tile(np.linspace(-2, 2, 400), 400)
        missed = np.concatenate(
            [sum(x < at for x in positive), len(a) - sum((left <= x) & (x <= right) for x in narrow)]
        )
        passed = np.concatenate([sum(x >= at for x in negative), sum((left <= x) & (x <= right) for x in wide)])
        if ((missed == 0) & (passed == 0)).any():
            found[i] = 50.0
            continue
        keep = (missed > 0) & (passed > 0) & (missed + passed < 2 * len(a))
        fnr, fpr = missed[keep] / len(a), passed[keep] / len(a)
        with np.errstate(divide="ignore", invalid="ignore"):
            best = np.fmax(np.log((1 - 1e-5 - fpr) / fnr), np.log((1 - 1e-5 - fnr) / fpr)).max()
        found[i] = min(max(best, 0.0), 50.0)
    return found


def svc_plain(retain: np.ndarray, test: np.ndarray, forget: np.ndarray) -> np.ndarray:
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    machine.fit(np.concatenate([retain, test])[:, None], np.repeat([1, 0], [len(retain), len(test)]))
    return np.array([100 * (1 - machine.predict(forget[:, None]).mean())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    part = 5 if arguments.quick else 1
    n, rows = 5000 // part, 5000 // part
    scores = generator.normal(size=(64, n))
    members = generator.permuted(np.arange(64)[:, None] % 2 * np.ones((1, n)) > 0, axis=0)
    target = generator.normal(size=n)
    u, r = 0.5 + generator.normal(size=(100, n)), generator.normal(size=(100, n))
    few_u, few_r = u[:64, : 60 // part], r[:64, : 60 // part]
    retain, test = 1 - np.exp(-generator.gamma(9, 0.8, rows)), 1 - np.exp(-generator.gamma(3, 2, rows))
    forget = 1 - np.exp(-generator.gamma(3, 2, rows // 2))
    cases: dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], float]] = {
        f"LiRA, 64 references, {n} records": (
            lambda: lira_loop(target, scores, members),
            lambda: lira_scores(target, scores, members, variance="own"),
            1e-8,
        ),
        f"U-LiRA, 64 + 64 models, {few_u.shape[1]} examples": (
            lambda: ulira_loop(few_u, few_r),
            lambda: np.stack(ulira_scores(few_u, few_r, variance="own")),
            1e-8,
        ),
        f"KLOM, 100 + 100 models, {n} points": (lambda: klom_loop(u, r), lambda: klom(u, r).values, 1e-8),
        f"challenge, 64 + 64 models, {few_u.shape[1]} examples": (
            lambda: challenge_loop(few_u, few_r),
            lambda: epsilons(few_u, few_r),
            1e-8,
        ),
        f"SVC, {rows} + {rows} rows (scikit-learn)": (
            lambda: svc_plain(retain, test, forget),
            lambda: np.array([svc_nonmember_percent(retain, test, forget).value.value]),
            0.5,  # percent: libsvm stops at a tolerance, so rows near the boundary may fall on the other side
        ),
    }
    result = {}
    for name, (loop, ours, tolerance) in cases.items():
        (slow, expected), (fast, found) = seconds(loop, 2), seconds(ours, 5)
        apart = float(np.abs(expected - found).max())
        if apart > tolerance:
            raise SystemExit(f"{name}: loop and vectorised code differ by {apart:.1e}.")
        result[name] = slow / fast
        print(f"{name:<44} loop {slow:8.3f} s, ours {fast:8.4f} s: {slow / fast:7.0f} x; differ by {apart:.0e}")
    lira = next(iter(result.values()))
    print(f"LiRA scoring: {lira:.0f} x the per-example loop (goal 10)")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
