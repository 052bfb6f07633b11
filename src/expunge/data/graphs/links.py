"""A graph and pairs of its nodes, of which a model is to say whether an edge joins them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from expunge.core.data import Ids
from expunge.core.digest import digest_arrays, digest_json
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.core.trained import Fact
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.pairs import unlinked
from expunge.data.graphs.reach import affected


@dataclass(frozen=True, eq=False)
class Links:
    """Pairs that are joined and pairs that are not: training data, or a set to measure on. Ids and requests are the graph's.

    Shapes:
        pairs (k, 2) int64, ids of nodes, the smaller one first; joined (k,) bool.

    Attributes:
        graph: what a model reads.
    """

    graph: Graph
    pairs: np.ndarray
    joined: np.ndarray

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    @property
    def digest(self) -> str:
        """Content digest of the graph and the pairs."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_json([self.graph.digest, digest_arrays({"pairs": self.pairs, "joined": self.joined})])

    @property
    def preprocessing(self) -> Fact:
        """Whether preparing a node looked at others, and who says so."""
        return self.graph.preprocessing

    @property
    def depth(self) -> int | None:
        """Over how many hops the model gathers."""
        return self.graph.depth

    @property
    def label_count(self) -> int:
        """Two: apart and joined."""
        return 2

    def deep(self, depth: int | None) -> Links:
        """The same for a model that gathers over ``depth`` hops."""
        return replace(self, graph=replace(self.graph, depth=depth))

    def within(self, other: Links) -> Links:
        """These pairs, as far as both ends are there, on the graph of ``other``."""
        there = other.graph.has(self.pairs).all(1)
        return replace(self, graph=other.graph, pairs=self.pairs[there], joined=self.joined[there])

    def select(self, target: Target) -> Ids:
        """Ids of the nodes, edges or features that ``target`` names."""
        return self.graph.select(target)

    def unmatched(self, target: Target) -> tuple[str, ...]:
        """Each node, edge or feature that ``target`` names and that is not there, in words."""
        return self.graph.unmatched(target)

    @property
    def units(self) -> tuple[str, ...]:
        """What ids name: nodes, edges and features."""
        return self.graph.units

    def signs(self, unit: str) -> tuple[np.ndarray, list[str]]:
        """Ids and what each is known by in other graphs; see ``data.graphs.signs``."""
        return self.graph.signs(unit)

    def without(self, ids: Ids) -> Links:
        """The graph after ``ids`` went, and the pairs that are left: neither an edge that went nor one of a node that did."""
        gone = self._named(ids)
        return replace(self, graph=self.graph.without(ids), pairs=self.pairs[~gone], joined=self.joined[~gone])

    def only(self, ids: Ids) -> Links:
        """The same graph with the joined pairs that ``ids`` name: as edges, or by a node that goes or loses features."""
        nodes = np.union1d(ids["node"], names.apart(ids["feature"])[0])
        chosen = self.joined & (self._named(ids) | np.isin(self.pairs, nodes).any(1))
        return replace(self, pairs=self.pairs[chosen], joined=self.joined[chosen])

    def examples_in(self, ids: Ids) -> int:
        """How many pairs go with ``ids``."""
        return int(self._named(ids).sum())

    def touched(self, ids: Ids) -> Ids:
        """Retained edges whose prediction may change whatever the weights are: an end of them is reached."""
        graph = self.graph
        near = affected(graph, ids, len(graph.nodes) if graph.depth is None else graph.depth, True)
        stays = self.joined & ~self._named(ids)
        reached = near[graph.positions(self.pairs[stays])].any(1)
        return Ids({"edge": names.of_edges(self.pairs[stays][reached])})

    def _named(self, ids: Ids) -> np.ndarray:
        own = names.of_edges(self.pairs)
        return (self.joined & np.isin(own, ids["edge"])) | np.isin(self.pairs, ids["node"]).any(1)


def graph_of(data: Graph | Links) -> Graph:
    """The graph that a model reads."""
    return data.graph if isinstance(data, Links) else data


def split_links(graph: Graph, train: float, validation: float, seed: int) -> tuple[Links, dict[str, Links]]:
    """Random shares of the edges, each with as many pairs that nothing joins; what is in neither share is ``test``.

    A model reads the training edges alone. Pairs without an edge are drawn once, and none of them twice.

    Raises:
        InputError: unless both shares are above 0 and leave something to test on, or where nearly all nodes are joined.
    """
    count = len(graph.edges)
    first, second = round(train * count), round((train + validation) * count)
    if not 0 < first <= second < count:
        raise InputError(
            f"Expected shares of {count} edges that are above 0 and leave some to test on; got train {train} and validation "
            f"{validation}."
        )
    draw = np.random.default_rng(seed)
    order = draw.permutation(count)
    apart = graph.nodes[_different(graph, count, draw)]
    read = replace(graph, edges=graph.edges[np.sort(order[:first])])
    sets = {}
    for name, part in (("train", order[:first]), ("validation", order[first:second]), ("test", order[second:])):
        if len(part):
            edges = graph.edges[np.sort(part)]
            pairs = np.concatenate([edges, np.sort(apart[part], 1)])
            sets[name] = Links(read, pairs, np.arange(len(pairs)) < len(edges))
    return sets.pop("train"), sets


def _different(graph: Graph, count: int, draw: np.random.Generator) -> np.ndarray:
    """Pairs without an edge, no two of them equal, (count, 2) positions."""
    found = np.empty(0, dtype=np.int64)
    for _ in range(50):
        drawn = names.of_edges(unlinked(graph, count, draw))
        found = np.unique(np.concatenate([found, drawn]))
        if len(found) >= count:
            return names.edges(draw.permutation(found)[:count])
    raise InputError(
        f"Expected {count} different pairs without an edge; there are too few among {len(graph.nodes)} nodes."
    )
