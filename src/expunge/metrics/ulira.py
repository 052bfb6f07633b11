"""U-LiRA: can many unlearned models be told from many retrained ones, forgotten example by forgotten example?

For each example two normal distributions are fitted, to the logit-scaled confidences of unlearned and of retrained
models; a model is called unlearned if the first is more likely. Done well, forgetting leaves 0.5. Source: Kurmanji et
al. 2023 (SCRUB, arXiv 2302.09880), after Carlini et al. 2022 (arXiv 2112.03570). SCRUB's own code for it was not released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, mean_interval
from expunge.metrics.membership import OWN_VARIANCE_FLOOR, REFERENCES_FOR_OWN_VARIANCE, auc, tpr_at_fpr

# UNKNOWN, chosen: the number from which each example has variances of its own. SCRUB used 256.
HEADLINE_FROM = REFERENCES_FOR_OWN_VARIANCE


@dataclass(frozen=True)
class ULira:
    """Success of the attack.

    Attributes:
        accuracy: share of right decisions, ties one half, over both groups of models and all examples; 0.5 is chance.
            Its interval is the wider of Student's over examples and over models, for all examples share the models and
            all models share the examples.
        tpr: share of unlearned (model, example) pairs found where at most 1 % of the retrained ones pass, one threshold
            for all examples. The interval is a bootstrap over examples; without a generator for it, it has no ends.
        area: under the ROC curve of all pairs.
        examples: accuracy on each example, (n,).
        models: on each side.
    """

    accuracy: Interval
    tpr: Interval
    area: float
    examples: np.ndarray
    models: int

    @property
    def fit_for_headline(self) -> bool:
        """Whether there are models enough for a number that stands alone."""
        return self.models >= HEADLINE_FROM


def ulira_scores(unlearned: Any, retrained: Any, *, variance: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """log N(x; unlearned) - log N(x; retrained) of every model at every example, models left out of their own fit.

    Where model j of one group is scored, model j of *both* groups is left out. Leaving out only the scored one would
    fit its own group with one model fewer, and the attack would fall below 0.5 where there is nothing to find. All fits
    come from two sums by a rank-one correction, without a loop.

    Args:
        unlearned, retrained: logit-scaled confidences (:func:`expunge.metrics.membership.log_odds`).
        variance: ``own`` (each example its own, at least ``OWN_VARIANCE_FLOOR`` of the shared one), ``shared`` (one a
            group, pooled over examples), or by default ``own`` from 64 models a side on.

    Shapes:
        unlearned (N, n), retrained (N, n) → (N, n) of the unlearned models, (N, n) of the retrained ones.

    Formal guarantee: if all 2 N models are independent draws of one distribution, each decision is right with
    probability exactly 1/2 (ties one half): the scored model is independent of both fits, and these are exchangeable.

    Raises:
        InputError: on different shapes, fewer than three models, confidences that are not finite, unknown variance.
    """
    u, r = np.asarray(unlearned, np.float64), np.asarray(retrained, np.float64)
    if u.ndim != 2 or u.shape != r.shape or len(u) < 3 or not u.shape[1]:
        raise InputError(
            f"Expected two matrices (models, examples) of the same shape with at least three models; got {u.shape} and "
            f"{r.shape}. With more models on one side, leave some out at random."
        )
    if not (np.isfinite(u).all() and np.isfinite(r).all()):
        raise InputError("Expected finite confidences; use log_odds, which stays finite.")
    if variance is None:
        variance = "own" if len(u) >= REFERENCES_FOR_OWN_VARIANCE else "shared"
    if variance not in ("own", "shared"):
        raise InputError(f"Expected variance own or shared; got {variance!r}.")
    fits = [_left_out(group, variance) for group in (u, r)]

    def ratio(x: np.ndarray) -> np.ndarray:
        (mean_u, var_u), (mean_r, var_r) = fits
        return ((x - mean_r) ** 2 / var_r - (x - mean_u) ** 2 / var_u + np.log(var_r / var_u)) / 2

    return ratio(u), ratio(r)


def _left_out(x: np.ndarray, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance at each example of all models but j, for each j: (N, n) and (N, n) or (N, 1)."""
    models = len(x)
    away = x - x.mean(0)
    mean = x.mean(0) - away / (models - 1)
    squares = np.maximum((away**2).sum(0) - away**2 * (models / (models - 1)), 0.0)
    shared = squares.mean(1, keepdims=True) / (models - 2)
    values = shared if variance == "shared" else np.maximum(squares / (models - 2), OWN_VARIANCE_FLOOR * shared)
    return mean, np.maximum(values, 1e-12)


def ulira(
    unlearned: Any,
    retrained: Any,
    *,
    variance: str | None = None,
    fpr: float = 0.01,
    generator: np.random.Generator | None = None,
    resamples: int = 200,
    level: float = 0.95,
) -> ULira:
    """Accuracy and TPR at a low FPR of the likelihood-ratio attack between unlearned and retrained models.

    Args:
        unlearned, retrained, variance: as :func:`ulira_scores`.
        fpr: the false-positive rate allowed, over all (model, example) pairs of retrained models.
        generator: for the bootstrap interval of the TPR; without it that interval has no ends.

    Shapes:
        unlearned (N, n), retrained (N, n).

    Formal guarantee: none; a lower bound on what an adversary can do. Under the null of :func:`ulira_scores` the
    expected accuracy is exactly 0.5. The 95 % interval of the accuracy then covered 0.5 in 95 % of simulations with
    independent confidences, and in about 80 % where half of a model's variance was a shift common to all examples: fits
    share models, which no interval here accounts for.

    Raises:
        InputError: as :func:`ulira_scores`, or fewer than two resamples.
    """
    if resamples < 2:
        raise InputError(f"Expected at least 2 resamples; got {resamples}.")
    score_u, score_r = ulira_scores(unlearned, retrained, variance=variance)
    right_u, right_r = ((np.sign(s) + 1) / 2 for s in (score_u, -score_r))
    examples = (right_u.mean(0) + right_r.mean(0)) / 2
    over_examples = mean_interval(examples, level)
    error = float(np.sqrt(sum(right.mean(1).var(ddof=1) for right in (right_u, right_r)) / len(score_u)) / 2)
    half = float(special.stdtrit(2 * len(score_u) - 2, (1 + level) / 2)) * error
    over_models = Interval(over_examples.value, over_examples.value - half, over_examples.value + half, error, level)
    accuracy = max(over_examples, over_models, key=lambda interval: interval.high - interval.low)
    accuracy = Interval(accuracy.value, max(0.0, accuracy.low), min(1.0, accuracy.high), accuracy.error, level)
    return ULira(
        accuracy,
        _rate(score_u, score_r, fpr, generator, resamples, level),
        auc(score_u.ravel(), score_r.ravel()),
        examples,
        len(score_u),
    )


def _rate(
    above: np.ndarray,
    below: np.ndarray,
    fpr: float,
    generator: np.random.Generator | None,
    resamples: int,
    level: float,
) -> Interval:
    """TPR at ``fpr``; the bootstrap draws examples with all their models, and sorts only once."""
    value = tpr_at_fpr(above.ravel(), below.ravel(), fpr)
    if generator is None:
        return Interval(value, -np.inf, np.inf, None, level)
    models, n = below.shape
    order = np.argsort(-below, axis=None)
    falling, example = below.ravel()[order], order % n
    ordered = np.sort(above, axis=0)
    allowed = int(np.floor(fpr * models * n + 1e-9))
    drawn = np.empty(resamples)
    for resample in range(resamples):
        weight = np.bincount(generator.integers(n, size=n), minlength=n)
        first = int(np.searchsorted(np.cumsum(weight[example]), allowed, side="right"))  # the first that may not pass
        found = (ordered > falling[first]).sum(0) if first < falling.size else np.full(n, models)
        drawn[resample] = (found * weight).sum() / (models * n)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), float(drawn.std(ddof=1)), level)
