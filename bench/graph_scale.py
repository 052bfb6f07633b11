"""Graphs of 20,000 to 170,000 nodes: linear networks against retraining, GNNDelete and published metrics against dense ways.

``retrain``: the same recipe on what is left. Aim: the time of requests for 125 to 1,000 nodes of a block model with 169,343
nodes and 1,166,243 edges (the sizes of ogbn-arxiv) grows with an exponent of at most 1.1.
``dense masks``: the loss on edge probabilities over all pairs near what goes, as the released code of GNNDelete takes it, with
a boolean matrix over all pairs of nodes; ours draws 4,096 pairs a step. Goal: five steps on a graph of PubMed's size, at least
ten times as fast.
``dense features``: the attributions of the published verifier from a gradient that holds a number for every feature, on
Coauthor Physics (``EXPUNGE_DATA``; without it a block model of its size), where that is 1.2 GB. Aim: less memory than that.
Run from the repository root: ``python bench/graph_scale.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from comparison import Case, Growth, main
from expunge import planning
from expunge.core.data import Deletion
from expunge.core.request import Request, Target
from expunge.core.trained import InMemoryBook, Trained
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.files import coauthor
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.splits import shares
from expunge.evidence.explanations import attribution
from expunge.methods import registry
from expunge.methods.gnn_delete import Frozen, GNNDelete, Region, learn
from expunge.modalities.graph import explained_nodes
from expunge.tasks.graphs.networks import GCN, SGC
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.graph_minimiser import GraphMinimiser
from expunge.training.graph_ridge import GraphRidge
from expunge.training.optimizers import Adam

STEPS = 5  # of GNNDelete's loss


def split(preset: str, smoke: bool) -> Graph:
    made = block_model(BlockModel(240, 700, 16, 4, words=4) if smoke else preset)
    return replace(shares(made, 0.6, 0.2, 0)[0], depth=2)


def nodes(graph: Graph, count: int) -> Request:
    ids = np.random.default_rng(count).choice(graph.examples, count, replace=False).tolist()
    return Request("somebody", (Target("node", {"ids": ids}),))


def run(model: Trained, method: str, count: int, **settings: Any) -> Callable[[], Any]:
    assert isinstance(model.data, Graph)
    asked = nodes(model.data, count)
    return lambda: planning.plan(replace(model, book=InMemoryBook()), asked, registry.make(method, settings)).run()


def linear(smoke: bool) -> Iterable[Case]:
    """Closed forms and one Newton step on averaged features."""
    graph = split("arxiv_like", smoke)
    factory = functools.partial(SGC, graph.width, graph.label_count, bias=False)
    task = NodeClassification.of(factory, dtype=torch.float64)
    counts = [2, 3, 4, 6] if smoke else [125, 250, 500, 1000]
    recipes: dict[str, Any] = {
        "graph_editor": GraphRidge(l2=0.1), "gif": GraphMinimiser(l2=1e-2, sigma=0.0, loss="softmax"),
    }  # fmt: skip
    for method, recipe in recipes.items():
        model = planning.train(task, graph, recipe)
        growth = Growth(what="nodes", ways={count: run(model, method, count) for count in counts})
        yield Case(
            name=f"{method}, {counts[-1]} of {len(graph.nodes):,} nodes",
            baselines={"retrain": run(model, "retrain", counts[-1])},
            ours=run(model, method, counts[-1]), double=True, rounds=1, growth=growth,
        )  # fmt: skip


def dense_loss(
    h: torch.Tensor, original: torch.Tensor, region: Region, near: torch.Tensor, share: float
) -> torch.Tensor:
    """Over every pair of nodes nearby; ``near`` (n, n) is a mask over all pairs."""
    first, second = torch.from_numpy(region.edges).T
    deleted = torch.nn.functional.mse_loss((h[first] * h[second]).sum(1), (original[first] * original[second]).sum(1))
    kept = torch.nn.functional.mse_loss((h @ h.T).sigmoid()[near], (original @ original.T).sigmoid()[near])
    return share * deleted + (1 - share) * kept


def operators(smoke: bool) -> Case:
    """Five steps of GNNDelete on edge probabilities."""
    graph = split("pubmed_like", smoke)
    task = NodeClassification.of(functools.partial(GCN, graph.width, graph.label_count, hidden=64))
    pairs = graph.edges[np.random.default_rng(0).choice(len(graph.edges), 3 if smoke else 100, replace=False)]
    deletion = Deletion.of(graph, Request("somebody", (Target("edge", {"pairs": pairs.tolist()}),)))
    model: Any = task.build().eval().requires_grad_(False)
    method = GNNDelete(loss="edge_probability", epochs=STEPS)
    region = Region.of(deletion, model.gathers, "retained")
    frozen = Frozen.on(task, model, region.graph)
    with torch.no_grad():
        original = frozen.stages(lambda stage, h: h)

    def ours() -> Any:
        return learn(method, frozen, original, region, np.random.default_rng(0), lambda *_: None)

    def dense() -> Any:
        inside = torch.from_numpy(region.near[-1])
        mask = (inside[:, None] & inside[None, :]).tril(-1)
        weights = [h.new_full((h.shape[1],) * 2, 1e-3).requires_grad_() for h in original]
        near = [torch.from_numpy(each)[:, None] for each in region.near]
        optimizer = Adam(weights, 1e-3)
        for _ in range(STEPS):
            now = frozen.stages(lambda stage, h: torch.where(near[stage], h @ weights[stage], h))
            optimizer.zero_grad(set_to_none=True)
            dense_loss(now[-1], original[-1], region, mask, 0.5).backward()
            optimizer.step()

    reached = int(region.near[-1].sum())
    name = f"gnn_delete, {len(pairs)} of {len(graph.edges):,} edges, {reached:,} nodes reached"
    return Case(name=name, baselines={"dense masks": dense}, ours=ours, rounds=1, goal=10)


def published(smoke: bool) -> Case:
    """Attributions, heatmap shift, edit distance and rules of Forget and Explain, of a request for 5 % of training nodes."""
    real = "EXPUNGE_DATA" in os.environ and not smoke
    graph = replace(shares(coauthor("Physics"), 0.6, 0.2, 0)[0], depth=2) if real else split("physics_like", smoke)
    task = NodeClassification.of(functools.partial(GCN, graph.width, graph.label_count, hidden=64))
    deletion = Deletion.of(graph, nodes(graph, max(1, len(graph) // 20)))
    tensors = task.released(task.build())
    whole = replace(task, compressed=False)

    def ours() -> Any:
        found = explained_nodes.published(task, [tensors, tensors], deletion, graph)
        return attribution.of_nodes(task, tensors, graph), found

    def dense() -> Any:
        return attribution.of_nodes(whole, tensors, graph), None

    def same(first: Any, second: Any) -> None:
        assert np.allclose(first[0], second[0], rtol=1e-3, atol=1e-9)

    name = f"published metrics, {len(graph.nodes):,} nodes with {graph.width:,} columns"
    return Case(name=name, baselines={"dense features (attributions alone)": dense}, ours=ours, agree=same, rounds=1)


def cases(smoke: bool) -> Iterable[Case]:
    """GNNDelete on PubMed's size, published metrics on Physics, then linear networks of ogbn-arxiv's size."""
    yield operators(smoke)
    yield published(smoke)
    yield from linear(smoke)


if __name__ == "__main__":
    main(__doc__, cases)
