"""A part of the graph around what a request names that is small enough to be drawn. Derived here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expunge.core.data import Deletion
from expunge.data.graphs import names
from expunge.data.graphs.links import graph_of
from expunge.data.graphs.reach import within

CENTRES, MOST = 5, 60  # nodes that are named, and all nodes of a drawing; our choice: what a page shows legibly


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Some nodes of the graph as it was and the edges between them.

    Attributes:
        places: of the nodes in ``graph.nodes``, (k,).
        named: whether the request names a node, by itself, as an end of an edge or by its features, (k,) bool.
        gone: whether a node went, (k,) bool.
        edges: positions in ``places``, (m, 2). cut: whether an edge went, (m,) bool.
        centres, of: how many named nodes it was drawn around, of how many.
    """

    places: np.ndarray
    named: np.ndarray
    gone: np.ndarray
    edges: np.ndarray
    cut: np.ndarray
    centres: int
    of: int


def neighbourhood(deletion: Deletion, weight: np.ndarray, centres: int = CENTRES, most: int = MOST) -> Neighbourhood:
    """Around the heaviest nodes that the request names: with their neighbours, then those of these, the heaviest first.

    Args:
        weight: of every node of the graph as it was, (n,), for example its attribution.
    """
    graph = graph_of(deletion.before)
    ids = deletion.ids
    named = graph.positions(graph.named_by(ids))
    chosen = named[np.argsort(-weight[named], kind="stable")][:centres]
    places = chosen
    for hops in (1, 2):
        ring = np.setdiff1d(np.flatnonzero(within(graph, graph.nodes[chosen], hops)), places)
        heaviest = ring[np.argsort(-weight[ring], kind="stable")][: most - len(places)]
        places = np.concatenate([places, heaviest])
    inside = np.isin(graph.ends, places).all(1)
    order = np.argsort(places)
    edges = order[np.searchsorted(places, graph.ends[inside], sorter=order)]
    gone = np.isin(graph.nodes[places], ids["node"])
    cut = gone[edges].any(1) | np.isin(names.of_edges(graph.edges[inside]), ids["edge"])
    return Neighbourhood(places, np.isin(places, named), gone, edges, cut, len(chosen), len(named))
