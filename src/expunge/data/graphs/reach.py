"""How far a deletion reaches: which nodes lie within so many hops of what goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expunge.core.data import Ids
from expunge.data.graphs import names

if TYPE_CHECKING:
    from expunge.data.graphs.graph import Graph


def within(graph: Graph, ids: np.ndarray, hops: int) -> np.ndarray:
    """Nodes of ``graph`` at most ``hops`` edges away from one of ``ids``, (n,) bool; others of ``ids`` count for nothing."""
    reached = np.zeros(len(graph.nodes), dtype=bool)
    here = np.unique(ids)
    front = graph.positions(here[graph.has(here)])
    reached[front] = True
    adjacency = graph.adjacency
    for _ in range(hops):
        if not len(front):
            break
        starts, stops = adjacency.indptr[front], adjacency.indptr[front + 1]
        neighbours = np.concatenate([adjacency.indices[a:b] for a, b in zip(starts, stops, strict=True)])
        front = np.unique(neighbours[~reached[neighbours]])
        reached[front] = True
    return reached


def radius(kind: str, depth: int, symmetric: bool) -> int:
    """The largest distance at which what a model gathers over ``depth`` hops can change when something goes. Derived here.

    Distance is from the node, from the nearer end of an edge, or from the node of a feature. Where messages are scaled by the
    degrees at both ends (``symmetric``), a neighbour whose degree changed sends something else one hop further.

    >>> [radius("node", 2, True), radius("node", 2, False), radius("edge", 2, True), radius("edge", 2, False)]
    [3, 2, 2, 1]
    """
    if kind == "node":
        return depth + symmetric
    return depth if symmetric or kind == "feature" else depth - 1


def affected(graph: Graph, ids: Ids, depth: int, symmetric: bool) -> np.ndarray:
    """Nodes whose prediction can change when ``ids`` go, whatever the weights are, (n,) bool; those that go are among them."""
    near = within(graph, ids["node"], radius("node", depth, symmetric))
    near |= within(graph, names.edges(ids["edge"]).ravel(), radius("edge", depth, symmetric))
    return near | within(graph, names.apart(ids["feature"])[0], radius("feature", depth, symmetric))
