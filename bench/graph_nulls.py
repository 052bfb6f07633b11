"""Twenty retrained graph networks, as the verifier takes them, against twelve trainings by autograd (goal: no more than these).

The baselines train the same networks by autograd: twelve of them, twenty one after another, and twenty stacked under
``torch.func.vmap``. ``ours`` is ``GraphTraining.fit_together``, which takes derivatives of graph convolutional networks in
closed form, and models one after another where stacking does not pay. Graphs come from ``EXPUNGE_DATA``; each training
takes ten steps. Run from the repository root: ``python bench/graph_nulls.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from comparison import Case, main
from expunge.core.trained import Trained
from expunge.data.graphs.block_model import block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.planetoid import planetoid
from expunge.data.graphs.splits import shares
from expunge.tasks.graphs.networks import GAT, GCN, GraphNetwork
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training import graphs
from expunge.training.graphs import GraphTraining

NULLS, GOAL = 20, 12


class ByAutograd(GCN):
    """The same network, of a type that no closed form is known for."""


def stacked(task: NodeClassification, graph: Graph, recipe: GraphTraining) -> list[Trained]:
    """All in one step, whatever the size of the graph."""
    before, graphs.STACKED = graphs.STACKED, len(graph.nodes)
    try:
        return recipe.fit_together(task, graph, range(NULLS))
    finally:
        graphs.STACKED = before


def same(first: Any, second: Any) -> None:
    """The first models of both are equal, up to what rounding becomes in ten steps of single precision."""
    for one, other in zip(first, second, strict=False):
        for name, tensor in one.artifact.tensors.items():
            assert torch.allclose(tensor, other.artifact.tensors[name], atol=2e-3), name


def case(name: str, kind: Callable[..., GraphNetwork], graph: Graph, recipe: GraphTraining, **settings: Any) -> Case:
    """Twenty models of one network on one graph."""
    make = functools.partial(kind, graph.width, graph.label_count, **settings)
    task = NodeClassification.of(make)
    plain = replace(task, factory=functools.partial(ByAutograd, *make.args, **settings)) if kind is GCN else task

    def apart(count: int) -> Callable[[], list[Trained]]:
        return lambda: [recipe.fit(plain, graph, seed=seed) for seed in range(count)]

    return Case(
        name=name, baselines={
            f"{GOAL} by autograd": apart(GOAL), f"{NULLS} by autograd": apart(NULLS),
            f"{NULLS} stacked": functools.partial(stacked, plain, graph, recipe),
            "one": lambda: [recipe.fit(task, graph, seed=0)],
        },
        ours=lambda: recipe.fit_together(task, graph, range(NULLS)), agree=same, rounds=2, goal=1.0,
    )  # fmt: skip


def cases(smoke: bool) -> Iterable[Case]:
    """Networks and training of the recipes ``cora_verifier``, ``citeseer_verifier``, ``pubmed_`` and ``cora_gat_verifier``."""
    recipe = GraphTraining(epochs=2 if smoke else 10, lr=0.005, l2=0.0)
    if smoke:
        small = shares(block_model("small"), 0.6, 0.2, 0)[0]
        yield case("GCN, small", GCN, small, recipe, hidden=4)
        yield case("GAT, small", GAT, small, recipe, hidden=2, heads=2)
        return
    for name in ("Cora", "CiteSeer", "PubMed"):
        graph, _ = planetoid(name)
        graph = shares(graph.on(graph.nodes[graph.y >= 0]), 0.6, 0.2, 0)[0]
        yield case(f"GCN, {name}", GCN, graph, recipe, hidden=64)
        if name == "Cora":
            yield case("GAT, Cora", GAT, graph, recipe, hidden=8, heads=8)


if __name__ == "__main__":
    main(__doc__, cases)
