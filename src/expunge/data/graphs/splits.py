"""Random splits of the labelled nodes of a graph into training nodes and sets to measure on."""

from __future__ import annotations

import numpy as np

from expunge.core.errors import InputError
from expunge.data.graphs.graph import Graph


def shares(graph: Graph, train: float, validation: float, seed: int) -> tuple[Graph, dict[str, Graph]]:
    """Random shares of the labelled nodes; what is in neither is ``test``.

    Raises:
        InputError: unless both are above 0 and leave something to test on.
    """
    if not (0 < train < 1 and 0 <= validation < 1 and train + validation < 1):
        raise InputError(
            f"Expected shares above 0 that leave some to test on; got train {train}, validation {validation}."
        )
    order = np.random.default_rng(seed).permutation(graph.examples)
    first, second = round(train * len(order)), round((train + validation) * len(order))
    return _split(graph, order[:first], order[first:second], order[second:])


def per_class(graph: Graph, train: int, validation: int, seed: int) -> tuple[Graph, dict[str, Graph]]:
    """``train`` nodes of each class, then ``validation`` others, and ``test`` is the rest (Shchur et al. 2018: 20 a class).

    Raises:
        InputError: where a class has fewer nodes, or nothing is left to test on.
    """
    order = np.random.default_rng(seed).permutation(graph.examples)
    labels = graph.labels(order)
    counts = np.bincount(labels, minlength=graph.label_count)
    if counts.min() < train or len(order) <= train * len(counts) + validation:
        raise InputError(
            f"Expected {train} nodes of each class and {validation} more, and some to test on; the smallest class has "
            f"{counts.min()} nodes, and there are {len(order)} in all."
        )
    place = np.zeros(len(order), dtype=np.int64)  # of a node among those of its class
    for label in range(len(counts)):
        of = np.flatnonzero(labels == label)
        place[of] = np.arange(len(of))
    chosen, rest = order[place < train], order[place >= train]
    return _split(graph, chosen, rest[:validation], rest[validation:])


def _split(graph: Graph, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> tuple[Graph, dict[str, Graph]]:
    sets = {"validation": validation, "test": test}
    return graph.on(train), {name: graph.on(ids) for name, ids in sets.items() if len(ids)}
