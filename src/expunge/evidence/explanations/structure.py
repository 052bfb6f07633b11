"""What the deletion did to the graph, by persistent ids: known exactly, whatever the weights are. Derived here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expunge.core.data import Deletion
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import graph_of


@dataclass(frozen=True)
class Structure:
    """What differs between two graphs, in numbers of nodes, edges and stored features, and what a request lets one expect.

    Attributes:
        nodes, edges, features: in one of the two graphs and not in the other; features of nodes that are in both.
        expected_nodes, expected_edges, expected_features: what went by the request.
    """

    nodes: int
    edges: int
    features: int
    expected_nodes: int
    expected_edges: int
    expected_features: int

    @property
    def distance(self) -> int:
        """Edit distance at unit cost: since nodes are known by name, it is the symmetric difference of nodes and edges."""
        return self.nodes + self.edges

    @property
    def as_asked(self) -> bool:
        """Whether exactly what the request names went."""
        return (self.nodes, self.edges, self.features) == (
            self.expected_nodes, self.expected_edges, self.expected_features
        )  # fmt: skip


def structure(deletion: Deletion) -> Structure:
    """Of ``deletion``: graphs before and after."""
    before, after = graph_of(deletion.before), graph_of(deletion.after)
    ids = deletion.ids
    edges = names.of_edges(before.edges)
    incident = edges[np.isin(before.edges, ids["node"]).any(1)]
    nodes, _ = names.apart(ids["feature"])
    return Structure(
        nodes=len(np.setxor1d(before.nodes, after.nodes)),
        edges=len(np.setxor1d(edges, names.of_edges(after.edges))),
        features=_changed(before, after),
        expected_nodes=len(ids["node"]),
        expected_edges=len(np.union1d(incident, np.intersect1d(ids["edge"], edges))),
        expected_features=int((~np.isin(nodes, ids["node"])).sum()),
    )


def _changed(before: Graph, after: Graph) -> int:
    both = np.intersect1d(before.nodes, after.nodes)
    first, second = before.x[before.positions(both)], after.x[after.positions(both)]
    return int((first != second).nnz)
