"""Membership inference: how well do scores tell rows a model was trained on from rows it never saw?

Scores in, numbers out, in NumPy. Larger scores mean "more likely a member"; ties count one half. An attack on an
unlearned model means something only beside the same attack on a retrained one, which need not score 0.5 (one scores 0.81 in
Table 3 of R2D, arXiv 2409.09778).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from expunge.core.errors import InputError
from expunge.metrics.intervals import checked_scores, placements

# From this many shadow models on, a variance per record pays off; below, one shared variance does (Carlini et al. 2022).
REFERENCES_FOR_OWN_VARIANCE = 64
OWN_VARIANCE_FLOOR = (
    0.01  # of the shared variance: a record whose shadow models agree by chance is not infinitely certain
)


def auc(positives: Any, negatives: Any) -> float:
    """Probability that a random positive scores above a random negative, ties one half.

    Shapes:
        (m,), (n,).

    Raises:
        InputError: on empty or NaN scores.
    """
    return float(np.clip(placements(positives, negatives)[0].mean(), 0.0, 1.0))


def tpr_at_fpr(positives: Any, negatives: Any, fpr: float) -> float:
    """Share of positives above the lowest threshold that lets at most ``fpr`` of the negatives pass.

    No interpolation between thresholds: with fewer than 1 / ``fpr`` negatives none may pass.

    Shapes:
        (m,), (n,).

    Raises:
        InputError: on empty or NaN scores, or a rate outside [0, 1].
    """
    above, below = checked_scores(positives, "positives"), checked_scores(negatives, "negatives")
    if not 0 <= fpr <= 1:
        raise InputError(f"Expected a false-positive rate between 0 and 1; got {fpr}.")
    allowed = int(np.floor(fpr * len(below) + 1e-9))
    if allowed >= len(below):
        return 1.0
    return float((above > np.sort(below)[::-1][allowed]).mean())


def logit_confidence(losses: Any) -> np.ndarray:
    """log(p / (1 - p)) of the true class from its cross-entropy: nearly normal, unlike losses (Carlini et al. 2022).

    Computed as -loss - log(1 - exp(-loss)) without cancellation. A loss below the resolution of its type (its eps) is
    taken as that resolution, so that saturated rows stay finite: at most 15.9 from float32 losses, 36.0 from float64.

    Shapes:
        any → the same, float64.

    Raises:
        InputError: on NaN or losses that are clearly negative.
    """
    array = np.asarray(losses)
    eps = np.finfo(array.dtype if array.dtype.kind == "f" else np.float64).eps
    array = array.astype(np.float64)
    if np.isnan(array).any() or (array < -1e-3).any():
        raise InputError("Expected cross-entropy losses, 0 or above and without NaN.")
    array = np.maximum(array, float(eps))
    return -array - np.log(-np.expm1(-array))


def log_odds(logits: Any, labels: Any) -> np.ndarray:
    """log(p / (1 - p)) of class ``labels`` straight from logits: the label's logit against the log-sum of the others.

    More exact than :func:`logit_confidence` where p is near 1.

    Shapes:
        logits (..., n, classes), labels (n,) whole numbers → (..., n).

    Raises:
        InputError: with fewer than two classes, or a label without a logit.
    """
    scores, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if scores.ndim < 2 or scores.shape[-1] < 2 or labels.shape != (scores.shape[-2],):
        raise InputError(
            f"Expected logits (..., rows, at least 2 classes), labels (rows,); got {scores.shape} and {labels.shape}."
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < scores.shape[-1]:
        raise InputError(
            f"Expected labels from 0 to {scores.shape[-1] - 1}; they reach from {labels.min()} to {labels.max()}."
        )
    own = np.arange(scores.shape[-1]) == labels[:, None]  # (n, classes)
    others: np.ndarray = np.asarray(special.logsumexp(np.where(own, -np.inf, scores), axis=-1))
    return scores[..., own] - others


def lira_scores(
    target: Any, scores: Any, members: Any, *, online: bool = True, variance: str | None = None
) -> np.ndarray:
    """The likelihood-ratio attack: each record against the shadow models that did and did not train on it.

    Online: log N(target; shadow models with the record) - log N(target; shadow models without). Offline: the z-value of the
    target among shadow models without it, which orders records as the paper's 1 - P[Z > target] does.

    Args:
        target: score of each record under the attacked model, for example :func:`log_odds`.
        scores: the same under each reference.
        members: whether a reference was trained on the record.
        variance: ``shared`` (one for all records with, one without: pooled around each record's own mean), ``own``
            (each record its own, at least ``OWN_VARIANCE_FLOOR`` of the shared one), or by default ``own`` from 64
            shadow models on and ``shared`` below.

    Shapes:
        target (N,), scores (R, N), members (R, N) bool → (N,).

    Formal guarantee: none; a lower bound on what an adversary can do. Source: Carlini et al. 2022, section V.

    Raises:
        InputError: on shapes that disagree, scores that are not finite, or a record that lacks the shadow models needed.
    """
    target, scores, members = np.asarray(target, np.float64), np.asarray(scores, np.float64), np.asarray(members)
    if scores.ndim != 2 or members.shape != scores.shape or target.shape != scores.shape[1:]:
        raise InputError(
            f"Expected target (N,) and scores, members (R, N); got {target.shape}, {scores.shape}, {members.shape}."
        )
    if members.dtype != np.bool_:
        raise InputError(f"Expected members as a boolean matrix; got {members.dtype}.")
    if not (np.isfinite(target).all() and np.isfinite(scores).all()):
        raise InputError("Expected finite scores; use log_odds or logit_confidence, which stay finite.")
    if variance is None:
        variance = "own" if len(scores) >= REFERENCES_FOR_OWN_VARIANCE else "shared"
    if variance not in ("own", "shared"):
        raise InputError(f"Expected variance own or shared; got {variance!r}.")
    mean, spread = _normals(scores, ~members, variance, "without")
    deviation = (target - mean) / spread
    if not online:
        return deviation
    mean_in, spread_in = _normals(scores, members, variance, "with")
    return np.log(spread / spread_in) + deviation**2 / 2 - ((target - mean_in) / spread_in) ** 2 / 2


def _normals(scores: np.ndarray, chosen: np.ndarray, variance: str, word: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each record over its chosen shadow models, (N,) each."""
    counts = chosen.sum(0)
    least = 2 if variance == "own" else 1
    freedom = int((counts - 1).clip(0).sum())
    if counts.min(initial=least) < least or freedom < 1:
        raise InputError(
            f"Expected at least {least} shadow model(s) trained {word} each record, and more than one for some; record "
            f"{int(counts.argmin())} has {int(counts.min())}. Balance the membership, or train more shadow models."
        )
    mean = np.where(chosen, scores, 0.0).sum(0) / counts
    squares = np.where(chosen, scores - mean, 0.0) ** 2
    shared = squares.sum() / freedom
    values = np.full(scores.shape[1], shared)
    if variance == "own":
        values = np.maximum(squares.sum(0) / (counts - 1), OWN_VARIANCE_FLOOR * shared)
    return mean, np.sqrt(np.maximum(values, 1e-12))
