"""Random pairs of nodes without an edge between them."""

from __future__ import annotations

import numpy as np

from expunge.core.errors import InputError
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph

_ROUNDS = 50  # of drawing again what fell on an edge; ours


def unlinked(graph: Graph, count: int, draw: np.random.Generator) -> np.ndarray:
    """``count`` pairs of two different nodes that no edge joins, drawn uniformly; a pair may come twice.

    Shapes:
        → (count, 2) positions in ``graph.nodes``.

    Raises:
        InputError: where nearly all nodes are joined.
    """
    linked = names.of_edges(graph.ends)
    found = np.empty((0, 2), dtype=np.int64)
    for _ in range(_ROUNDS):
        if len(found) >= count:
            return found[:count]
        drawn = draw.integers(0, len(graph.nodes), (2 * (count - len(found)) + 8, 2))
        apart = (drawn[:, 0] != drawn[:, 1]) & ~np.isin(names.of_edges(drawn), linked)
        found = np.concatenate([found, drawn[apart]])
    raise InputError(
        f"Expected {count} pairs of nodes without an edge; nearly all of {len(graph.nodes)} nodes are joined."
    )
