"""Graphs of 20,000 and 170,000 nodes: methods for linear networks against retraining, and GNNDelete against dense masks.

``retrain``: the same recipe on what is left. Aim: the time of requests for 125 to 1,000 nodes of a block model with 169,343
nodes and 1,166,243 edges (the sizes of ogbn-arxiv) grows with an exponent of at most 1.1.
``dense masks``: the loss on edge probabilities over all pairs near what goes, as the released code of GNNDelete takes it, with
a boolean matrix over all pairs of nodes; ours draws 4,096 pairs a step. Goal: five steps on a graph of PubMed's size, at least
ten times as fast.
Run from the repository root: ``python bench/graph_scale.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
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
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.splits import shares
from expunge.methods import registry
from expunge.methods.gnn_delete import Frozen, GNNDelete, Region, learn
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


def cases(smoke: bool) -> Iterable[Case]:
    """Linear networks of ogbn-arxiv's size, then GNNDelete on PubMed's."""
    yield from linear(smoke)
    yield operators(smoke)


if __name__ == "__main__":
    main(__doc__, cases)
