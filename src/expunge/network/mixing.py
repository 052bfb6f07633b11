"""How neighbours average their models: doubly stochastic matrices, their spectrum, and what lost messages make of them.

Mixing is one sparse product with all models in one tensor, peers first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from expunge.core.errors import InputError, RefusedError
from expunge.network.topology import Topology

TOLERANCE = 1e-12  # of rows and columns that sum to 1, in double precision
_DENSE = 512  # peers up to which all eigenvalues are computed


def metropolis(topology: Topology) -> sparse.csr_array:
    """Metropolis-Hastings weights: 1 / (1 + max(deg_i, deg_j)) on edges, what is missing to 1 on the diagonal.

    Source: Xiao, Boyd and Lall 2006, "Distributed average consensus with time-varying Metropolis weights".

    Shapes:
        (N, N), symmetric and doubly stochastic.
    """
    edges = np.array(topology.edges, dtype=np.int64).reshape(-1, 2)
    weights = 1 / (1 + np.maximum(topology.degrees[edges[:, 0]], topology.degrees[edges[:, 1]]))
    return _filled(len(topology), edges, weights)


def _filled(count: int, edges: np.ndarray, weights: np.ndarray) -> sparse.csr_array:
    """The symmetric matrix of edge weights with diagonals that bring every row to 1."""
    i, j = edges.T
    off = sparse.coo_array((np.r_[weights, weights], (np.r_[i, j], np.r_[j, i])), shape=(count, count)).tocsr()
    return sparse.csr_array(off + sparse.diags_array(1 - np.asarray(off.sum(1)).ravel()))


def among(matrix: sparse.csr_array, topology: Topology, left: Topology) -> sparse.csr_array:
    """A given mixing matrix among the peers that are left: they keep for themselves what they gave to those that went.

    Args:
        matrix: of ``topology``, symmetric and doubly stochastic.

    Raises:
        RefusedError: where ``left`` has an edge that ``topology`` lacks (rewired): nobody gave it a weight.
    """
    places = {name: i for i, name in enumerate(topology.peers)}
    stay = np.array([places[name] for name in left.peers])
    edges = np.array(left.edges, dtype=np.int64).reshape(-1, 2)
    old = stay[edges]
    if new := [edge for edge in old.tolist() if (min(edge), max(edge)) not in {*topology.edges}]:
        a, b = (topology.peers[i] for i in new[0])
        raise RefusedError(
            f"The edge between {a} and {b} is new, and the given mixing matrix has no weight for it. Take Metropolis weights, "
            "or give the rest of the network a matrix of its own."
        )
    return _filled(len(left), edges, np.asarray(matrix[old[:, 0], old[:, 1]]).ravel())


def must_mix(matrix: sparse.csr_array, topology: Topology) -> None:
    """Raise InputError unless ``matrix`` is symmetric, doubly stochastic, non-negative, and mixes along edges only."""
    count = len(topology)
    if matrix.shape != (count, count):
        raise InputError(f"Expected a mixing matrix of shape ({count}, {count}); got {matrix.shape}.")
    if not np.isfinite(matrix.data).all() or (matrix.data < -TOLERANCE).any():
        raise InputError("Expected mixing weights that are numbers from 0 on; some are negative or none.")
    rows, columns = np.asarray(matrix.sum(1)).ravel(), np.asarray(matrix.sum(0)).ravel()
    if max(np.abs(rows - 1).max(), np.abs(columns - 1).max()) > TOLERANCE or abs(matrix - matrix.T).max() > TOLERANCE:
        worst = int(np.argmax(np.maximum(np.abs(rows - 1), np.abs(columns - 1))))
        raise InputError(
            f"Expected a symmetric, doubly stochastic mixing matrix; row {worst} sums to {rows[worst]:.6g}, column {worst} to "
            f"{columns[worst]:.6g}. Otherwise the network's mean would drift; Metropolis weights always fit."
        )
    pairs = sparse.coo_array(matrix)
    used = {(min(i, j), max(i, j)) for i, j, w in zip(*pairs.coords, pairs.data, strict=True) if i != j and w > 0}
    if astray := sorted(used - {*topology.edges}):
        a, b = (topology.peers[i] for i in astray[0])
        raise InputError(f"Expected mixing along edges only; {a} and {b} are no neighbours.")


def second_eigenvalue(matrix: sparse.csr_array) -> float:
    """lambda = max(|lambda_2|, |lambda_N|): by which factor at most a round of mixing shrinks disagreement.

    >>> round(second_eigenvalue(metropolis(Topology.make("ring", [str(i) for i in range(10)]))), 4)
    0.873
    """
    count = len(matrix.indptr) - 1
    if count == 1:
        return 0.0
    if count <= _DENSE:
        values = np.linalg.eigvalsh(matrix.toarray())
        return float(max(abs(values[0]), abs(values[-2])))
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(0).standard_normal(count)
    values = np.sort(eigsh(matrix, k=2, which="LA", return_eigenvectors=False, v0=start))
    least = eigsh(matrix, k=1, which="SA", return_eigenvectors=False, v0=start)
    return float(max(abs(values[0]), abs(least[0])))


def rounds_to(shrink: float, matrix: sparse.csr_array) -> int:
    """Rounds of mixing alone after which disagreement is at most ``shrink`` times what it was.

    >>> rounds_to(1e-2, metropolis(Topology.make("ring", [str(i) for i in range(10)])))
    34
    """
    largest = second_eigenvalue(matrix)
    if largest < 1e-12:
        return 1
    if largest >= 1:
        raise InputError("This matrix does not mix: its second eigenvalue is 1.")
    return math.ceil(math.log(shrink) / math.log(largest))


def as_matrix(rows: Sequence[Sequence[float]]) -> sparse.csr_array:
    """Rows of numbers as a matrix; zeros are no edges.

    Raises:
        InputError: for rows that are not as long as there are rows.
    """
    lengths = {len(row) for row in rows}
    if lengths != {len(rows)}:
        raise InputError(
            f"Expected a square mixing matrix; got {len(rows)} rows of length {', '.join(map(str, sorted(lengths)))}."
        )
    return sparse.csr_array(np.array(rows, dtype=np.float64))


def as_torch(matrix: sparse.csr_array, dtype: torch.dtype = torch.float64) -> Tensor:
    """For products with stacked models: dense for few peers, sparse for many, (N, N)."""
    if len(matrix.indptr) - 1 <= 64:
        return torch.from_numpy(matrix.toarray()).to(dtype)
    rows = torch.from_numpy(matrix.indptr.astype(np.int64))
    columns, values = torch.from_numpy(matrix.indices.astype(np.int64)), torch.from_numpy(matrix.data).to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(rows, columns, values, matrix.shape, check_invariants=True)


def mixed(matrix: Tensor, stacked: Tensor, rounds: int = 1) -> Tensor:
    """``rounds`` of mixing of models (N, d): their mean stays what it was."""
    for _ in range(rounds):
        stacked = matrix @ stacked
    return stacked


def with_drops(matrix: sparse.csr_array, lost: np.ndarray, topology: Topology) -> sparse.csr_array:
    """The matrix of a round in which the messages along some edges were lost: both ends keep that weight themselves.

    Rows and columns still sum to 1, so the network's mean is that of a round without losses.

    Args:
        lost: for each edge of ``topology``, whether it failed.
    """
    edges = np.array(topology.edges, dtype=np.int64).reshape(-1, 2)
    weights = np.asarray(matrix[edges[:, 0], edges[:, 1]]).ravel() if len(edges) else np.zeros(0)
    return _filled(len(matrix.indptr) - 1, edges[~lost], weights[~lost])
