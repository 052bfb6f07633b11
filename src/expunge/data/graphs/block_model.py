"""Made-up graphs of any size: a degree-corrected block model with sparse binary features that depend on the class.

Source: Karrer and Newman 2011 (arXiv 1008.3926) for the edges; the features are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from expunge.core.errors import InputError
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.rows import by_reader

PREPARED = by_reader("fixed", "made by a formula from a seed")
POWER = 2.5  # of the weights that degrees follow: between 2 and 3, as citation graphs have it


@dataclass(frozen=True)
class BlockModel:
    """Sizes of a made-up graph.

    Attributes:
        nodes, edges, columns, classes: how many; of edges the expected number, doubles left out.
        homophily: share of the edges that join two nodes of one class.
        words: ones in a node's features, on average.
        topical: share of them that lie among the columns of the node's class.
    """

    nodes: int
    edges: int
    columns: int
    classes: int
    homophily: float = 0.8
    words: int = 18
    topical: float = 0.35


# Sizes of the graphs that they are named after; homophily .8 as of Cora (.81). Heterophilic: fewer neighbours of the same class
# than chance gives, as of the web pages on which plain convolutions fail.
PRESETS = {
    "cora_like": BlockModel(2708, 5278, 1433, 7),
    "pubmed_like": BlockModel(19717, 44324, 500, 3, words=50),
    "cs_like": BlockModel(18333, 81894, 6805, 15, words=60),
    "physics_like": BlockModel(34493, 247962, 8415, 5, words=33),
    "arxiv_like": BlockModel(169343, 1166243, 128, 40, homophily=0.65, words=16),
    "heterophilic": BlockModel(2000, 8000, 500, 5, homophily=0.1, topical=0.6),
    "small": BlockModel(300, 900, 60, 3, words=8),
}


def block_model(preset: str | BlockModel, seed: int = 0) -> Graph:
    """A graph with every node labelled; the same seed gives the same graph.

    Raises:
        InputError: for an unknown preset.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise InputError(f"Expected a preset among {', '.join(PRESETS)}; got {preset!r}.")
    size = PRESETS[preset] if isinstance(preset, str) else preset
    draw = np.random.default_rng(seed)
    y = draw.integers(0, size.classes, size.nodes)
    weights = draw.pareto(POWER, size.nodes) + 1
    return Graph.of(_words(size, y, draw), y, _pairs(size, y, weights, draw), preprocessing=PREPARED)


def _pairs(size: BlockModel, y: np.ndarray, weights: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Edges one end after another: the first by weight, the second by weight among its own class or among the others."""
    members = [np.flatnonzero(y == label) for label in range(size.classes)]
    ladders = [np.cumsum(weights[each]) for each in members]
    found = np.empty(0, dtype=np.int64)
    for _ in range(20):  # what falls on itself or on an edge that is there is drawn again
        missing = size.edges - len(found)
        if missing <= 0:
            break
        first = draw.choice(size.nodes, missing, p=weights / weights.sum())
        other = (y[first] + draw.integers(1, max(size.classes, 2), missing)) % size.classes
        label = np.where(draw.random(missing) < size.homophily, y[first], other)
        second = np.empty(missing, dtype=np.int64)
        for each in range(size.classes):
            here = label == each
            if here.any() and len(members[each]):
                at = np.searchsorted(ladders[each], draw.random(int(here.sum())) * ladders[each][-1])
                second[here] = members[each][np.minimum(at, len(members[each]) - 1)]
            else:
                second[here] = first[here]
        drawn = names.of_edges(np.stack([first, second], 1)[first != second])
        found = np.unique(np.concatenate([found, drawn]))
    return names.edges(found[draw.permutation(len(found))[: size.edges]])


def _words(size: BlockModel, y: np.ndarray, draw: np.random.Generator) -> sparse.csr_array:
    """Ones, some among the columns of the class and the others anywhere."""
    total = size.nodes * size.words
    rows = np.repeat(np.arange(size.nodes), size.words)
    width = max(1, size.columns // size.classes)
    own = y[rows] * width + draw.integers(0, width, total)
    columns = np.where(draw.random(total) < size.topical, own, draw.integers(0, size.columns, total))
    made = sparse.csr_array((np.ones(total, np.float32), (rows, columns)), shape=(size.nodes, size.columns))
    made.sum_duplicates()
    made.data[:] = 1
    return made
