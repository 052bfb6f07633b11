"""Two attacks on graph networks that look at posteriors alone. They describe and decide nothing."""

from __future__ import annotations

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


def update_detection(before: np.ndarray, after: np.ndarray, deleted: np.ndarray) -> Interval:
    """Area under the curve of how far posteriors moved, deleted nodes against all others.

    It tells whether an update was about these nodes, from both models; it is no membership inference, though some benchmarks
    call it that. Derived here in this form.

    Shapes:
        before, after (n, classes), deleted (n,) bool.
    """
    moved = np.linalg.norm(before - after, axis=1)
    return auc_interval(moved[deleted], moved[~deleted])
