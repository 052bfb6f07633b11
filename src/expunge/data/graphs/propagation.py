"""Features of nodes after steps of symmetric averaging, for the nodes that are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from expunge.data.graphs.graph import Graph


def averaging(graph: Graph) -> sparse.csr_array:
    """``D^-1/2 (A + I) D^-1/2`` in double precision, (n, n) (Kipf and Welling 2017, arXiv 1609.02907, equation 2)."""
    looped = sparse.csr_array(graph.adjacency.astype(np.float64) + sparse.eye_array(len(graph.nodes)))
    scale = sparse.diags_array(1 / np.sqrt(np.asarray(looped.sum(1)).ravel()))
    return sparse.csr_array(scale @ looped @ scale)


def propagated_rows(graph: Graph, steps: int, ids: np.ndarray) -> np.ndarray:
    """Features of the nodes ``ids`` after ``steps`` averages, (k, d) float64; only their neighbourhoods are read."""
    matrix = averaging(graph)
    chosen = (np.ones(len(ids)), (np.arange(len(ids)), graph.positions(ids)))
    reach: Any = sparse.csr_array(chosen, shape=(len(ids), len(graph.nodes)))
    for _ in range(steps):
        reach = reach @ matrix
    return np.asarray((reach @ graph.features.astype(np.float64)).toarray())
