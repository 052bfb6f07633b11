"""Persistent ids of edges and features, made from those of nodes, so that they keep their meaning whatever goes.

An id is 64 bits: of an edge both ends, of a feature the node and the column, each in half of them.
"""

from __future__ import annotations

import numpy as np

LIMIT = 2**31  # ids of nodes and columns lie below
_HALF = np.int64(32)
_LOW = np.int64(2**32 - 1)


def joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """One id of two: (n,) and (n,) → (n,) int64.

    >>> joined(np.array([1, 0]), np.array([2, 5])).tolist()
    [4294967298, 5]
    """
    return (high.astype(np.int64) << _HALF) | low.astype(np.int64)


def apart(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo of :func:`joined`.

    >>> [part.tolist() for part in apart(np.array([4294967298, 5]))]
    [[1, 0], [2, 5]]
    """
    ids = np.asarray(ids, dtype=np.int64)
    return ids >> _HALF, ids & _LOW


def of_edges(pairs: np.ndarray) -> np.ndarray:
    """Ids of undirected edges, whichever end is named first: (m, 2) → (m,)."""
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return joined(pairs.min(1), pairs.max(1))


def edges(ids: np.ndarray) -> np.ndarray:
    """The two ends of each edge, the smaller one first: (m,) → (m, 2)."""
    return np.stack(apart(ids), 1)
