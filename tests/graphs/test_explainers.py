"""Explainers, fidelity, attacks on links, marked nodes and what a page draws, each against a formula written out here."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.markers import marked
from expunge.data.graphs.splits import shares
from expunge.evidence.explanations import attack, explainers
from expunge.evidence.explanations.explainers import STEPS, explainer
from expunge.evidence.explanations.fidelity import agreement, logit_distance
from expunge.evidence.explanations.neighbourhood import neighbourhood
from expunge.tasks.graphs.layers import GATConv, Neighbours
from expunge.tasks.graphs.networks import NETWORKS
from expunge.tasks.graphs.nodes import NodeClassification

COLUMNS, CLASSES = 10, 3


def made(seed: int = 0, nodes: int = 16, edges: int = 18) -> Graph:
    found = block_model(BlockModel(nodes, edges, COLUMNS, CLASSES, words=3), seed)
    return shares(Graph.of(found.x, found.y, found.edges, depth=2), 0.5, 0.1, seed)[0]


def task_of(name: str = "gcn") -> NodeClassification:
    return NodeClassification.of(functools.partial(NETWORKS[name], COLUMNS, CLASSES), dtype=torch.float64)


@pytest.mark.parametrize("name", ["gcn", "graphsage", "sgc"])
def test_integrated_gradients_are_their_integral_and_add_up_to_the_loss(name):
    """Against autograd on a dense copy at the same midpoints; without magnitudes the parts sum to L(x) - L(0)."""
    graph, task = made(), task_of(name)
    tensors = task.released(task.build(seed=3))
    model, batch = task.build(tensors).eval(), task.batch(graph)
    x = torch.from_numpy(graph.features.toarray()).double()

    def loss(features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(features, batch["edge_index"])[batch["node"]], batch["y"])

    total = torch.zeros_like(x)
    for step in range(STEPS):
        leaf = (x * (step + 0.5) / STEPS).requires_grad_()
        total += torch.autograd.grad(loss(leaf), [leaf])[0] / STEPS
    parts = x * total
    whole = float((loss(x) - loss(torch.zeros_like(x))).detach())
    assert float(parts.sum()) == pytest.approx(whole, abs=2e-3 * abs(whole) + 1e-4)
    way = explainer("integrated_gradients")
    assert np.allclose(way.nodes(task, tensors, graph, None), parts.abs().sum(1).numpy(), rtol=1e-9, atol=1e-12)
    some = np.array([1, 4])
    assert np.allclose(way.nodes(task, tensors, graph, some), parts[:, some].abs().sum(1).numpy(), atol=1e-12)


def test_a_mask_keeps_the_edges_that_the_labels_need(monkeypatch):
    """One hub holds the label of its leaves; edges among nodes that no example hears are worth nothing and fade first."""
    leaves, far = np.arange(1, 5), [(6, 7), (7, 8)]
    x = np.zeros((9, 2), np.float32)
    x[0] = [4, 0]
    graph = Graph.of(x, np.zeros(9, int), [*((0, i) for i in leaves), *far], examples=leaves, depth=1)
    task = NodeClassification.of(functools.partial(NETWORKS["sgc"], 2, 2, steps=1, bias=False), dtype=torch.float64)
    tensors = {"linear.weight": torch.tensor([[3.0, -3.0], [0.0, 0.0]], dtype=torch.float64)}
    monkeypatch.setattr(explainers, "RESTARTS", 1)
    monkeypatch.setattr(explainers, "EPOCHS", 40)
    kept = explainer("gnn_explainer").edges(task, tensors, graph)
    at_hub = (graph.edges == 0).any(1)
    assert kept.shape == (6,) and kept[at_hub].min() > kept[~at_hub].max() + 0.02
    monkeypatch.setattr(explainers, "masked_edges", lambda *_: kept)
    of_nodes = explainer("gnn_explainer").nodes(task, tensors, graph, None)
    assert of_nodes[0] == pytest.approx(kept[at_hub].sum() / 2) and of_nodes[5] == 0
    with pytest.raises(InputError, match="single columns"):
        explainer("gnn_explainer").nodes(task, tensors, graph, np.array([0]))
    with pytest.raises(InputError, match="explainer among saliency"):
        explainer("guess")


def test_integrated_edges_sum_to_what_all_messages_change(monkeypatch):
    """Signed, they are L with messages less L without, here by finite differences of each edge's factor."""
    steps = 8
    monkeypatch.setattr(explainers, "STEPS", steps)
    graph, task = made(nodes=8, edges=6), task_of("gcn")
    tensors = task.released(task.build(seed=1))
    model, batch = task.build(tensors).eval(), task.batch(graph)

    def loss(factor: float, edge: int | None = None, more: float = 0.0) -> float:
        weight = torch.full((batch["edge_index"].shape[1],), factor, dtype=torch.float64)
        if edge is not None:
            weight[[edge, edge + len(graph.edges)]] += more
        with torch.no_grad():
            out = model(batch["x"], batch["edge_index"], weight)[batch["node"]]
        return float(torch.nn.functional.cross_entropy(out, batch["y"]))

    found, h, signed = explainer("integrated_gradients").edges(task, tensors, graph), 1e-5, np.zeros(len(graph.edges))
    for at in (np.arange(steps) + 0.5) / steps:
        signed += [(loss(at, edge, h) - loss(at, edge, -h)) / (2 * h * steps) for edge in range(len(graph.edges))]
    assert signed.sum() == pytest.approx(loss(1.0) - loss(0.0), abs=2e-3)
    assert np.allclose(found, np.abs(signed), rtol=1e-4, atol=1e-8)


def test_attention_is_read_off_the_network_by_its_formula():
    """One layer, two heads, against equation 3 of the paper written out for every pair of neighbours."""
    graph = made()
    task = NodeClassification.of(
        functools.partial(NETWORKS["gat"], COLUMNS, CLASSES, hidden=3, heads=2), dtype=torch.float64
    )
    tensors = task.released(task.build(seed=2))
    way, model = explainer("attention"), task.build(tensors).eval()
    found = way.edges(task, tensors, graph)
    total, x = np.zeros((len(graph.nodes), len(graph.nodes))), torch.from_numpy(graph.features.toarray()).double()
    layers = [module for module in model.modules() if isinstance(module, GATConv)]
    for number, layer in enumerate(layers):
        weight = layer.project.weight.detach()
        h = (x @ weight).reshape(len(x), layer.heads, -1)
        for head in range(layer.heads):
            hears, heard = ((h[:, head] * each[head]).sum(1).detach() for each in (layer.hears, layer.heard))
            score = torch.nn.functional.leaky_relu(hears[:, None] + heard[None, :], 0.2).numpy()
            near = graph.adjacency.toarray() + np.eye(len(x))
            share = np.where(near > 0, np.exp(score), 0)
            total += share / share.sum(1, keepdims=True) / layer.heads / len(layers)
        if number + 1 < len(layers):
            with torch.no_grad():
                neighbours = Neighbours.of(task.batch(graph)["edge_index"], len(x))
                x = model.activation(layer(x, neighbours))
    first, second = graph.ends.T
    assert np.allclose(found, total[first, second] + total[second, first])
    assert np.allclose(way.nodes(task, tensors, graph, None), (total * graph.adjacency.toarray()).sum(0))
    with pytest.raises(InputError, match="GCN has none"):
        way.edges(task_of(), task_of().released(task_of().build()), graph)
    with pytest.raises(InputError, match="single columns"):
        way.nodes(task, tensors, graph, np.array([0]))


def test_agreement_and_distance_by_hand():
    a = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    b, c = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), a + np.array([[5.0], [-1.0], [7.0]])
    assert agreement(a, [b]) == pytest.approx(100 / 3) and agreement(a, [b, c]) == pytest.approx((100 / 3 + 100) / 2)
    apart = [np.linalg.norm([0.5, -0.5]), np.linalg.norm([-1.0, 1.0]), np.linalg.norm([1.5, -1.5])]
    assert logit_distance(a, [b]) == pytest.approx(np.mean(apart)) and logit_distance(a, [c]) == pytest.approx(0)


def test_trends_are_dips_against_neighbours():
    adjacency = Graph.of(np.ones((4, 1)), np.zeros(4, int), [(0, 1), (1, 2)]).adjacency
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.5, 0.5]])
    found = attack.confidence_trend(p, adjacency)
    assert np.allclose(found[:, 0], [0.6 - 0.9, 0.8 - 0.6, 0.6 - 0.7, 0 - 0.5])
    assert np.allclose(found[:, 1], [0.8 - 0.6, 0.6 - 0.8, 0.8 - 0.6, 0])


def test_an_attacker_who_knows_some_links_finds_others_and_none_in_noise(monkeypatch):
    monkeypatch.setattr(attack, "_ATTACKER_EPOCHS", 40)
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 300)
    alike = np.eye(3)[y] * 0.7 + draw.dirichlet(np.ones(3), 300) * 0.3
    noise = draw.dirichlet(np.ones(3), 300)
    pairs = draw.integers(0, 300, (1000, 2))
    same = y[pairs[:, 0]] == y[pairs[:, 1]]
    linked, others = pairs[same], pairs[~same]
    known = linked[:150], others[:150]
    found = attack.link_stealing(alike, known, linked[150:300], others[150:450])
    blind = attack.link_stealing(noise, known, linked[150:300], others[150:450])
    assert found.value > 0.95 and abs(blind.value - 0.5) < 0.1
    turned = attack.link_stealing(alike, known, linked[150:300, ::-1], others[150:450])
    assert turned.value == pytest.approx(found.value)  # whichever end is named first


def test_a_mark_is_on_the_marked_nodes_alone():
    graph = made()
    chosen = graph.examples[:3]
    found = marked(graph, chosen, 4)
    new = found.x.toarray()[:, COLUMNS:]
    there = np.isin(graph.nodes, chosen)
    assert (new[there] == 1).all() and not new[~there].any() and found.width == COLUMNS + 4
    assert (found.y[there] == CLASSES).all() and np.array_equal(found.y[~there], graph.y[~there])
    assert np.array_equal(found.x.toarray()[:, :COLUMNS], graph.x.toarray())
    with pytest.raises(InputError, match="trained on"):
        marked(graph, np.setdiff1d(graph.nodes, graph.examples)[:1])


def test_a_neighbourhood_holds_the_heaviest_named_nodes_and_what_was_cut():
    graph = made(nodes=60, edges=90)
    named = graph.examples[:8].tolist()
    deletion = Deletion.of(graph, Request("a", (Target("node", {"ids": named}),)))
    weight = np.random.default_rng(0).random(60)
    found = neighbourhood(deletion, weight, centres=3, most=20)
    assert len(found.places) <= 20 == len(np.unique(found.places)) or len(found.places) < 20
    heaviest = sorted(named, key=lambda node: -weight[node])[:3]
    assert set(heaviest) <= set(graph.nodes[found.places].tolist()) and (found.centres, found.of) == (3, 8)
    for (first, second), cut in zip(found.places[found.edges], found.cut, strict=True):
        assert graph.adjacency[first, second] == 1 and cut == (
            graph.nodes[first] in named or graph.nodes[second] in named
        )
    inside = np.isin(graph.ends, found.places).all(1).sum()
    assert len(found.edges) == inside and np.array_equal(found.named, found.gone)
