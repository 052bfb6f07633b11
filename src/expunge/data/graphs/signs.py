"""What nodes, edges and features are known by in other graphs, where their ids may be others.

A node is known by its name where the file names its nodes, else by its features and its label: nodes that are equal in both are
not told apart. An edge is known by its ends, and a feature by its node and its column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expunge.core.digest import digest_arrays
from expunge.data.graphs import names

if TYPE_CHECKING:
    from expunge.data.graphs.graph import Graph

UNITS = ("node", "edge", "feature")


def of_nodes(graph: Graph) -> list[str]:
    """A text for each node, in the order of ``graph.nodes``."""
    if graph.called is not None:
        return [f"called {name}" for name in graph.called.tolist()]
    x = graph.x
    return [
        digest_arrays({"columns": x.indices[a:b].astype(np.int64), "x": x.data[a:b], "y": graph.y[i : i + 1]})
        for i, (a, b) in enumerate(zip(x.indptr[:-1], x.indptr[1:], strict=True))
    ]


def signs(graph: Graph, unit: str) -> tuple[np.ndarray, list[str]]:
    """Ids of all nodes, edges or features of the graph, and of each what it is known by."""
    own = of_nodes(graph)
    if unit == "node":
        return graph.nodes, own
    if unit == "edge":
        texts = ["|".join(sorted((own[first], own[second]))) for first, second in graph.ends.tolist()]
        return names.of_edges(graph.edges), texts
    filled = graph.x.tocoo()
    ids = names.joined(graph.nodes[filled.row], filled.col)
    return ids, [f"{own[row]}|{column}" for row, column in zip(filled.row.tolist(), filled.col.tolist(), strict=True)]
