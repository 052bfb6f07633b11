"""Who may talk to whom: an undirected, connected graph of named peers, and what is left of it when some leave."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx
import numpy as np

from expunge.core.errors import InputError, RefusedError

KINDS = ("ring", "grid", "complete", "erdos_renyi")
_TRIES = 100  # graphs drawn until one is connected; below the threshold ln(n)/n hardly any is


@dataclass(frozen=True)
class Topology:
    """An undirected graph of peers, connected.

    Attributes:
        peers: their names, in the order in which models are stacked.
        edges: pairs of positions in ``peers``, each once, smaller first.

    Raises:
        InputError: for no peer, names that repeat, edges that lead nowhere or to the peer itself, or a graph in several parts.
    """

    peers: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self):
        count = len(self.peers)
        if not count:
            raise InputError("Expected at least one peer; the network has none.")
        if len({*self.peers}) < count:
            raise InputError("Expected peers of different names; some repeat.")
        if bad := [edge for edge in self.edges if not 0 <= edge[0] < edge[1] < count]:
            raise InputError(f"Expected edges between two of {count} peers, smaller position first; got {bad[0]}.")
        object.__setattr__(self, "edges", tuple(sorted({*self.edges})))
        if len(parts := self.parts()) > 1:
            raise InputError(
                f"Expected a connected network; it falls into {len(parts)} parts, for example {_shown(parts[-1])} apart from "
                f"{_shown(parts[0])}. Add an edge between them: what no path joins cannot learn from each other."
            )

    @classmethod
    def make(
        cls, kind: str, peers: Sequence[str], *, probability: float = 0.4, seed: int = 0, columns: int | None = None
    ) -> Topology:
        """A graph of one of :data:`KINDS` on ``peers``.

        Args:
            kind: ``ring``, ``grid``, ``complete`` or ``erdos_renyi``.
            peers: their names in order.
            probability: of each edge, for ``erdos_renyi``; 0.4 as an example, the paper's is UNKNOWN.
            seed: for ``erdos_renyi``: graphs are drawn until one is connected.
            columns: of a ``grid``; where not given, those that make it as square as the number of peers allows.

        Raises:
            InputError: for an unknown kind, columns that do not divide the peers, or no connected graph among many drawn.
        """
        count = len(peers)
        if kind == "ring":
            graph = networkx.cycle_graph(count) if count > 2 else networkx.path_graph(count)
        elif kind == "complete":
            graph = networkx.complete_graph(count)
        elif kind == "grid":
            rows = max(k for k in range(1, int(count**0.5) + 1) if count % k == 0)
            columns = columns or count // rows
            if not 1 <= columns <= count or count % columns:
                raise InputError(f"Expected a number of columns that divides {count} peers; got {columns}.")
            grid = networkx.grid_2d_graph(count // columns, columns)
            graph = networkx.convert_node_labels_to_integers(grid, ordering="sorted")
        elif kind == "erdos_renyi":
            if not 0 < probability <= 1:
                raise InputError(f"Expected an edge probability in (0, 1]; got {probability}.")
            drawn = (networkx.fast_gnp_random_graph(count, probability, seed=seed * _TRIES + i) for i in range(_TRIES))
            graph = next((each for each in drawn if networkx.is_connected(each)), None)
            if graph is None:
                raise InputError(
                    f"No connected graph of {count} peers was among {_TRIES} drawn with edge probability {probability}. Take "
                    f"one well above ln(n)/n = {np.log(max(count, 2)) / max(count, 2):.3g}."
                )
        else:
            raise InputError(f"Expected a topology among {', '.join(KINDS)}; got {kind!r}.")
        return cls.of(graph, peers)

    @classmethod
    def of(cls, graph: Any, peers: Sequence[str] | None = None) -> Topology:
        """Any undirected ``networkx`` graph; ``peers`` names its nodes in order, else they are called as in the graph.

        Raises:
            InputError: for a directed graph, or names that are not as many as the nodes.
        """
        if graph.is_directed():
            raise InputError("Expected an undirected graph: every peer that sends to another also hears from it.")
        nodes = list(graph.nodes)
        names = tuple(map(str, nodes if peers is None else peers))
        if len(names) != len(nodes):
            raise InputError(f"Expected a name for each of {len(nodes)} nodes; got {len(names)}.")
        place = {node: i for i, node in enumerate(nodes)}
        edges = ((place[a], place[b]) for a, b in graph.edges if a != b)
        return cls(names, tuple((min(edge), max(edge)) for edge in edges))

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Topology:
        """What :meth:`describe` wrote."""
        return cls(tuple(record["peers"]), tuple((int(a), int(b)) for a, b in record["edges"]))

    def __len__(self) -> int:
        return len(self.peers)

    @cached_property
    def graph(self) -> Any:
        """The same as a ``networkx`` graph on positions."""
        graph = networkx.Graph()
        graph.add_nodes_from(range(len(self)))
        graph.add_edges_from(self.edges)
        return graph

    @cached_property
    def degrees(self) -> np.ndarray:
        """Neighbours of each peer, (N,)."""
        return np.bincount(np.array(self.edges, dtype=np.int64).ravel(), minlength=len(self))

    @cached_property
    def diameter(self) -> int:
        """The longest shortest path: how far a flooded message must be let go."""
        return networkx.diameter(self.graph)

    def parts(self, without: Collection[int] = ()) -> list[list[str]]:
        """Connected parts of what is left when positions ``without`` are gone, the largest first, by names."""
        left = self.graph.subgraph(set(range(len(self))) - {*without})
        found = sorted(networkx.connected_components(left), key=lambda part: (-len(part), min(part)))
        return [[self.peers[i] for i in sorted(part)] for part in found]

    def without(self, leaving: Collection[str], rewire: bool = False, name_of: Callable[[str], str] = str) -> Topology:
        """The network after peers ``leaving`` are gone: the edges among those that stay.

        Args:
            rewire: where the rest falls apart, join the parts in a chain by one edge each, between their first peers; the
                new edges are those of the result that this network lacks.
            name_of: what messages call a peer.

        Raises:
            InputError: for a name that is none of the peers'.
            RefusedError: if everybody leaves, or the rest falls apart and ``rewire`` is off, naming the cut set.
        """
        if unknown := sorted({*leaving} - {*self.peers}):
            raise InputError(f"Expected peers of this network; {_shown(unknown)} are none.")
        gone = {i for i, name in enumerate(self.peers) if name in leaving}
        if len(gone) == len(self):
            raise RefusedError("Everybody leaves: no peer is left to hold a model. Withdraw the model instead.")
        parts, edges = self.parts(gone), set(self.edges)
        if len(parts) > 1 and not rewire:
            who, last, first = (_shown([*map(name_of, names)]) for names in (sorted(leaving), parts[-1], parts[0]))
            raise RefusedError(
                f"Without {who} the network falls into {len(parts)} parts ({last} apart from {first}): the peers "
                "that leave are a cut set. Add an edge first, or allow rewiring on record."
            )
        place = {name: i for i, name in enumerate(self.peers)}
        for first, second in itertools.pairwise(parts):
            a, b = sorted((place[first[0]], place[second[0]]))
            edges.add((a, b))
        stay = [i for i in range(len(self)) if i not in gone]
        new = {old: i for i, old in enumerate(stay)}
        kept = tuple((new[a], new[b]) for a, b in edges if a in new and b in new)
        return Topology(tuple(self.peers[i] for i in stay), kept)

    def describe(self) -> dict[str, Any]:
        """JSON-like: peers and edges."""
        return {"peers": list(self.peers), "edges": [list(edge) for edge in self.edges]}


def must_be_plain(topology: Any) -> None:
    """Raise InputError unless ``topology`` is a :class:`Topology` by its exact type: a subclass may count other peers."""
    if type(topology) is not Topology:
        raise InputError(
            f"Expected a Topology; got {type(topology).__name__}. Make one of any graph with Topology.of(graph, peers)."
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
