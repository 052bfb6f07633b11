"""The NeurIPS-2023 unlearning challenge score: how well the best threshold tells unlearned from retrained models.

For each forgotten example the epsilon of the strongest of many threshold attacks on the models' logit-scaled
confidences; small epsilons earn points. Perfect unlearning does *not* score 1: with this many thresholds chance alone
gives a median epsilon near 1.5 and a score near 0.2 (our simulation with normal confidences), so the score is read beside
that of retrained models against retrained models. Source: the organisers' code, google-deepmind/unlearning_evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, mean_interval

CAP = 50.0
DELTA = 1e-5
PER_UNIT = 100  # thresholds per unit of logit-scaled confidence
BUFFER = 2.0  # the double threshold looks this far beyond the narrower distribution on each side
BUCKET = 0.5
PEAKY = 0.01  # ratio of ranges below which one distribution counts as a spike
HEADLINE_FROM = 32  # models on a side, ours: below, a shift by half a standard deviation cannot be seen

_STEPS = round(2 * BUFFER * PER_UNIT)  # 400 right ends; as many left ends for each
_UNIT = 2 * BUFFER / (_STEPS - 1)


@dataclass(frozen=True)
class ChallengeScore:
    """A challenge score and what it is made of.

    Attributes:
        forgetting: F, mean points over examples, with Student's interval over examples (chance in the models, which all
            examples share, is not in it).
        utility: (RA_u / RA_r) (TA_u / TA_r), or ``None`` if no accuracies were given.
        epsilons: of each example, at most 50, (n,).
        unresolved: examples where every threshold was discarded; they count as epsilon 50. (Released code stops there.)
        models: on each side.
        null: F of retrained against retrained models, if it was computed.
    """

    forgetting: Interval
    utility: float | None
    epsilons: np.ndarray
    unresolved: int
    models: int
    null: Interval | None = None

    @property
    def value(self) -> float | None:
        """The score of the challenge, F times utility; ``None`` without accuracies."""
        return None if self.utility is None else self.forgetting.value * self.utility

    @property
    def beside_null(self) -> float | None:
        """F / F_null: 1 where unlearning cannot be told from retraining; ``None`` without a null above 0."""
        return self.forgetting.value / self.null.value if self.null is not None and self.null.value > 0 else None

    @property
    def fit_for_headline(self) -> bool:
        """Whether there are models enough, and a null, for a number that stands alone."""
        return self.models >= HEADLINE_FROM and self.beside_null is not None

    def headline(self) -> tuple[float, float]:
        """F and F_null, always together.

        Raises:
            InputError: below 32 models on a side, or without a null.
        """
        if not self.fit_for_headline:
            raise InputError(
                f"Expected at least {HEADLINE_FROM} models on each side and a null above 0 for a challenge score that "
                f"stands alone; there are {self.models} models and the null is "
                f"{'missing' if self.null is None else self.null.value}. Print it as a side note with its null, or "
                "train more models."
            )
        assert self.null is not None
        return self.forgetting.value, self.null.value


def challenge_score(
    unlearned: Any,
    retrained: Any,
    *,
    accuracies: tuple[float, float, float, float] | None = None,
    null: Interval | None = None,
) -> ChallengeScore:
    """The score of step 8, from logit-scaled confidences (:func:`expunge.metrics.membership.log_odds`).

    Args:
        unlearned, retrained: log(p_y) - log(1 - p_y) of each model at each forgotten example.
        accuracies: RA and TA of the unlearned, then RA and TA of the retrained models, each a mean over models.
        null: from :func:`challenge_null`.

    Shapes:
        unlearned (N, n), retrained (N, n): as many models on both sides.

    Formal guarantee: none. An epsilon here is the best of many thresholds on the very models it is counted on: neither a
    lower nor an upper bound on differential privacy.

    Raises:
        InputError: as :func:`epsilons`, or accuracies that are not positive.
    """
    found = epsilons(unlearned, retrained)
    unresolved = np.isnan(found)
    found = np.where(unresolved, CAP, found)
    models = len(np.asarray(unlearned))
    utility = None
    if accuracies is not None:
        ra, ta, ra_retrained, ta_retrained = accuracies
        if min(accuracies) < 0 or min(ra_retrained, ta_retrained) <= 0:
            raise InputError(
                f"Expected accuracies (RA, TA of unlearned, RA, TA of retrained), the retrained ones above 0; got "
                f"{accuracies}."
            )
        utility = ra / ra_retrained * ta / ta_retrained
    return ChallengeScore(mean_interval(points(found, models)), utility, found, int(unresolved.sum()), models, null)


def points(epsilon: Any, models: int) -> np.ndarray:
    """Step 7: 1 for epsilon in [0, 0.5), then half as much in each bucket of width 0.5; 0 beyond 2 ceil(ln(N - 1)).

    Shapes:
        any → the same.
    """
    bucket = np.floor(np.asarray(epsilon, np.float64) / BUCKET)
    last = 2 * np.ceil(np.log(models - 1)) if models > 2 else 0
    return np.where(bucket < last, np.exp2(-bucket), 0.0)


def epsilons(unlearned: Any, retrained: Any) -> np.ndarray:
    """Steps 1 to 6: the epsilon of each example, at most 50; NaN where every threshold was discarded.

    Exactly the maximum over the published grid of thresholds, at much less than its cost: only counts matter, they are
    whole numbers, so the epsilon of every possible pair of counts is tabulated once; and thresholds between the same
    two samples have the same counts, so one of them is enough. Where two published thresholds tie with a sample up to
    rounding, the sample counts as inside.

    Identical constants on both sides give 0.

    Shapes:
        (N, n), (N, n) → (n,).

    Raises:
        InputError: on matrices of different shapes, fewer than two models, or confidences that are not finite.
    """
    u, r = np.asarray(unlearned, np.float64), np.asarray(retrained, np.float64)
    if u.ndim != 2 or u.shape != r.shape or len(u) < 2 or not u.shape[1]:
        raise InputError(
            f"Expected two matrices (models, examples) of the same shape with at least two models; got {u.shape} and "
            f"{r.shape}. With more models on one side, leave some out at random."
        )
    if not (np.isfinite(u).all() and np.isfinite(r).all()):
        raise InputError("Expected finite confidences; use log_odds, which stays finite.")
    u, r = np.sort(u, axis=0).T, np.sort(r, axis=0).T  # (n, N) each
    table = _table(u.shape[1])
    swap = (np.median(r, axis=1) > np.median(u, axis=1))[:, None]
    best = _single(np.where(swap, r, u), np.where(swap, u, r), table)
    width_u, width_r = u[:, -1] - u[:, 0], r[:, -1] - r[:, 0]
    narrow = (width_u < width_r)[:, None]
    best = np.maximum(best, _double(np.where(narrow, u, r), np.where(narrow, r, u), table))
    small, large = np.minimum(width_u, width_r), np.maximum(width_u, width_r)
    best = np.where((large > 0) & (small < PEAKY * large), CAP, best)
    best = np.where((large == 0) & (u[:, 0] == r[:, 0]), 0.0, best)
    return np.where(best < 0, np.nan, np.minimum(best, CAP))


def _table(models: int) -> np.ndarray:
    """Step 5 for every pair (missed positives, passed negatives), flat (N + 1)²; -1 where a threshold is discarded."""
    rate = np.arange(models + 1) / models
    with np.errstate(divide="ignore", invalid="ignore"):  # rates of 0 and 1 are overwritten or lose to the other term
        one = np.log(1 - DELTA - rate)[None, :] - np.log(rate)[:, None]
    table = np.fmax(np.fmax(one, one.T), 0.0)
    table[0, :] = table[:, 0] = -1.0
    table[-1, -1] = -1.0
    table[0, 0] = np.inf
    return table.ravel()


def _single(positive: np.ndarray, negative: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Best epsilon of "positive if at least t": all examples and thresholds at once.

    Shapes:
        positive, negative (n, N) → (n,).
    """
    n, models = positive.shape
    both = np.concatenate([positive, negative], axis=1)
    low, high = both.min(1, keepdims=True), both.max(1, keepdims=True)
    count = np.ceil((high - low) * PER_UNIT)  # thresholds low .. high, evenly spaced, both ends included
    spread = np.where(high > low, high - low, 1.0)
    passed = np.floor((both - low) / spread * np.maximum(count - 1, 0)) + (count > 0)  # thresholds that a sample passes
    order = np.argsort(-passed, axis=1, kind="stable")
    passed = np.take_along_axis(passed, order, axis=1)
    taken = np.cumsum(order < models, axis=1)  # positives among the samples that pass as many thresholds or more
    missed, wrong = models - taken, np.arange(1, 2 * models + 1) - taken
    # A threshold lies between neighbours only if they pass different numbers of thresholds.
    real = np.concatenate([passed[:, 1:] < passed[:, :-1], np.ones((n, 1), bool)], axis=1) & (passed > 0)
    return np.where(real, table[missed * (models + 1) + wrong], -1.0).max(1)


def _double(narrow: np.ndarray, wide: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Best epsilon of "narrow if within [l, r]", r within 2 of the narrow maximum, r - l within 2 of its range.

    With w the range of the narrow distribution the right ends are r_j = max - 2 + j h and the left ends r_j - w - 2 + k
    h = min - 4 + (j + k) h, with j, k = 0 .. 399 and h = 4 / 399: all left ends lie on one grid of 799 values.

    Shapes:
        narrow, wide (n, N) → (n,).
    """
    n, models = narrow.shape
    low, high = narrow[:, :1], narrow[:, -1:]

    def below(at: np.ndarray, size: int) -> np.ndarray:
        """How many samples have a place at or below 0 .. size - 1, (n, size); places in grid steps."""
        cell = np.clip(np.ceil(at), 0, size).astype(np.int64) + (size + 1) * np.arange(n)[:, None]
        return np.bincount(cell.ravel(), minlength=n * (size + 1)).reshape(n, -1).cumsum(1)[:, :size]

    def right(x: np.ndarray) -> np.ndarray:  # samples <= r_j
        return below((x - high) / _UNIT + BUFFER / _UNIT, _STEPS)

    def left(x: np.ndarray) -> np.ndarray:  # samples < l_m, as the closed interval wants it
        return len(x[0]) - below(-(x - low) / _UNIT + _STEPS - 1, 2 * _STEPS - 1)[:, ::-1]

    # missed = N - (right - left) of narrow, wrong = right - left of wide: the flat place in the table is a sum.
    ends = (models - right(narrow)) * (models + 1) + right(wide)
    starts = left(narrow) * (models + 1) - left(wide)
    # l <= r as long as k h <= w + 2; beyond, the interval is empty
    last = np.minimum(np.floor((high - low + BUFFER) / _UNIT), _STEPS - 1)[:, 0].astype(np.int64)
    best = np.full(n, -1.0)
    for i in range(n):
        first_j, last_j = _runs(ends[i])
        first_m, last_m = _runs(starts[i])
        allowed = (last_m >= first_j[:, None]) & (
            first_m <= last_j[:, None] + last[i]
        )  # some k of 0 .. last joins them
        best[i] = table[np.where(allowed, ends[i, first_j][:, None] + starts[i, first_m], 1)].max()  # 1: discarded
    return best


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last place of each run of equal values."""
    change = np.flatnonzero(values[1:] != values[:-1])
    return np.concatenate([[0], change + 1]), np.append(change, len(values) - 1)


def challenge_null(retrained: Any, *, generator: np.random.Generator, splits: int = 10) -> Interval:
    """F of one half of the retrained models against the other half: what perfect unlearning scores here.

    Each half has N // 2 models; F at 16 to 512 models is between 0.16 and 0.22 for normal confidences, so that the
    number of models matters little (our simulation). The interval spans single splits (central 95 %).

    Shapes:
        retrained (N, n).

    Raises:
        InputError: with fewer than four models, or as :func:`epsilons`.
    """
    r = np.asarray(retrained, np.float64)
    if r.ndim != 2 or len(r) < 4 or splits < 1:
        raise InputError(f"Expected at least four retrained models (N, n) and one split; got {r.shape} and {splits}.")
    half = len(r) // 2
    found = np.empty(splits)
    for split in range(splits):
        order = generator.permutation(len(r))
        epsilon = epsilons(r[order[:half]], r[order[half : 2 * half]])
        found[split] = points(np.where(np.isnan(epsilon), CAP, epsilon), half).mean()
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(found.mean()), float(low), float(high))
