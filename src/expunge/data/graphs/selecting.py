"""What a target names in a graph.

===========  ==========================================  =====================================================================
kind         where                                       names
===========  ==========================================  =====================================================================
``node``     ``{"ids": [5, 8]}`` or ``{"names": [..]}``  nodes, with all their edges and features and their label
``edge``     ``{"pairs": [[5, 8], [1, 2]]}``             undirected edges, either end first
``feature``  ``{"node": [5, 8]}``                        all features of nodes
``feature``  ``{"node": [5, 8], "column": [0, 3]}``      these columns of these nodes
===========  ==========================================  =====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Kind, Target
from expunge.data.graphs import names

if TYPE_CHECKING:
    from expunge.data.graphs.graph import Graph

FORMS = {
    Kind.NODE: ({"ids"}, {"names"}),
    Kind.EDGE: ({"pairs"},),
    Kind.FEATURE: ({"node"}, {"node", "column"}),
}
SAID = {
    Kind.NODE: "{ids: [5, 8]}, or {names: [...]} of a file that names its nodes",
    Kind.EDGE: "{pairs: [[5, 8], [1, 2]]}",
    Kind.FEATURE: "{node: [5, 8]} for all features of a node, or {node: [5], column: [0, 3]} for some",
}
_SHOWN = 10


def shown(ids: Any) -> str:
    """Some ids in a message."""
    ids = list(np.asarray(ids).tolist())
    return ", ".join(map(str, ids[:_SHOWN])) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def select(graph: Graph, target: Target) -> Ids:
    """Ids of what ``target`` names and the graph has.

    Raises:
        InputError: for another kind or form of target, numbers that are no ids, anything named twice, or a self-loop.
    """
    form = _form(target)
    if target.kind == Kind.NODE:
        wanted = _nodes(graph, target)
        return Ids({"node": wanted[graph.has(wanted)]})
    if target.kind == Kind.EDGE:
        ids = names.of_edges(_pairs(target))
        return Ids({"edge": ids[np.isin(ids, names.of_edges(graph.edges))]})
    nodes = _once(target, "node")
    nodes = nodes[graph.has(nodes)]
    filled = graph.x[graph.positions(nodes)].tocoo()
    of_node, columns = nodes[filled.row], filled.col.astype(np.int64)
    if "column" in form:
        chosen = np.isin(columns, _columns(graph, target))
        of_node, columns = of_node[chosen], columns[chosen]
    return Ids({"feature": names.joined(of_node, columns)})


def unmatched(graph: Graph, target: Target) -> tuple[str, ...]:
    """Each node, edge or feature that ``target`` names and the graph does not have, in words."""
    form = _form(target)
    if target.kind == Kind.NODE:
        if "names" in form:
            called = () if graph.called is None else graph.called
            return tuple(f"the name {name!r}" for name in target.values("names") if name not in called)
        wanted = _once(target, "ids")
        missing = wanted[~graph.has(wanted)]
        return (f"the nodes {shown(missing)} ({len(missing)} of {len(wanted)})",) if len(missing) else ()
    if target.kind == Kind.EDGE:
        pairs = _pairs(target)
        missing = pairs[~np.isin(names.of_edges(pairs), names.of_edges(graph.edges))]
        return tuple(f"the edge {first}, {second}" for first, second in missing[:_SHOWN].tolist())
    nodes = _once(target, "node")
    if len(missing := nodes[~graph.has(nodes)]):
        return (f"the nodes {shown(missing)} ({len(missing)} of {len(nodes)})",)
    found = names.apart(select(graph, target)["feature"])
    blank = [node for node in nodes.tolist() if node not in found[0]]
    lost = [f"features of node {node} that are not zero" for node in blank[:_SHOWN]]
    if "column" in form:
        columns = [column for column in _columns(graph, target).tolist() if column not in found[1]]
        lost += [f"column {column}, which is zero at all of these nodes" for column in columns[:_SHOWN]]
    return tuple(lost)


def _form(target: Target) -> set[str]:
    if target.kind not in FORMS:
        raise InputError(f"A graph can lose nodes, edges or features; a {target.kind} target has no meaning here.")
    kind = Kind(target.kind)
    if set(target.where) not in FORMS[kind]:
        raise InputError(f"A {kind} target says where as {SAID[kind]}; got {', '.join(map(str, target.where))}.")
    return set(target.where)


def _nodes(graph: Graph, target: Target) -> np.ndarray:
    if "ids" in target.where:
        return _once(target, "ids")
    if graph.called is None:
        raise InputError("The nodes of this graph have no names besides their ids; give ids.")
    wanted = target.values("names")
    if len(set(wanted)) != len(wanted):
        raise InputError("The request names a node twice; name each once.")
    return graph.nodes[np.isin(graph.called, [str(name) for name in wanted])]


def _once(target: Target, name: str) -> np.ndarray:
    """The whole numbers under ``name``, each of them once."""
    values = target.values(name)
    if not all(type(value) is int and 0 <= value < names.LIMIT for value in values):
        raise InputError(f"A {target.kind} target says {name} in whole numbers from 0; got {values!r:.80}.")
    found = np.array(values, dtype=np.int64)
    if len(np.unique(found)) != len(found):
        raise InputError(f"The request names a {name.removesuffix('s')} twice: {len(found)} in all. Name each once.")
    return found


def _columns(graph: Graph, target: Target) -> np.ndarray:
    columns = _once(target, "column")
    if (columns >= graph.width).any():
        raise InputError(f"The graph has columns 0 to {graph.width - 1}; the request names {columns.max()}.")
    return columns


def _pairs(target: Target) -> np.ndarray:
    """(m, 2): each edge once, in one direction or the other."""
    values = target.where["pairs"]
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(values) == 2 and all(type(value) is int for value in values):
        values = [values]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in values):
        raise InputError(
            f"An edge target says pairs as a list of two nodes each, [[5, 8], [1, 2]]; got {values!r:.80}."
        )
    if not all(type(end) is int and 0 <= end < names.LIMIT for pair in values for end in pair):
        raise InputError(f"An edge target names nodes in whole numbers from 0; got {values!r:.80}.")
    pairs = np.array(values, dtype=np.int64)
    if len(loops := pairs[pairs[:, 0] == pairs[:, 1], 0]):
        raise InputError(
            f"The request names a self-loop at node {loops[0]}. Models add a self-loop to every node by themselves: none is "
            "stored, and none can go."
        )
    if len(np.unique(names.of_edges(pairs))) != len(pairs):
        raise InputError("The request names an edge twice; both directions of it are one edge. Name each once.")
    return pairs
