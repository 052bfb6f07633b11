"""Partitions of a graph's training nodes into shards of nearly equal size.

Source: GraphEraser (Chen et al. 2022, arXiv 2103.14991) and its released code: cap of a shard, balanced label propagation,
balanced k-means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from expunge.core.errors import InputError
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.propagation import propagated_rows

SLACK = 0.005  # of what is outside a shard, by which it may be larger than an equal share (released code)
LABEL_ROUNDS, MEANS_ROUNDS = 100, 20  # at most (released code)


def cap(count: int, shards: int) -> int:
    """How many of ``count`` nodes a shard may hold.

    >>> cap(100, 4), cap(10, 3)
    (26, 4)
    """
    return math.ceil(count / shards + SLACK * (count - count / shards))


def at_random(graph: Graph, shards: int, draw: np.random.Generator) -> np.ndarray:
    """Shards of equal size at random."""
    return draw.permutation(np.arange(len(graph.examples)) % shards)


def by_labels(graph: Graph, shards: int, draw: np.random.Generator) -> np.ndarray:
    """BLPA: from a random start each node moves to the shard of most of its neighbours, those with most of them first, as long
    as there is room; a node without neighbours stays where it is.
    """
    found = at_random(graph, shards, draw)
    at = graph.positions(graph.examples)
    inside = graph.adjacency[at][:, at]
    most = cap(len(found), shards)
    for _ in range(LABEL_ROUNDS):
        votes = np.zeros((len(found), shards), dtype=np.int64)
        np.add.at(votes, (np.repeat(np.arange(len(found)), np.diff(inside.indptr)), found[inside.indices]), 1)
        sizes, moved = np.bincount(found, minlength=shards), 0
        for node in np.argsort(-votes.max(1), kind="stable"):
            for target in np.argsort(-votes[node], kind="stable"):
                if votes[node, target] <= votes[node, found[node]]:
                    break
                if sizes[target] < most:
                    sizes[found[node]] -= 1
                    sizes[target] += 1
                    found[node] = target
                    moved += 1
                    break
        if not moved:
            break
    return found


def by_means(graph: Graph, shards: int, draw: np.random.Generator) -> np.ndarray:
    """BEKM on features after two averages (the paper has embeddings of a trained GraphSAGE): pairs of a node and a centre by
    increasing distance, as long as there is room.
    """
    z = propagated_rows(graph, 2, graph.examples)
    centres = z[draw.choice(len(z), shards, replace=False)]
    found = np.full(len(z), -1)
    most = cap(len(z), shards)
    for _ in range(MEANS_ROUNDS):
        distance = (z**2).sum(1)[:, None] - 2 * z @ centres.T + (centres**2).sum(1)
        now, sizes = np.full(len(z), -1), np.zeros(shards, dtype=np.int64)
        for pair in np.argsort(distance, axis=None, kind="stable"):
            node, target = divmod(int(pair), shards)
            if now[node] < 0 and sizes[target] < most:
                now[node] = target
                sizes[target] += 1
        if np.array_equal(now, found):
            break
        found = now
        centres = np.stack([z[found == shard].mean(0) if sizes[shard] else centres[shard] for shard in range(shards)])
    return found


PARTITIONS: Mapping[str, Callable[[Graph, int, np.random.Generator], np.ndarray]] = {
    "random": at_random, "blpa": by_labels, "bekm": by_means,
}  # fmt: skip


def partition(graph: Graph, shards: int, how: str, seed: int) -> np.ndarray:
    """The shard of each training node, (k,), in the order of ``graph.examples``.

    Raises:
        InputError: for an unknown partition, or fewer training nodes than shards.
    """
    if how not in PARTITIONS:
        raise InputError(f"Expected a partition among {', '.join(PARTITIONS)}; got {how!r}.")
    if not 1 <= shards <= len(graph.examples):
        raise InputError(f"Expected 1 to {len(graph.examples)} shards, as many as training nodes; got {shards}.")
    return PARTITIONS[how](graph, shards, np.random.default_rng(seed))
