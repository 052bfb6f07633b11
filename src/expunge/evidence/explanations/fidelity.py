"""How alike two models answer, node by node: shares of equal answers, and distances of logits.

Two models can be equally accurate and answer differently on many nodes. Both numbers describe and decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def agreement(logits: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Share of nodes, in percent, for which a model answers with the class that another one answers with; mean over ``others``.

    Shapes:
        logits and each of ``others`` (n, classes).
    """
    mine = logits.argmax(1)
    return 100 * float(np.mean([(mine == each.argmax(1)).mean() for each in others]))


def logit_distance(logits: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Mean over nodes and ``others`` of the Euclidean distance of logits, each with the mean over classes taken off.

    A constant on all logits of a node changes no probability, and counts for nothing here.

    Shapes:
        logits and each of ``others`` (n, classes).
    """

    def centred(values: np.ndarray) -> np.ndarray:
        return values - values.mean(1, keepdims=True)

    mine = centred(logits)
    return float(np.mean([np.linalg.norm(mine - centred(each), axis=1).mean() for each in others]))
