"""Intervals that stay honest with ten rows: proportions, means, areas under ROC curves, and a plain bootstrap.

Everything takes plain numbers or NumPy arrays. ``positives`` and ``negatives`` are scores where larger means "more
likely positive"; ties count one half.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from expunge.core.errors import InputError


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval.

    Attributes:
        value: the estimate.
        low, high: the ends; infinite where the data allow no bound.
        error: standard error, or ``None`` where the interval does not come from one.
        level: nominal coverage.
    """

    value: float
    low: float
    high: float
    error: float | None = None
    level: float = 0.95

    @property
    def pair(self) -> tuple[float, float] | None:
        """The ends as a ``Measurement`` wants them; ``None`` where they are not finite."""
        return (self.low, self.high) if np.isfinite([self.low, self.high]).all() else None

    def covers(self, value: float) -> bool:
        """Whether ``value`` lies inside, ends included."""
        return self.low <= value <= self.high


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"Expected a confidence level between 0 and 1, for example 0.95; got {level}.")
    return float(special.ndtri((1 + level) / 2))


def _counts(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"Expected 0 <= successes <= trials and at least one trial; got {successes} of {trials}.")


def checked_scores(values: Any, name: str = "scores") -> np.ndarray:
    """``values`` as a float64 vector (n,).

    Raises:
        InputError: if it is empty, not a vector, or holds NaN. Infinite scores are allowed: they only rank.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"Expected {name} as a vector with at least one entry; got shape {array.shape}.")
    if np.isnan(array).any():
        raise InputError(f"Expected {name} without NaN; {int(np.isnan(array).sum())} of {len(array)} are NaN.")
    return array


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A proportion with Wilson's score interval: short, and sound near 0 and 1 (Wilson 1927).

    Formal guarantee: none; coverage is near ``level`` on average, and may fall below it for single proportions.

    Raises:
        InputError: if the counts or the level are impossible.
    """
    _counts(successes, trials)
    z = _quantile(level)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, float(centre - half))
    high = 1.0 if successes == trials else min(1.0, float(centre + half))
    return Interval(share, low, high, float(np.sqrt(share * (1 - share) / trials)), level)


def mean_interval(values: Any, level: float = 0.95) -> Interval:
    """A mean with Student's interval; without bounds for a single value, or where an entry is infinite.

    Shapes:
        values: (n,).

    Formal guarantee: exact for normal values; approximate for skewed ones such as losses.

    Raises:
        InputError: as :func:`checked_scores`.
    """
    array = checked_scores(values, "values")
    _quantile(level)
    if len(array) < 2 or not np.isfinite(array).all():
        return Interval(float(array.mean()), -np.inf, np.inf, None, level)
    error = float(array.std(ddof=1) / np.sqrt(len(array)))
    value, half = float(array.mean()), float(special.stdtrit(len(array) - 1, (1 + level) / 2)) * error
    return Interval(value, value - half, value + half, error, level)


def bootstrap(
    statistic: Callable[..., float],
    *samples: Any,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The percentile bootstrap: rows of each sample are drawn with replacement, each sample on its own.

    Values that belong together (paired measurements) go in as columns of one array. ``error`` is the standard deviation
    over resamples.

    Shapes:
        samples: each (n_i, ...); ``statistic`` gets arrays of the same shapes.

    Formal guarantee: none; too narrow below some twenty rows, and of width 0 where all rows are equal.

    Raises:
        InputError: if a sample is empty or fewer than two resamples are asked for.
    """
    _quantile(level)
    arrays = [np.asarray(sample) for sample in samples]
    if not arrays or any(array.ndim == 0 or len(array) == 0 for array in arrays):
        raise InputError("Expected at least one sample, none of them empty, to resample from.")
    if resamples < 2:
        raise InputError(f"Expected at least 2 resamples; got {resamples}.")
    drawn = np.array(
        [
            statistic(*(array[generator.integers(len(array), size=len(array))] for array in arrays))
            for _ in range(resamples)
        ]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*arrays)), float(low), float(high), float(drawn.std(ddof=1)), level)


def placements(positives: Any, negatives: Any) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, for each negative the share of positives above it.

    Both average to the AUC; their spread is DeLong's variance (DeLong et al. 1988), here from mid-ranks (Sun and Xu
    2014).

    Shapes:
        positives (m,), negatives (n,) → (m,), (n,).

    Raises:
        InputError: as :func:`checked_scores`.
    """
    above, below = checked_scores(positives, "positives"), checked_scores(negatives, "negatives")
    ranks = _mid_ranks(np.concatenate([above, below]))
    m, n = len(above), len(below)
    return (ranks[:m] - _mid_ranks(above)) / n, 1 - (ranks[m:] - _mid_ranks(below)) / m


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def _delong_error(above: np.ndarray, below: np.ndarray) -> float:
    """Standard error from placements, or of a difference from differences of placements; NaN with a single row."""
    if min(len(above), len(below)) < 2:
        return float("nan")
    return float(np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)))


def null_error(positives: Any, negatives: Any) -> float:
    """Standard error of the AUC if both groups were one: Mann–Whitney, exact given the ties.

    sqrt((m + n + 1) / (12 m n)) without ties, less with them, 0 where all scores are equal.

    Raises:
        InputError: as :func:`checked_scores`.
    """
    above, below = checked_scores(positives, "positives"), checked_scores(negatives, "negatives")
    m, n = len(above), len(below)
    total = m + n
    _, counts = np.unique(np.concatenate([above, below]), return_counts=True)
    counts = counts.astype(np.float64)
    ties = float((counts**3 - counts).sum()) / (total * (total - 1))
    return float(np.sqrt(max(0.0, total + 1 - ties) / (12 * m * n)))


def auc_interval(positives: Any, negatives: Any, level: float = 0.95, method: str = "score") -> Interval:
    """Area under the ROC curve, with an interval that works for ten positives and for perfect separation.

    Args:
        method: ``score`` inverts a score test whose variance is Hanley and McNeil's (1982), symmetrised (Newcombe 2006,
            method 5): it never leaves [0, 1], never has width 0, and without ties holds 0.5 exactly where the
            Mann–Whitney test (normal, uncorrected) does not reject; with ties it is wider than it need be.
            ``delong`` is value ± z × DeLong error: fit for hundreds of rows, degenerate at AUC 0 and 1.

    The field ``error`` is DeLong's in both cases (``None`` with a single row on one side).

    Shapes:
        positives (m,), negatives (n,).

    Formal guarantee: none; coverage is asymptotic.

    Raises:
        InputError: on empty or NaN scores, or an unknown method.
    """
    z = _quantile(level)
    above, below = placements(positives, negatives)
    value = float(np.clip(above.mean(), 0.0, 1.0))
    error = _delong_error(above, below)
    if method == "delong":
        if np.isnan(error):
            raise InputError(
                "Expected at least two positives and two negatives for DeLong's error; use method 'score'."
            )
        return Interval(value, max(0.0, value - z * error), min(1.0, value + z * error), error, level)
    if method != "score":
        raise InputError(f"Expected method score or delong; got {method!r}.")
    m, n = len(above), len(below)
    spare = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        bracket = 1 + spare * (1 - theta) / (2 - theta) + spare * theta / (1 + theta)
        return abs(value - theta) - z * math.sqrt(theta * (1 - theta) * bracket / (m * n))

    inner = float(np.clip(value, 1e-9, 1 - 1e-9))  # at 0 and 1 themselves the variance is 0: a root, but not the end
    low = 0.0 if value == 0 else _root(excess, 0.0, inner)
    high = 1.0 if value == 1 else _root(excess, 1.0, inner)
    return Interval(value, low, high, None if np.isnan(error) else error, level)


def _root(excess: Callable[[float], float], above: float, below: float) -> float:
    """Where ``excess`` changes its sign between a place where it is positive and one where it is not, by halving."""
    while True:
        middle = (above + below) / 2
        if middle in (above, below):
            return middle
        if excess(middle) > 0:
            above = middle
        else:
            below = middle


def share_interval(mean: Interval, n: int) -> Interval:
    """Student's interval of a mean of n values from 0 to 1: inside [0, 1], and never of width 0 where all are alike.

    There Wilson's interval stands for it: no values from 0 to 1 spread more about their mean than trials of 0 and 1 do.
    """
    if mean.error == 0:
        low, high = (wilson(int(count(mean.value * n)), n, mean.level) for count in (np.floor, np.ceil))
        return Interval(mean.value, low.low, high.high, mean.error, mean.level)
    return Interval(mean.value, max(0.0, mean.low), min(1.0, mean.high), mean.error, mean.level)
