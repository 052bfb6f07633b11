"""The five metrics of "Forget and Explain" (Ahsan et al., arXiv 2512.07450) as its released code of September 2025 has them.

They are kept so that its tables can be compared with, and they decide nothing here: nodes are counted anew after a deletion, so
that several of them compare one node with another, and all of them read a model on the graph after the deletion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from expunge.core.data import Ids
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.reach import within

DEPTH, SEED = 3, 42  # of the trees that rules are read from (released code)


def heatmap_shift(before: np.ndarray, after: np.ndarray) -> float:
    """HS: mean of |before - after| over the first min(n) positions, nodes of the smaller graph counted anew.

    >>> heatmap_shift(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0]))
    0.5
    """
    n = min(len(before), len(after))
    return float(np.abs(before[:n] - after[:n]).mean())


def score_deviation(before: np.ndarray, after: np.ndarray, forgotten: np.ndarray) -> float:
    """ESD: mean over forgotten positions of |before - after|, both read at the old position, 0 beyond the end.

    Shapes:
        before (n,), after (m,), forgotten (k,) positions before the deletion.
    """
    if not len(forgotten):
        return 0.0
    inside = forgotten < len(after)
    then = np.where(inside, after[np.minimum(forgotten, len(after) - 1)], 0.0)
    return float(np.abs(before[forgotten] - then).mean())


def edit_distance(before: Graph, after: Graph, ids: Ids) -> int:
    """GED: size of the symmetric difference of two edge sets, each the union of two-hop neighbourhoods, by position.

    Before: around what is forgotten. After: around the neighbours that are left of it, where nodes went; else around the same.
    """
    named = before.named_by(ids)
    centres = named
    if len(ids["node"]):
        near = before.nodes[within(before, ids["node"], 1)]
        centres = near[after.has(near)]
    first, second = _around(before, named), _around(after, centres)
    return len(np.setxor1d(first, second))


def _around(graph: Graph, centres: np.ndarray) -> np.ndarray:
    """Edges within two hops of any centre, as pairs of positions."""
    found = [np.empty(0, dtype=np.int64)]
    for centre in centres:
        ball = within(graph, np.array([centre]), 2)
        inside = graph.ends[ball[graph.ends].all(1)]
        found.append(names.of_edges(inside))
    return np.unique(np.concatenate(found))


def rules(x: sparse.csr_array, predicted: np.ndarray) -> set[str]:
    """Root-to-leaf paths of a tree of depth 3 from raw features to the predicted class, as texts.

    The released code calls them GraphChef's rules; GraphChef (ICLR 2024) is another thing. Features stay compressed.
    """
    from sklearn.tree import DecisionTreeClassifier, export_text

    columns = sparse.csc_matrix(x)
    columns.indices, columns.indptr = (
        columns.indices.astype(np.int32),
        columns.indptr.astype(np.int32),
    )  # all that trees take
    tree = DecisionTreeClassifier(max_depth=DEPTH, random_state=SEED).fit(columns, predicted)
    stack: list[str] = []
    found: set[str] = set()
    for line in export_text(tree, decimals=4).splitlines():
        depth = line.count("|   ")
        text = re.sub(r"[|\s-]", "", line.split("--- ", 1)[1]).lower()
        stack = [*stack[:depth], text]
        if text.startswith("class:"):
            found.add("and".join(stack))
    return found


def rule_shift(before: set[str], after: set[str]) -> int:
    """RS: how many rules vanished."""
    return len(before - after)


def train_membership(confidence: np.ndarray, trained: np.ndarray) -> dict[str, float]:
    """The "graph-wide" membership block: area under the curve and TPR - FPR of confidence, training nodes against all others.

    The advantage is at the threshold, among 101 quantiles, with the best accuracy.

    Shapes:
        confidence (n,) of the true class, trained (n,) bool.
    """
    return _block(confidence[trained], confidence[~trained])


def forget_membership(confidence: np.ndarray, forgotten: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """The "forget against shadow" block on equally many forgotten and untrained nodes; NaN where the forgotten ones are gone.

    Shapes:
        confidence (n,), forgotten (k,) and others (l,) positions.
    """
    return _block(confidence[forgotten], confidence[others])


def _block(positives: Sequence[float] | np.ndarray, negatives: Sequence[float] | np.ndarray) -> dict[str, float]:
    from expunge.metrics.intervals import auc_interval

    inside, outside = np.asarray(positives, dtype=float), np.asarray(negatives, dtype=float)
    if not len(inside) or not len(outside):
        return {"auc": float("nan"), "advantage": float("nan")}
    best, advantage = -1.0, 0.0
    for threshold in np.quantile(np.concatenate([inside, outside]), np.linspace(0, 1, 101)):
        hits, alarms = (inside >= threshold).mean(), (outside >= threshold).mean()
        accuracy = (hits * len(inside) + (1 - alarms) * len(outside)) / (len(inside) + len(outside))
        if accuracy > best:
            best, advantage = accuracy, float(hits - alarms)
    return {"auc": auc_interval(inside, outside).value, "advantage": advantage}
