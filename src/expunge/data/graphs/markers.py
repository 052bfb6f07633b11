"""Nodes that carry a mark: features that no other node has, and a class of their own, which only they can teach a model.

After these nodes were forgotten, a model that answers with their class has kept what it learnt from them. The test is that of
certified graph unlearning at scale (ScaleGUN, arXiv 2408.09212), which calls it deleted data replay.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from expunge.core.errors import InputError
from expunge.data.graphs import selecting
from expunge.data.graphs.graph import Graph

COLUMNS = 100  # features of the mark, as there


def marked(graph: Graph, ids: np.ndarray, columns: int = COLUMNS) -> Graph:
    """``graph`` with so many more columns, all ones for the nodes ``ids`` and zero for others, and a new class for these nodes.

    Args:
        ids: examples of the graph, (k,).

    Raises:
        InputError: for ids that are no examples, or no column.
    """
    chosen = np.unique(ids)
    other = np.setdiff1d(chosen, graph.examples)
    if not len(chosen) or len(other):
        raise InputError(
            f"Expected nodes that are trained on; got {f'also {selecting.shown(other)}' if len(other) else 'none'}."
        )
    if columns < 1:
        raise InputError(f"Expected at least one column for the mark; got {columns}.")
    there = np.isin(graph.nodes, chosen)
    mark = sparse.csr_array(np.outer(there, np.ones(columns)).astype(np.float32))
    y = np.where(there, graph.label_count, graph.y)
    classes = (*graph.classes, "marked") if graph.classes else ()
    return replace(graph, x=sparse.csr_array(sparse.hstack([graph.x, mark])), y=y, classes=classes)
