"""Attacks on graph networks that look at posteriors alone. They describe and decide nothing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from expunge.metrics.intervals import Interval, auc_interval


def link_similarity(probabilities: np.ndarray, linked: np.ndarray, unlinked: np.ndarray) -> Interval:
    """Area under the curve of the correlation of both ends' posteriors, pairs with an edge against pairs without.

    A retrained model is far from .5 as well: neighbours are alike whatever it was trained on.

    Shapes:
        probabilities (n, classes); linked (k, 2), unlinked (l, 2): positions.

    Source: link stealing without any background knowledge, attack 0 of He et al. 2021 (arXiv 2005.02131).
    """
    centred = probabilities - probabilities.mean(1, keepdims=True)
    length = np.maximum(np.linalg.norm(centred, axis=1), np.finfo(float).tiny)

    def likeness(pairs: np.ndarray) -> np.ndarray:
        first, second = pairs.T
        return (centred[first] * centred[second]).sum(1) / (length[first] * length[second])

    return auc_interval(likeness(linked), likeness(unlinked))


def link_stealing(
    probabilities: np.ndarray, known: tuple[np.ndarray, np.ndarray], linked: np.ndarray, unlinked: np.ndarray,
    trend: np.ndarray | None = None, seed: int = 0,
) -> Interval:  # fmt: skip
    """Area under the curve of an attacker who knows some pairs with an edge and some without, and learns to tell them apart.

    A retrained model is far from .5 as well where neighbours are alike.

    Args:
        known: pairs with an edge and pairs without, of which the attacker knows which they are.
        linked, unlinked: the pairs in question.
        trend: further numbers of each node, :func:`confidence_trend` for TrendAttack.
        seed: of the attacker's classifier, a perceptron with one hidden layer of 32 (our choice).

    Shapes:
        probabilities (n, classes), trend (n, k); all pairs (m, 2): positions.

    Source: attack 3 of He et al. 2021 (arXiv 2005.02131), which knows a part of the edges; features as there, eight distances
    between the posteriors and four ways to put their entropies together. With ``trend``: TrendAttack (Zhang et al. 2025, arXiv
    2506.00808), whose thresholds for deleted and other edges the classifier learns here.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    def features(pairs: np.ndarray) -> np.ndarray:
        return _pair_features(
            probabilities[pairs[:, 0]], probabilities[pairs[:, 1]], None if trend is None else trend[pairs]
        )

    scaled = StandardScaler()
    x = scaled.fit_transform(np.concatenate([features(pairs) for pairs in known]))
    model = MLPClassifier((32,), alpha=1e-3, max_iter=_ATTACKER_EPOCHS, early_stopping=True, random_state=seed)
    with warnings.catch_warnings():  # an attacker who stops after the last epoch has learnt what it has
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, np.arange(len(x)) < len(known[0]))
    likely: list[Any] = [model.predict_proba(scaled.transform(features(pairs))) for pairs in (linked, unlinked)]
    return auc_interval(likely[0][:, 1], likely[1][:, 1])


_ATTACKER_EPOCHS = 300  # at most; it stops early by a tenth of its own pairs


def _pair_features(p: np.ndarray, q: np.ndarray, trend: np.ndarray | None) -> np.ndarray:
    """(pairs, 12 or more): distances and entropies of both ends, the same whichever end is named first."""
    tiny: Any = np.finfo(float).tiny
    gap = np.abs(p - q)

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 1 - (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), tiny)

    one, other = (-(each * np.log(np.maximum(each, tiny))).sum(1) for each in (p, q))
    found = [
        apart(p, q), apart(p - p.mean(1, keepdims=True), q - q.mean(1, keepdims=True)), np.linalg.norm(gap, axis=1),
        (gap**2).sum(1), gap.max(1), gap.sum(1), gap.sum(1) / (p + q).sum(1), (gap / np.maximum(p + q, tiny)).sum(1),
        (one + other) / 2, np.abs(one - other), one * other, one**2 + other**2,
    ]  # fmt: skip
    if trend is not None:  # (pairs, 2, k)
        found += [*trend.sum(1).T, *np.abs(trend[:, 0] - trend[:, 1]).T]
    return np.stack(found, 1)


def confidence_trend(probabilities: np.ndarray, adjacency: Any, orders: int = 2) -> np.ndarray:
    """By how much the confidence of a node's neighbours exceeds its own, and that of theirs exceeds theirs, (n, orders).

    Ends of deleted edges are said to dip: TrendAttack (arXiv 2506.00808).

    Shapes:
        probabilities (n, classes); adjacency (n, n) sparse, of the graph without what was deleted.
    """
    counts = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)
    level, found = probabilities.max(1), []
    for _ in range(orders):
        further = (adjacency @ level) / counts
        found.append(further - level)
        level = further
    return np.stack(found, 1)


def update_detection(before: np.ndarray, after: np.ndarray, deleted: np.ndarray) -> Interval:
    """Area under the curve of how far posteriors moved, deleted nodes against all others.

    It tells whether an update was about these nodes, from both models; it is no membership inference, though some benchmarks
    call it that. Derived here in this form.

    Shapes:
        before, after (n, classes), deleted (n,) bool.
    """
    moved = np.linalg.norm(before - after, axis=1)
    return auc_interval(moved[deleted], moved[~deleted])
