"""KLOM: how far, point by point, the margins of many unlearned models lie from those of many retrained ones.

The Kullback–Leibler divergence of two histograms, so it is above 0 for identical distributions too: by about 0.9 with 50
models on a side and by 0.36 with 100. The value of perfect unlearning is therefore computed and stands beside every
value, and fewer than 50 models make no headline (both numbers: our simulation with normal margins). Source: Georgiev et
al. 2024 (arXiv 2410.23232) and its released code, data-unlearning-bench.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, mean_interval
from expunge.metrics.membership import log_odds

CLIP = 100.0  # margins are cut to +-100: float32 softmax knows no more
BINS = 20
FLOOR = 1e-5  # of a retrained probability where the unlearned one is positive
HEADLINE_FROM = 50  # models on a side, ours: below, chance outweighs a shift by one standard deviation


def margins(logits: Any, labels: Any) -> np.ndarray:
    """The label's logit minus the log-sum-exp of the others: what KLOM compares.

    Shapes:
        logits (..., n, classes), labels (n,) → (..., n).

    Raises:
        InputError: as :func:`expunge.metrics.membership.log_odds`, which it is.
    """
    return log_odds(logits, labels)


@dataclass(frozen=True)
class Klom:
    """KLOM of a set of points.

    Attributes:
        mean: over points, with Student's interval over points. All points share the same models, so chance in the
            models is not in the interval; the null is what it has to be compared with.
        upper: the 95th percentile over points, with an interval from order statistics.
        values: of each point, (n,).
        models: on the smaller side.
        null: the mean that identical distributions would give, if it was computed.
    """

    mean: Interval
    upper: Interval
    values: np.ndarray
    models: int
    null: Interval | None = None

    @property
    def fit_for_headline(self) -> bool:
        """Whether there are models enough, and a null, for a number that stands alone."""
        return self.models >= HEADLINE_FROM and self.null is not None

    def headline(self) -> tuple[float, float]:
        """The mean and its null, always together.

        Raises:
            InputError: below 50 models on a side, or without a null.
        """
        if not self.fit_for_headline:
            raise InputError(
                f"Expected at least {HEADLINE_FROM} models on each side and a null for a KLOM that stands alone; there "
                f"are {self.models} models and {'a' if self.null else 'no'} null. Print it as a side note with its "
                "null, or train more models."
            )
        assert self.null is not None
        return self.mean.value, self.null.value


def klom(unlearned: Any, retrained: Any, null: Interval | None = None) -> Klom:
    """KL(unlearned || retrained) of the margins at each point, over 20 equal bins of their joint range.

    The last bin includes its right end. (Released code counts with bins open on the right and so loses every margin
    that equals the largest one: nine 0s and one 10 against ten 0s gave 0 instead of 0.826.) Retrained probabilities are
    raised to 1e-5 where the unlearned one is positive, and then sum to one again, as published. The order of arguments
    matters: the divergence is not symmetric (the released runner swaps them).

    Args:
        unlearned, retrained: margins of each model at each point.
        null: from :func:`null_from_halves` or :func:`null_of_gaussians`.

    Shapes:
        unlearned (N, n), retrained (M, n).

    Formal guarantee: none; the estimate is biased upwards, more so with fewer models.

    Raises:
        InputError: on matrices that do not fit together, NaN, or fewer than two models on a side.
    """
    u, r = checked_models(unlearned, retrained)
    values = _divergences(u, r)
    return Klom(mean_interval(values), _upper(values), values, min(len(u), len(r)), null)


def checked_models(unlearned: Any, retrained: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices (models, points) as float64.

    Raises:
        InputError: if they do not have the same points, hold NaN, or lack models.
    """
    u, r = np.asarray(unlearned, np.float64), np.asarray(retrained, np.float64)
    if u.ndim != 2 or r.ndim != 2 or u.shape[1] != r.shape[1] or not u.shape[1] or min(len(u), len(r)) < 2:
        raise InputError(
            f"Expected two matrices (models, points) with the same points and at least two models each; got {u.shape} "
            f"and {r.shape}."
        )
    if np.isnan(u).any() or np.isnan(r).any():
        raise InputError("Expected margins without NaN; a model that diverged must be named, not averaged away.")
    return u, r


def _divergences(u: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Shapes: (N, n), (M, n) → (n,)."""
    both = np.clip(np.concatenate([u, r]), -CLIP, CLIP)
    low, high = both.min(0), both.max(0)
    width = np.where(high > low, high - low, 1.0)  # a single value: everything falls into the first bin, divergence 0
    edges = low + width * (np.arange(BINS + 1) / BINS)[:, None]  # (21, n)
    place = np.minimum((both - low) / width * BINS, BINS - 1).astype(np.int64)  # the last bin is closed
    points = np.arange(both.shape[1])
    place -= both < edges[place, points]  # rounding must not move a margin over the edge it lies on
    place += (both >= edges[place + 1, points]) & (place < BINS - 1)
    place += BINS * points

    def shares(rows: np.ndarray) -> np.ndarray:
        return np.bincount(rows.ravel(), minlength=BINS * len(points)).reshape(-1, BINS) / len(rows)

    p, q = shares(place[: len(u)]), shares(place[len(u) :])
    raised = np.where(p > 0, np.maximum(q, FLOOR), q)
    ratio = np.divide(p, raised, out=np.ones_like(p), where=p > 0)
    added = (raised - q).sum(1)  # raised shares sum to 1 + added and are divided by it
    return np.maximum((p * np.log(ratio)).sum(1) + np.log1p(added), 0.0)  # rounding must not go below 0


def _upper(values: np.ndarray, share: float = 0.95, level: float = 0.95) -> Interval:
    """A quantile with the interval between two order statistics: free of assumptions, unbounded if rows are few."""
    ordered = np.sort(values)
    reached = special.bdtr(np.arange(len(values) + 1), len(values), share)  # the binomial's distribution function
    low, high = (int(np.searchsorted(reached, tail)) for tail in ((1 - level) / 2, (1 + level) / 2))
    return Interval(
        float(np.quantile(values, share)),
        float(ordered[low - 1]) if low >= 1 else 0.0,
        float(ordered[high]) if high < len(values) else np.inf,
        None,
        level,
    )


def null_from_halves(retrained: Any, *, generator: np.random.Generator, splits: int = 20) -> Interval:
    """Mean KLOM of one half of the retrained models against the other half, over random splits.

    Each half has M // 2 models, and fewer models give a larger null: beside a KLOM of N models this null is right when
    M = 2 N, and too forgiving when M = N. Then :func:`null_of_gaussians` is the better one.

    The interval spans what single splits gave (central 95 %); splits share their models.

    Shapes:
        retrained (M, n).

    Raises:
        InputError: with fewer than four models.
    """
    r, _ = checked_models(retrained, retrained)
    half = len(r) // 2
    if half < 2 or splits < 1:
        raise InputError(f"Expected at least four retrained models and one split; got {len(r)} and {splits}.")
    found = np.empty(splits)
    for split in range(splits):
        order = generator.permutation(len(r))
        found[split] = _divergences(r[order[:half]], r[order[half : 2 * half]]).mean()
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(found.mean()), float(low), float(high))


def null_of_gaussians(models: int, retrained_models: int, *, seed: int, points: int = 2000) -> Interval:
    """Mean KLOM of identical normal distributions: depends on the numbers of models alone.

    Equal bins over the joint range do not see location and scale, so one standard normal stands for all points (as long
    as nothing is clipped). The interval is Student's over simulated points.

    Raises:
        InputError: with fewer than two models on a side or two points.
    """
    if min(models, retrained_models, points) < 2:
        raise InputError(
            f"Expected at least two models on each side and two points; got {models}, {retrained_models}, {points}."
        )
    generator = np.random.default_rng(seed)
    u, r = generator.normal(size=(models, points)), generator.normal(size=(retrained_models, points))
    return mean_interval(_divergences(u, r))
