"""A graph with features and labels, whose nodes, edges and features can go, and keep their names whatever goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from expunge.core.data import Ids
from expunge.core.digest import digest_arrays
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.core.trained import Fact
from expunge.data.graphs import names, selecting, signs
from expunge.data.graphs.reach import affected
from expunge.data.rows import ROWS_AS_GIVEN, as_said

UNKNOWN = -1  # the label of a node without one
SCALES = ("none", "rows")


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph, and those of its nodes that count as examples: training data, or a set to measure on.

    A node keeps its id when others go. An edge is named by its two ends and a feature by its node and its column
    (``data.graphs.names``). Self-loops are not stored: models that want them add one to each node.

    Shapes:
        nodes (n,) int64, ascending; x (n, d) sparse float32; y (n,) int64, -1 where unknown; edges (m, 2) int64, ids of nodes,
        the smaller one first, ascending; examples (k,) int64, ids of nodes with a label, ascending; classes: names of labels.

    Attributes:
        scale: ``rows``: a model sees each node's features divided by their sum of magnitudes, computed anew from what is left
            of them; ``none``: as they are.
        depth: over how many hops the model gathers; ``None``: unknown, so that anything connected may change.
        called: names of the nodes in the user's file, (n,) texts; ``None``: their ids.
        preprocessing: whether preparing a node looked at others, and who says so.

    Build it with :meth:`of`, which checks; slicing trusts.
    """

    nodes: np.ndarray
    x: sparse.csr_array
    y: np.ndarray
    edges: np.ndarray
    examples: np.ndarray
    scale: str = "none"
    depth: int | None = None
    classes: tuple[str, ...] = ()
    called: np.ndarray | None = None
    preprocessing: Fact = ROWS_AS_GIVEN

    @classmethod
    def of(
        cls, x: Any, y: Any, edges: Any, *, nodes: Any = None, examples: Any = None, scale: str = "none",
        depth: int | None = None, classes: Sequence[str] = (), called: Any = None, preprocessing: Fact = ROWS_AS_GIVEN,
    ) -> Graph:  # fmt: skip
        """Check and wrap arrays.

        Args:
            x: features, (n, d), dense or sparse.
            y: labels, (n,), whole numbers from 0; -1 where there is none.
            edges: pairs of node ids, (m, 2), each undirected edge once in either direction.
            nodes: ids, (n,); 0 to n - 1 where not given.
            examples: ids of the nodes whose labels are trained on; every node with a label where not given.

        Raises:
            InputError: on NaN or infinite features, labels or ids that are no whole numbers, lengths that differ, nodes or
                edges named twice, edges to nodes that are not there, self-loops, or examples without a label.
        """
        ids = np.arange(len(y), dtype=np.int64) if nodes is None else _whole(nodes, "node ids")
        features, labels = _features(x), _whole(y, "labels")
        pairs = _whole(edges, "edges").reshape(-1, 2) if np.size(edges) else np.empty((0, 2), np.int64)
        rows, width = _shape(features)
        if not len(ids) or rows != len(ids) or labels.shape != ids.shape:
            raise InputError(
                f"Expected at least one node, with one row of features and one label each; got {len(ids)} nodes, features of "
                f"shape {features.shape} and labels of shape {labels.shape}."
            )
        if scale not in SCALES:
            raise InputError(f"Expected scale among {', '.join(SCALES)}; got {scale!r}.")
        if labels.min() < UNKNOWN:
            raise InputError(f"Expected labels from 0 upwards, or -1 for none; the smallest is {labels.min()}.")
        if ids.min() < 0 or ids.max() >= names.LIMIT or width >= names.LIMIT:
            raise InputError(f"Expected node ids and columns from 0 to {names.LIMIT - 1}; got more, or less than 0.")
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        if len(repeated := np.unique(ids[1:][ids[1:] == ids[:-1]])):
            raise InputError(f"Expected each node once; {selecting.shown(repeated)} stand(s) there several times.")
        texts = None if called is None else np.asarray(called)[order]
        whole = cls(
            ids, features[order], labels[order], _edges(pairs, ids), ids[labels[order] != UNKNOWN], scale, depth,
            tuple(classes), texts, as_said(preprocessing),
        )  # fmt: skip
        return whole if examples is None else whole.on(examples)

    def __len__(self) -> int:
        """How many examples there are, not how many nodes."""
        return len(self.examples)

    @property
    def digest(self) -> str:
        """Content digest of nodes, features, labels, edges and examples."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return self.of_content()

    def of_content(self) -> str:
        """The digest, computed now and not remembered: arrays can be changed in place."""
        x = self.x
        arrays = {"nodes": self.nodes, "y": self.y, "edges": self.edges, "examples": self.examples, "x": x.data}
        layout = {"columns": x.indices.astype(np.int64), "rows": x.indptr.astype(np.int64), "shape": np.array(x.shape)}
        settings = np.array([SCALES.index(self.scale), -1 if self.depth is None else self.depth])
        return digest_arrays({**arrays, **layout, "settings": settings})

    @property
    def label_count(self) -> int:
        """One more than the largest label, or as many as have names."""
        return max(int(self.y.max()) + 1, len(self.classes))

    @property
    def width(self) -> int:
        """How many columns of features there are."""
        return _shape(self.x)[1]

    @cached_property
    def ends(self) -> np.ndarray:
        """Positions of both ends of every edge, (m, 2)."""
        return self.positions(self.edges)

    @cached_property
    def adjacency(self) -> sparse.csr_array:
        """Ones where there is an edge, both ways, (n, n), without self-loops."""
        rows, columns = np.concatenate([self.ends, self.ends[:, ::-1]]).T
        ones = np.ones(len(rows), dtype=np.float32)
        return sparse.csr_array((ones, (rows, columns)), shape=(len(self.nodes),) * 2)

    @cached_property
    def features(self) -> sparse.csr_array:
        """Features as a model sees them, (n, d): scaled where ``scale`` says so. A node without any stays zero."""
        if self.scale == "none":
            return self.x
        sums = np.asarray(abs(self.x).sum(1))
        return sparse.csr_array(sparse.diags_array(1 / np.where(sums > 0, sums, 1).astype(np.float32)) @ self.x)

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Where nodes stand in the arrays; every id must be there."""
        return np.searchsorted(self.nodes, ids)

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Which of ``ids`` are nodes of the graph."""
        return np.isin(ids, self.nodes)

    def labels(self, ids: np.ndarray) -> np.ndarray:
        """Labels of nodes."""
        return self.y[self.positions(ids)]

    def on(self, examples: Any) -> Graph:
        """The same graph with other examples: ids of nodes with a label.

        Raises:
            InputError: for nodes that are not there, named twice, or without a label.
        """
        ids = _whole(examples, "examples")
        if len(np.unique(ids)) != len(ids):
            raise InputError(
                f"Expected each example once; {len(ids)} are named, {len(np.unique(ids))} of them different."
            )
        if len(missing := ids[~self.has(ids)]):
            raise InputError(
                f"Expected examples among the nodes of the graph; {selecting.shown(missing)} is or are none."
            )
        ids = np.sort(ids)
        if len(blank := ids[self.labels(ids) == UNKNOWN]):
            raise InputError(f"Expected a label for each example; {selecting.shown(blank)} has or have none.")
        return replace(self, examples=ids)

    def deep(self, depth: int | None) -> Graph:
        """The same for a model that gathers over ``depth`` hops."""
        return replace(self, depth=depth)

    def within(self, other: Graph) -> Graph:
        """These examples, as far as they are there, on the graph ``other``."""
        return replace(other, examples=self.examples[other.has(self.examples)])

    # --- what a request names, and what is left ------------------------------------------------------------------------------

    def select(self, target: Target) -> Ids:
        """Ids of the nodes, edges or features that ``target`` names; see ``data.graphs.selecting`` for its forms."""
        return selecting.select(self, target)

    def unmatched(self, target: Target) -> tuple[str, ...]:
        """Each node, edge or feature that ``target`` names and that is not there, in words."""
        return selecting.unmatched(self, target)

    def without(self, ids: Ids) -> Graph:
        """The graph after nodes went with all their edges and features, edges were cut, and features set to zero."""
        stays = ~np.isin(self.nodes, ids["node"])
        edges = self.edges[~np.isin(self.edges, ids["node"]).any(1) & ~np.isin(names.of_edges(self.edges), ids["edge"])]
        x = self.x if not len(ids["feature"]) else self._blanked(ids["feature"])
        kept = self.examples[~np.isin(self.examples, ids["node"])]
        called = None if self.called is None else self.called[stays]
        return replace(
            self, nodes=self.nodes[stays], x=x[stays], y=self.y[stays], edges=edges, examples=kept, called=called
        )

    def _blanked(self, features: np.ndarray) -> sparse.csr_array:
        nodes, columns = names.apart(features)
        there = self.has(nodes)
        marked = sparse.csr_array(
            (np.ones(int(there.sum()), np.float32), (self.positions(nodes[there]), columns[there])), shape=self.x.shape
        )
        x = sparse.csr_array(self.x - self.x.multiply(marked > 0), dtype=self.x.dtype)
        x.eliminate_zeros()
        return x

    def only(self, ids: Ids) -> Graph:
        """The same graph, whose examples are those that ``ids`` name: as nodes, as ends of edges, or by their features."""
        return replace(self, examples=np.intersect1d(self.examples, self.named_by(ids)))

    def named_by(self, ids: Ids) -> np.ndarray:
        """Nodes that ``ids`` name as nodes, as ends of edges, or by their features; ascending."""
        of_features = names.apart(ids["feature"])[0]
        return np.unique(np.concatenate([ids["node"], names.edges(ids["edge"]).ravel(), of_features]))

    @property
    def units(self) -> tuple[str, ...]:
        """What ids name: nodes, edges and features."""
        return signs.UNITS

    def signs(self, unit: str) -> tuple[np.ndarray, list[str]]:
        """Ids and what each is known by in other graphs; see ``data.graphs.signs``."""
        return signs.signs(self, unit)

    def examples_in(self, ids: Ids) -> int:
        """How many examples go with ``ids``."""
        return int(np.isin(self.examples, ids["node"]).sum())

    def touched(self, ids: Ids) -> Ids:
        """Retained examples whose prediction may change whatever the weights are (``data.graphs.reach``).

        Reckoned with symmetric normalisation, which reaches furthest; without a known depth it is everything connected.
        """
        near = affected(self, ids, len(self.nodes) if self.depth is None else self.depth, True)
        return Ids({"node": np.setdiff1d(np.intersect1d(self.nodes[near], self.examples), ids["node"])})


def _whole(values: Any, what: str) -> np.ndarray:
    """Whole numbers as int64."""
    array = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if array.dtype.kind == "f" and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"Expected {what} in whole numbers; got {array.dtype} or fractions.")
    return array.astype(np.int64)


def _features(x: Any) -> sparse.csr_array:
    if hasattr(x, "to_sparse_csr"):  # a torch tensor
        dense = x.to_dense() if x.layout is not __import__("torch").strided else x
        x = dense.detach().cpu().numpy()
    found = x if sparse.issparse(x) else np.asarray(x)
    if found.ndim != 2 or found.dtype.kind not in "fiub":
        raise InputError(
            f"Expected features in numbers of shape (nodes, columns); got {found.dtype} of shape {found.shape}."
        )
    made = sparse.csr_array(found, dtype=np.float32)
    made.sum_duplicates()
    if not np.isfinite(made.data).all():
        bad = int(np.repeat(np.arange(_shape(made)[0]), np.diff(made.indptr))[~np.isfinite(made.data)][0])
        raise InputError(f"Expected finite features; row {bad} holds NaN or infinity. Fill or drop it before training.")
    made.eliminate_zeros()
    return made


def _edges(pairs: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if len(missing := np.unique(pairs[~np.isin(pairs, ids)])):
        raise InputError(f"Expected edges between nodes of the graph; {selecting.shown(missing)} is or are no node.")
    loops = pairs[pairs[:, 0] == pairs[:, 1], 0]
    if len(loops):
        raise InputError(
            f"Expected edges between two different nodes; {selecting.shown(np.unique(loops))} has or have a self-loop. Leave "
            "self-loops out: a model that wants them adds one to each node."
        )
    found, count = np.unique(names.of_edges(pairs), return_counts=True)
    if len(found) == len(pairs):
        return names.edges(found)
    both = (count == 2).all() and len(np.unique(names.joined(pairs[:, 0], pairs[:, 1]))) == len(pairs)
    if both:
        return names.edges(found)
    raise InputError(
        f"Expected each undirected edge once, or every edge in both directions; {int((count > 1).sum())} of {len(found)} edges "
        "are named more than once and others are not. A directed graph is not read; name every edge once."
    )


def _shape(x: sparse.csr_array) -> tuple[int, int]:
    rows, columns = x.shape  # type: ignore[misc]
    return int(rows), int(columns)
