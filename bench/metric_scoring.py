"""Scoring against plain per-example loops: LiRA (goal: 10 x), U-LiRA, KLOM, the challenge score, the SVC of MIA-efficacy.

Run from the repository root: ``python bench/metric_scoring.py [--smoke] [--json]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from sklearn.svm import SVC

from comparison import Case, Growth, main
from expunge.metrics.challenge import epsilons
from expunge.metrics.klom import klom
from expunge.metrics.membership import lira_scores
from expunge.metrics.membership_conventions import svc_nonmember_percent
from expunge.metrics.ulira import ulira_scores


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


def near(tolerance: float) -> Callable[[np.ndarray, np.ndarray], None]:
    def agree(expected: np.ndarray, found: np.ndarray) -> None:
        if (apart := float(np.abs(expected - found).max())) > tolerance:
            raise SystemExit(f"Loop and vectorised code differ by {apart:.1e}.")

    return agree


def cases(smoke: bool) -> Iterable[Case]:
    generator = np.random.default_rng(0)
    n, few = (40, 4) if smoke else (5000, 60)
    scores, target = generator.normal(size=(64, n)), generator.normal(size=n)
    members = generator.permuted(np.arange(64)[:, None] % 2 * np.ones((1, n)) > 0, axis=0)
    u, r = 0.5 + generator.normal(size=(100, n)), generator.normal(size=(100, n))
    few_u, few_r = u[:64, :few], r[:64, :few]
    retain, test = 1 - np.exp(-generator.gamma(9, 0.8, n)), 1 - np.exp(-generator.gamma(3, 2, n))
    forget = 1 - np.exp(-generator.gamma(3, 2, n // 2))
    quarters = [n // 4, n // 2, 3 * n // 4, n]

    def lira(m: int) -> Callable[[], np.ndarray]:
        return lambda: lira_scores(target[:m], scores[:, :m], members[:, :m], variance="own")

    def klom_of(m: int) -> Callable[[], np.ndarray]:
        return lambda: klom(u[:, :m], r[:, :m]).values

    yield Case(
        name=f"LiRA, 64 models, {n} records", baselines={"loop over records": lambda: lira_loop(target, scores, members)},
        ours=lira(n), agree=near(1e-8), growth=Growth(what="records", ways={m: lira(m) for m in quarters}), goal=10.0, rounds=2,
    )  # fmt: skip
    yield Case(
        name=f"U-LiRA, 64 + 64 models, {few} examples", baselines={"loop over examples": lambda: ulira_loop(few_u, few_r)},
        ours=lambda: np.stack(ulira_scores(few_u, few_r, variance="own")), agree=near(1e-8), rounds=2,
    )  # fmt: skip
    yield Case(
        name=f"KLOM, 100 + 100 models, {n} points", baselines={"loop over points": lambda: klom_loop(u, r)},
        ours=klom_of(n), agree=near(1e-8), growth=Growth(what="points", ways={m: klom_of(m) for m in quarters}), rounds=2,
    )  # fmt: skip
    yield Case(
        name=f"challenge, 64 + 64 models, {few} examples",
        baselines={"loop over examples": lambda: challenge_loop(few_u, few_r)}, ours=lambda: epsilons(few_u, few_r),
        agree=near(1e-8), rounds=2,
    )  # fmt: skip
    yield Case(
        name=f"SVC, {n} + {n} rows", baselines={"scikit-learn's SVC": lambda: svc_plain(retain, test, forget)},
        ours=lambda: np.array([svc_nonmember_percent(retain, test, forget).value.value]),
        agree=near(100 / len(forget) if smoke else 0.5), rounds=2,  # percent: libsvm stops at a tolerance
    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
