"""Which nodes lie within so many hops of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from expunge.data.graphs.graph import Graph


def within(graph: Graph, ids: np.ndarray, hops: int) -> np.ndarray:
    """Nodes of ``graph`` at most ``hops`` edges away from one of ``ids``, (n,) bool; ids that are not there count for nothing."""
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
