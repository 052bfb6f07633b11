"""How much of what training on deleted edges does to the answers on them a model still has, edge by edge.

Derived here. Mean loss and membership of deleted edges scatter among retrained models by how sure each of them is of edges at
all, which moves edges together. What training on an edge does differs from edge to edge: it is large where nothing else in the
graph speaks for the edge. That pattern is read off models that were trained on everything, from seeds of their own: the
original is not among them, so that what it owes to its own seed alone counts for nothing. A model is placed by Fisher's linear
discriminant (1936), with half of the retrained models' covariance replaced by a multiple of the identity of the same trace, our
choice, since there are more edges than models.

Formal guarantee: none of its own; what stands in ``metrics.prediction_band``.
"""

from __future__ import annotations

import numpy as np

KEPT = "replay_kept"
KNOWING = 12  # models that are trained on everything; measured with as many (docs/graphs.md)
SHRUNK = 0.5  # weight of the identity; our choice


def shares_kept(known: np.ndarray, retrained: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Places of models on the way from retrained ones, 0, to those that were trained on everything, 1; in shares of the way.

    With m and C the mean and the shrunk covariance of scores over retrained models, and o the mean over models that know
    everything, a model of scores s stands at w'(s - m) / w'(o - m), w = C⁻¹ (o - m). A retrained model's place is taken on
    m and C of the others, as if it were one more.

    Args:
        known: mean score of each forgotten example over models that were trained on everything, (k,); scores are log-odds of
            an example's own class.
        retrained: scores by n retrained models, (n, k).
        others: by models to be placed, (j, k).

    Returns:
        Places of the retrained models (n,) and of the others (j,); ``None`` for fewer than three retrained models, for no
        score, and where training on the examples changes nothing.
    """
    if len(retrained) < 3 or not len(known):
        return None
    among = [_placed(known, np.delete(retrained, i, 0), retrained[i : i + 1]) for i in range(len(retrained))]
    found = [each for each in (*among, _placed(known, retrained, others)) if each is not None]
    return (np.concatenate(found[:-1]), found[-1]) if len(found) == len(retrained) + 1 else None


def _placed(known: np.ndarray, retrained: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    mean = retrained.mean(0)
    way, spread = known - mean, (retrained - mean) / (len(retrained) - 1) ** 0.5
    identity = SHRUNK * float((spread**2).sum()) / len(way)
    if not identity:  # all retrained models are the same
        weights = way
    else:  # the inverse of identity + (1 - shrunk) spread' spread, by Woodbury's formula
        small = np.eye(len(spread)) * identity / (1 - SHRUNK) + spread @ spread.T
        weights = (way - spread.T @ np.linalg.solve(small, spread @ way)) / identity
    whole = float(weights @ way)
    return (others - mean) @ weights / whole if whole > 0 else None
