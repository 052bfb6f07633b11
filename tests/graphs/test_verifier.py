"""The verifier's parts against formulas, and what it says of models of which the truth is known."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy import stats

from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.splits import shares
from expunge.evidence.explanations import attribution, legacy
from expunge.evidence.explanations.replay import DECIDING, Scene, divergence, played
from expunge.evidence.explanations.structure import structure
from expunge.metrics.prediction_band import Band, Finding, verified
from expunge.tasks.graphs.networks import NETWORKS
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.graphs import GraphTraining

COLUMNS, CLASSES = 12, 3


def made(seed: int = 0, nodes: int = 40, edges: int = 60, share: float = 0.5) -> tuple[Graph, dict[str, Graph]]:
    found = block_model(BlockModel(nodes, edges, COLUMNS, CLASSES, words=3), seed)
    return shares(Graph.of(found.x, found.y, found.edges, depth=2), share, 0.1, seed)


def task_of(name: str = "gcn", **settings) -> NodeClassification:
    return NodeClassification.of(functools.partial(NETWORKS[name], COLUMNS, CLASSES, **settings), dtype=torch.float64)


def weights(task: NodeClassification, seed: int = 0) -> dict[str, torch.Tensor]:
    return task.released(task.build(seed=seed))


def deletion_of(graph: Graph, kind: str, seed: int = 0) -> Deletion:
    draw = np.random.default_rng(seed)
    nodes = np.sort(draw.choice(graph.examples, 4, replace=False)).tolist()
    pairs = graph.edges[draw.choice(len(graph.edges), 5, replace=False)].tolist()
    where = {"node": {"ids": nodes}, "edge": {"pairs": pairs}, "feature": {"node": nodes}}[kind]
    return Deletion.of(graph, Request("a", (Target(kind, where),)))


# --- attributions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_check_07_attributions_are_gradients_by_every_feature(name):
    """Finite differences of the loss by each feature, on a dense copy; and zero out of reach of every example."""
    graph, _ = made(nodes=14, edges=12)
    graph = graph.on(graph.examples[:2])
    task = task_of(name)
    found = attribution.of_nodes(task, weights(task), graph)
    model, batch = task.build(weights(task)).eval(), task.batch(graph)
    x = torch.from_numpy(graph.features.toarray()).double()

    def loss(features: torch.Tensor) -> float:
        out = model(features, batch["edge_index"])[batch["node"]]
        return float(torch.nn.functional.cross_entropy(out, batch["y"]).detach())

    step = 1e-6
    expected = np.zeros(len(graph.nodes))
    for at in np.ndindex(*x.shape):
        up, down = x.clone(), x.clone()
        up[at] += step
        down[at] -= step
        expected[at[0]] += abs(loss(up) - loss(down)) / (2 * step)
    if name == "gin":  # an empty node sits on the kink of ReLU, where two sides have two slopes
        full = np.diff(graph.x.indptr) > 0
        found, expected = found[full], expected[full]
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-7)
    dense = NodeClassification(task.factory, dtype=torch.float64)
    assert np.allclose(
        attribution.of_nodes(dense, weights(task), graph), attribution.of_nodes(task, weights(task), graph)
    )
    part = [attribution.of_nodes(task, weights(task), graph, np.array([c])) for c in range(COLUMNS)]
    assert np.allclose(sum(part), attribution.of_nodes(task, weights(task), graph))


@pytest.mark.parametrize("name", ["gcn", "gat", "graphsage"])
def test_attributions_of_edges_are_derivatives_by_their_weight(name):
    graph, _ = made(nodes=14, edges=12)
    task = task_of(name)
    found = attribution.of_edges(task, weights(task), graph)
    model, batch = task.build(weights(task)).eval(), task.batch(graph)
    params = dict(model.named_parameters())
    for edge in range(len(graph.edges)):
        values = []
        for step in (1e-6, -1e-6):
            weight = torch.ones(batch["edge_index"].shape[1], dtype=torch.float64)
            weight[[edge, edge + len(graph.edges)]] += step
            out = task.every(model, params, batch, weight)[batch["node"]]
            values.append(float(torch.nn.functional.cross_entropy(out, batch["y"]).detach()))
        assert found[edge] == pytest.approx(abs(values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-8)


def test_shares_of_attribution_add_up_to_all_and_ids_do_not_matter():
    graph, _ = made()
    task = task_of()
    found = attribution.of_nodes(task, weights(task), graph)
    single = [attribution.residual_attribution(found, np.arange(40) == i) for i in range(40)]
    assert sum(single) == pytest.approx(100)
    new = 500 - graph.nodes
    other = Graph.of(graph.x, graph.y, new[graph.ends], nodes=new, examples=new[graph.positions(graph.examples)])
    assert np.allclose(attribution.of_nodes(task, weights(task), other)[::-1], found)


# --- the published metrics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_check_06_residual_attribution_on_the_cut_graph_is_zero_for_any_weights(seed):
    """It is why the published metric cannot tell forgetting from editing the graph; replay of the same weights is as before."""
    graph, sets = made(seed)
    deletion, task = deletion_of(graph, "node", seed), task_of()
    random = weights(task, seed + 100)
    now = attribution.of_nodes(task, random, deletion.after)
    assert attribution.residual_attribution(now, np.isin(deletion.after.nodes, deletion.ids["node"])) == 0.0
    scene = Scene.of(deletion, sets["test"])
    before = attribution.residual_attribution(
        attribution.of_nodes(task, random, graph), np.isin(graph.nodes, deletion.ids["node"])
    )
    assert before > 0 and played(task, random, scene).statistics["replay_ra"] == pytest.approx(before, abs=1e-12)


def test_check_08_equal_snapshots_differ_by_nothing_and_shifts_are_symmetric():
    draw = np.random.default_rng(0)
    first, second = draw.random(30), draw.random(30)
    chosen = np.array([2, 8])
    assert legacy.heatmap_shift(first, first) == 0 == legacy.score_deviation(first, first, chosen)
    assert legacy.heatmap_shift(first, second) == legacy.heatmap_shift(second, first) > 0
    assert legacy.score_deviation(first, second, chosen) == legacy.score_deviation(second, first, chosen)
    graph, _ = made()
    deletion = deletion_of(graph, "edge")
    assert (
        legacy.edit_distance(graph, graph, deletion.ids)
        == 0
        < legacy.edit_distance(graph, deletion.after, deletion.ids)
    )
    found = legacy.rules(graph.x, graph.y)
    assert 1 <= len(found) <= 8 and legacy.rule_shift(found, found) == 0
    assert legacy.rule_shift(found, set()) == len(found)


def test_published_deviations_by_hand():
    """Positions after the deletion are counted anew: the released code compares one node with another."""
    before, after = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 5.0, 9.0])
    assert legacy.heatmap_shift(before, after) == pytest.approx((0 + 3 + 5) / 3)
    assert legacy.score_deviation(before, after, np.array([1, 3])) == pytest.approx((3 + 8) / 2)


def test_check_10_areas_do_not_change_under_monotone_maps():
    draw = np.random.default_rng(0)
    confidence, trained = draw.random(50), np.arange(50) < 20
    area = legacy.train_membership(confidence, trained)["auc"]
    assert legacy.train_membership(np.log(confidence), trained)["auc"] == area
    pairs = [(a > b) + (a == b) / 2 for a in confidence[:20] for b in confidence[20:]]
    assert area == pytest.approx(np.mean(pairs))
    assert legacy.train_membership(np.ones(50), trained)["auc"] == 0.5
    gone = legacy.forget_membership(confidence, np.array([], dtype=int), np.arange(3))
    assert np.isnan(gone["auc"])


@pytest.mark.parametrize("seed", range(5))
def test_check_09_what_went_from_the_graph_is_counted_exactly(seed):
    graph, _ = made(seed)
    incident = {tuple(e) for e in graph.edges.tolist()}
    for kind in ("node", "edge", "feature"):
        deletion = deletion_of(graph, kind, seed)
        found = structure(deletion)
        gone = set(deletion.ids["node"].tolist())
        expected = {"node": len(gone) + sum(bool({*e} & gone) for e in incident), "edge": 5, "feature": 0}[kind]
        assert found.distance == expected and found.as_asked
        assert found.features == (len(deletion.ids["feature"]) if kind == "feature" else 0)


# --- the band -----------------------------------------------------------------------------------------------------------


def test_the_band_is_students_prediction_interval():
    values = [3.0, 5.0, 4.0, 8.0]
    band = Band.of(values, 0.01)
    assert band.mean == 5 and band.spread == pytest.approx(np.std(values, ddof=1) * np.sqrt(1.25))
    assert band.limit == pytest.approx(stats.t.ppf(0.995, 3))
    assert band.holds(5 + 0.99 * band.spread * band.limit) and not band.holds(5 + 1.01 * band.spread * band.limit)
    with pytest.raises(InputError, match="at least 3"):
        Band.of([1.0, 2.0])


@pytest.mark.parametrize("n", [5, 20])
def test_the_band_misses_as_often_as_its_level_says(n):
    draw = np.random.default_rng(n)
    alpha, trials = 0.05, 4000
    outside = sum(not Band.of(draw.standard_normal(n), alpha).holds(draw.standard_normal()) for _ in range(trials))
    assert abs(outside / trials - alpha) < 4 * (alpha * (1 - alpha) / trials) ** 0.5


NULLS = [
    {"replay_nll": 1 + 0.01 * z, "replay_auc": 0.5 + 0.01 * z} for z in np.random.default_rng(0).standard_normal(20)
]


@pytest.mark.parametrize(
    ("mine", "finding"),
    [
        ({"replay_nll": 1.0, "replay_auc": 0.5}, Finding.FORGOTTEN),
        ({"replay_nll": 0.2, "replay_auc": 0.5}, Finding.RESIDUAL),
        ({"replay_nll": 0.3, "replay_auc": 0.5}, Finding.RESIDUAL),
        ({"replay_nll": 0.7, "replay_auc": 0.5}, Finding.PARTIAL),
        ({"replay_nll": 1.5, "replay_auc": 0.5}, Finding.OVER_FORGOTTEN),
        ({"replay_nll": 1.0, "replay_auc": 0.62}, Finding.RESIDUAL),
        ({"replay_nll": 1.0, "replay_auc": 0.3}, Finding.OVER_FORGOTTEN),
        ({"replay_ra": 3.0}, Finding.UNDECIDABLE),
    ],
)
def test_words_follow_from_where_a_model_lies(mine, finding):
    original = {"replay_nll": 0.2, "replay_auc": 0.6}
    found = verified(mine, original, NULLS, ("replay_nll", "replay_auc"))
    assert found.finding is finding and found.judgement.reason == found.reason
    words = {Finding.FORGOTTEN: "forgets", Finding.RESIDUAL: "under-forgets", Finding.PARTIAL: "under-forgets"}
    words |= {Finding.OVER_FORGOTTEN: "over-forgets", Finding.UNDECIDABLE: "undecidable"}
    assert found.judgement.word == words[finding]


def test_where_the_original_is_like_retrained_models_nothing_can_be_said():
    found = verified({"replay_nll": 1.0}, {"replay_nll": 1.001}, NULLS, ("replay_nll",))
    assert found.finding is Finding.UNDECIDABLE and "nothing could be seen" in found.reason
    assert verified({"replay_nll": 1.0}, {"replay_nll": 0.0}, NULLS[:2], ("replay_nll",)).finding is Finding.UNDECIDABLE


def test_divergence_is_that_of_kullback_and_leibler():
    nulls = np.array([[[0.5, 0.5]], [[0.7, 0.3]]])
    expected = 0.6 * np.log(0.6 / 0.2) + 0.4 * np.log(0.4 / 0.8)
    assert divergence(nulls, np.array([[0.2, 0.8]])) == pytest.approx(expected)
    assert divergence(nulls, np.array([[0.6, 0.4]])) == pytest.approx(0)


# --- truth known --------------------------------------------------------------------------------------------------------


@functools.cache
def studied(seed: int = 0) -> tuple:
    """A graph whose training nodes a network remembers, and retrained models without a tenth of them."""
    found = block_model(BlockModel(240, 400, COLUMNS * 4, CLASSES, homophily=0.5, words=5, topical=0.2), seed)
    graph, sets = shares(Graph.of(found.x, found.y, found.edges, depth=2), 0.6, 0.1, seed)
    task = NodeClassification.of(functools.partial(NETWORKS["gcn"], COLUMNS * 4, CLASSES, hidden=32, dropout=0.0))
    recipe = GraphTraining(epochs=100, lr=0.01, l2=0.0)
    gone = np.random.default_rng(seed).choice(graph.examples, 24, replace=False).tolist()
    deletion = Deletion.of(graph, Request("a", (Target("node", {"ids": gone}),)))
    original, other = recipe.fit_together(task, graph, [0, 1])
    retrained = recipe.fit_together(task, deletion.after, range(100, 115))
    scene = Scene.of(deletion, sets["test"])
    play = lambda trained: played(task, trained.artifact.tensors, scene).statistics  # noqa: E731
    return play(original), play(other), [play(each) for each in retrained]


@pytest.mark.parametrize("seed", range(3))
def test_check_21_retrained_models_have_forgotten_and_models_on_all_data_have_not(seed):
    original, other, retrained = studied(seed)
    nulls, further = retrained[:10], retrained[10:]
    found = [verified(each, original, nulls, DECIDING).finding for each in further]
    assert found.count(Finding.FORGOTTEN) >= 4  # of five; a true one lies outside of some band with chance .003
    for impostor in (original, other):  # nothing changed but the graph; and another training on everything
        assert verified(impostor, original, nulls, DECIDING).finding is Finding.RESIDUAL
