"""Membership attacks as R2D's experiments run them: a logistic regression, balanced by undersampling, scored on held-out folds.

Source: Section 5 and the appendix on experiments of R2D (Mu and Klabjan 2025, arXiv 2409.09778); the distance of outputs is the
attack of Chen et al. 2021 (arXiv 2005.02205), which the paper calls MIA-U.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from expunge.core.errors import InputError
from expunge.metrics.intervals import checked_scores
from expunge.metrics.membership import auc

FOLDS = 5  # as published
RESAMPLINGS = (
    20  # of the larger side; the paper draws 100 times and splits ten times: the mean moves by less than its spread
)


@dataclass(frozen=True)
class FoldedAuc:
    """An attack's mean AUC over folds and resamplings, the standard deviation over folds, and rows on either side."""

    mean: float
    std: float
    rows: int


def folded_auc(members: Any, nonmembers: Any, *, seed: int = 0, resamplings: int = RESAMPLINGS) -> FoldedAuc:
    """How well one number of each row tells forgotten rows from rows that were never trained on.

    Args:
        members: the number for forgotten rows, for example the loss. nonmembers: for held-out rows.
        seed: of undersampling and folds.
        resamplings: how often the larger side is drawn down to the size of the smaller one.

    Shapes:
        members (m,), nonmembers (n,).

    Formal guarantee: none. It can be below one half, and a retrained model need not score one half: with the distance of
    outputs the paper's scores .81.

    Raises:
        InputError: for numbers that are not finite, or fewer rows on one side than folds.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and not every reader of numbers attacks
    from sklearn.model_selection import StratifiedKFold

    sides = checked_scores(members, "members"), checked_scores(nonmembers, "nonmembers")
    rows = min(map(len, sides))
    if rows < FOLDS:
        raise InputError(f"The attack splits either side into {FOLDS} folds; one side has {rows} rows.")
    draw = np.random.default_rng(seed)
    labels, scores = np.repeat([1, 0], rows), list[float]()
    for number in range(resamplings):
        x = np.concatenate([draw.choice(side, rows, replace=False) for side in sides])[:, None]
        x = (x - x.mean()) / (x.std() or 1.0)
        for fit, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed + number).split(x, labels):
            attack = LogisticRegression().fit(x[fit], labels[fit])
            found = attack.decision_function(x[held])
            scores.append(auc(found[labels[held] == 1], found[labels[held] == 0]))
    return FoldedAuc(float(np.mean(scores)), float(np.std(scores)), rows)


def moved(before: Any, after: Any) -> np.ndarray:
    """How far each row's probabilities moved from one model to the other: Euclidean distance, 0 to √2.

    Shapes:
        before, after: logits (n, classes); returns (n,).

    Raises:
        InputError: if the shapes differ.
    """
    one, other = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if one.shape != other.shape or one.ndim != 2:
        raise InputError(
            f"Expected logits of two models in one shape (rows, classes); got {one.shape} and {other.shape}."
        )
    return np.linalg.norm(softmax(one, 1) - softmax(other, 1), axis=1)


def mean_class_auc(logits: Any, labels: Any) -> float | None:
    """One class against the rest by its probability, averaged over the classes among ``labels``.

    Shapes:
        logits (n, classes), labels (n,).

    Returns:
        ``None`` where all rows are of one class: there is no rest.
    """
    shares, y = softmax(np.asarray(logits, np.float64), 1), np.asarray(labels)
    there = np.unique(y)
    if len(there) < 2:
        return None
    return float(np.mean([auc(shares[y == label, label], shares[y != label, label]) for label in there]))
