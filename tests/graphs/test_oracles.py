"""What should be seen on real graphs, over several seeds (checks 20 and 22 to 24); the marker also in closed form."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from expunge import planning
from expunge.core.data import Deletion
from expunge.core.request import Request, Target
from expunge.core.trained import InMemoryBook, Trained
from expunge.data.graphs import splits
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, split_links
from expunge.data.graphs.markers import marked
from expunge.data.graphs.pairs import unlinked
from expunge.data.graphs.planetoid import planetoid
from expunge.evidence.explanations import attack
from expunge.evidence.explanations.links import answered
from expunge.evidence.explanations.replay import DECIDING, Scene, played
from expunge.methods import registry
from expunge.metrics.prediction_band import Band
from expunge.tasks.graphs.links import LinkPrediction
from expunge.tasks.graphs.networks import NETWORKS
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.graph_ridge import GraphRidge
from expunge.training.graphs import GraphTraining


def task_of(name: str, graph: Graph, dtype: torch.dtype = torch.float32, **settings) -> NodeClassification:
    return NodeClassification.of(
        functools.partial(NETWORKS[name], graph.width, graph.label_count, **settings), dtype=dtype
    )


def request(ids: np.ndarray) -> Request:
    return Request("a", (Target("node", {"ids": ids.tolist()}),))


def predicted(task: NodeClassification, tensors, graph: Graph) -> np.ndarray:
    model = task.build(tensors).eval()
    with torch.no_grad():
        logits = task.every(model, dict(model.named_parameters()), task.batch(graph))
    return torch.softmax(logits.double(), 1).numpy()


def answers_with_the_mark(trained: Trained, graph: Graph, ids: np.ndarray) -> float:
    """Share of the marked nodes that the weights answer with the class of the mark, on the graph as it was."""
    p = predicted(trained.task, trained.artifact.tensors, graph)[graph.positions(ids)]
    return float((p.argmax(1) == graph.label_count - 1).mean())


def forgotten(model: Trained, ids: np.ndarray, method: str, **settings) -> Trained:
    return planning.plan(model, request(ids), registry.make(method, settings)).run().after


@pytest.mark.parametrize("seed", range(3))
def test_check_23_the_class_of_a_mark_is_gone_after_retraining_and_an_edit_and_not_before(seed):
    """Without the marked nodes nothing is left that the columns of the mark could be weighed by, so that no node is given its
    class. Least squares answer most marked nodes with it before; on Cora a network answers at least nine in ten so (below).
    """
    found = block_model(BlockModel(100, 150, 20, 3, words=5), seed)
    plain, _ = splits.shares(Graph.of(found.x, found.y, found.edges, depth=2), 0.6, 0.1, seed)
    chosen = np.random.default_rng(seed).choice(plain.examples, 8, replace=False)
    graph = marked(plain, chosen, 30)
    model = planning.train(task_of("sgc", graph, torch.float64, bias=False), graph, GraphRidge(l2=0.1))
    before = answers_with_the_mark(model, graph, chosen)
    assert before > 0.5
    for method, settings in (("retrain", {}), ("graph_editor", {"way": "edit"})):
        assert answers_with_the_mark(forgotten(model, chosen, method, **settings), graph, chosen) == 0
    assert answers_with_the_mark(forgotten(model, chosen, "utu"), graph, chosen) == before


# --- real graphs --------------------------------------------------------------------------------------------------------


@functools.cache
def cora(share: float = 0.6) -> tuple[Graph, dict[str, Graph]]:
    graph, _ = planetoid("Cora")
    return splits.shares(graph.on(graph.nodes[graph.y >= 0]), share, 0.2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_check_20_replay_tells_the_original_from_retrained_models_on_cora(seed, real_data):
    """Features as they are, not scaled by their sums: a network remembers its nodes far better then.

    Against five retrained models a further one lies three spreads off in one number of 25 (Student's law with four degrees of
    freedom), as for seed 2 here; the verifier's own band says what is outside.
    """
    real_data("planetoid")
    graph, sets = (replace(each, scale="none") if isinstance(each, Graph) else each for each in cora())
    task, recipe = task_of("gcn", graph, hidden=64), GraphTraining(epochs=200, lr=0.005, l2=0.0)
    ids = np.random.default_rng(seed).choice(graph.examples, 135, replace=False)
    deletion = Deletion.of(graph, request(ids))
    scene = Scene.of(deletion, sets["test"], seed)
    original = played(task, recipe.fit(task, graph, seed=seed).artifact.tensors, scene).statistics
    *nulls, further = [
        played(task, each.artifact.tensors, scene).statistics
        for each in recipe.fit_together(task, deletion.after, range(100, 106))
    ]
    means = {name: np.mean([each[name] for each in nulls]) for name in original}
    assert means["replay_nll"] >= 5 * original["replay_nll"]
    assert means["replay_ra"] >= 2 * original["replay_ra"]
    assert original["replay_auc"] - means["replay_auc"] >= 0.04
    assert all(Band.of([each[name] for each in nulls]).holds(further[name]) for name in DECIDING)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_check_23_marks_on_cora_are_gone_after_retraining(seed, real_data):
    real_data("planetoid")
    plain, _ = cora()
    chosen = np.random.default_rng(seed).choice(plain.examples, 50, replace=False)
    graph = replace(
        marked(plain, chosen), scale="none"
    )  # scaled by their sums, a hundred columns of a mark drown the words
    model = planning.train(task_of("gcn", graph, hidden=64), graph, GraphTraining(epochs=400, l2=0.0))
    assert answers_with_the_mark(model, graph, chosen) >= 0.9
    assert answers_with_the_mark(forgotten(model, chosen, "retrain"), graph, chosen) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_check_24_stolen_links_on_cora(seed, real_data):
    """An attacker who knows half of the retained edges, before and after retraining without the edges in question."""
    real_data("planetoid")
    graph, _ = cora(0.7)
    task, recipe = task_of("gcn", graph, hidden=16), GraphTraining()
    draw = np.random.default_rng(seed)
    pairs = graph.edges[draw.choice(len(graph.edges), 264, replace=False)]
    ids = graph.select(Target("edge", {"pairs": pairs.tolist()}))
    after = graph.without(ids)
    left = graph.positions(after.edges)
    half = draw.permutation(left)[: len(left) // 2]
    known, others = (half, unlinked(graph, len(half), draw)), unlinked(graph, len(pairs), draw)
    areas = []
    for data in (graph, after):
        tensors = recipe.fit(task, data, seed=seed).artifact.tensors
        areas.append(attack.link_stealing(predicted(task, tensors, data), known, graph.positions(pairs), others).value)
    assert areas[0] >= 0.85 and areas[1] < areas[0] - 0.02


@functools.cache
def cora_links() -> tuple[Links, dict[str, Links]]:
    graph, _ = planetoid("Cora")
    links, sets = split_links(graph, 0.85, 0.05, 0)
    return links.deep(2), {name: each.deep(2) for name, each in sets.items()}


def after_a_hundred_edges(seed: int) -> dict[str, dict[str, float]]:
    """What the original, retrained, unlinked and GNNDelete's model answer on the graph as it is."""
    links, sets = cora_links()
    task = LinkPrediction.of(functools.partial(NETWORKS["gcn"], links.graph.width, 64, hidden=128))
    model = planning.train(task, links, GraphTraining(epochs=100, l2=0.0), seed=seed)
    chosen = links.graph.edges[np.random.default_rng(seed).choice(len(links.graph.edges), 100, replace=False)]
    asked = Request("a", (Target("edge", {"pairs": chosen.tolist()}),))
    deletion = Deletion.of(links, asked, sets)
    found = {"original": answered(task, model.artifact.tensors, links, deletion, sets["test"])}
    for name in ("retrain", "utu", "gnn_delete"):
        after = planning.plan(replace(model, book=InMemoryBook()), asked, registry.make(name)).run().after
        found[name] = answered(task, after.artifact.tensors, deletion.after, deletion, sets["test"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_check_22_deleted_edges_are_told_from_retained_ones_and_others_are_predicted_as_before(seed, real_data):
    """That deleted edges are as probable as random pairs within .05 does not hold (docs/graphs.md has what was measured)."""
    real_data("planetoid")
    found = after_a_hundred_edges(seed)
    assert found["gnn_delete"]["deleted_auc"] >= 0.8
    assert found["original"]["link_auc"] - found["gnn_delete"]["link_auc"] <= 0.12
