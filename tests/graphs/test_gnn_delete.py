"""GNNDelete against its losses by hand, what stays as it was, and what a second request finds (check 12)."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import nodes
from expunge import planning
from expunge.core.data import Deletion
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.pairs import unlinked
from expunge.evidence.distance import trainable_distance
from expunge.methods import registry
from expunge.methods.gnn_delete import Frozen, GNNDelete, Region, embedding_loss, learn, probability_loss
from expunge.tasks.graphs.networks import NETWORKS
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.graphs import GraphTraining

COLUMNS, CLASSES = 6, 3
SIZES = {"gcn": {"hidden": 4}, "gat": {"hidden": 2, "heads": 2}, "sgc": {}}


@functools.cache
def trained(name: str = "gcn") -> Trained:
    made = block_model(BlockModel(40, 60, COLUMNS, CLASSES, words=2), 3)
    graph = Graph.of(made.x, made.y, made.edges, examples=made.nodes[::2], depth=2)
    task = NodeClassification.of(
        functools.partial(NETWORKS[name], COLUMNS, CLASSES, **SIZES[name]), dtype=torch.float64
    )
    return planning.train(task, graph, GraphTraining(epochs=10))


def edges(count: int = 3, start: int = 0) -> Request:
    pairs = trained().data.edges[start : start + count].tolist()
    return Request("a", (Target("edge", {"pairs": pairs}),))


def outputs(task, tensors, graph: Graph) -> Tensor:
    model = task.build(tensors).eval()
    return task.every(model, dict(model.named_parameters()), task.batch(graph)).detach()


def by_hand(graph: Graph, p: dict, matrices: list[Tensor], near: list[set[int]]) -> list[Tensor]:
    """Both layers of a GCN with matrices behind them, from dense formulas; ``near`` holds ids."""
    x, a = torch.from_numpy(graph.features.toarray()).double(), torch.from_numpy(graph.adjacency.toarray()).double()
    looped = a + torch.eye(len(a), dtype=torch.float64)
    norm = looped / (looped.sum(1)[:, None] * looped.sum(1)).sqrt()
    found, h = [], x
    for layer in (0, 1):
        h = norm @ (torch.relu(h) if layer else h) @ p[f"layers.{layer}.project.weight"] + p[f"layers.{layer}.bias"]
        inside = torch.tensor([int(node) in near[layer] for node in graph.nodes])[:, None]
        h = torch.where(inside, h @ matrices[layer], h)
        found.append(h)
    return found


def ball(graph: Graph, centres: set[int], hops: int) -> set[int]:
    """Breadth first, on a list of pairs."""
    for _ in range(hops):
        centres = centres | {b for pair in graph.edges.tolist() for a, b in (pair, pair[::-1]) if a in centres}
    return centres


def losses_by_hand(request: Request, matrices: list[Tensor], target: np.ndarray) -> list[Tensor]:
    model = trained()
    p, graph = model.artifact.tensors, model.data
    gone = {tuple(sorted(pair)) for pair in request.targets[0].where["pairs"]}
    retained = Graph.of(graph.x, graph.y, [e for e in graph.edges.tolist() if tuple(e) not in gone])
    ends = {end for pair in gone for end in pair}
    near = [ball(graph, ends, hops) for hops in (1, 2)]
    eye = [torch.eye(4, dtype=torch.float64), torch.eye(CLASSES, dtype=torch.float64)]
    now, then = by_hand(retained, p, matrices, near), by_hand(retained, p, eye, near)
    u, v = torch.tensor(sorted(gone)).T
    losses = []
    for h, h0, inside in zip(now, then, near, strict=True):
        kept = torch.tensor(sorted(inside - ends))
        pair = torch.cat([h[u], h[v]], 1) - torch.cat([h0[target[:, 0]], h0[target[:, 1]]], 1)
        losses.append(0.5 * pair.square().mean() + 0.5 * (h[kept] - h0[kept]).square().mean())
    return losses


def test_check_12_a_layerwise_step_follows_each_stage_s_own_loss():
    """Two steps of Adam on losses from dense formulas; the second stage's loss moves the second matrix alone."""
    request, model = edges(), trained()
    draw = np.random.default_rng(0)
    target = unlinked(model.data, 3, draw)
    matrices = [torch.full((k, k), 1e-3, dtype=torch.float64, requires_grad=True) for k in (4, CLASSES)]
    first, second = ([torch.zeros_like(matrix) for matrix in matrices] for _ in range(2))
    for step in (1, 2):
        losses = losses_by_hand(request, matrices, target)
        for at, (loss, matrix) in enumerate(zip(losses, matrices, strict=True)):
            (gradient,) = torch.autograd.grad(loss, [matrix], retain_graph=True)
            first[at], second[at] = 0.9 * first[at] + 0.1 * gradient, 0.999 * second[at] + 0.001 * gradient**2
        with torch.no_grad():  # Adam (Kingma and Ba 2015, algorithm 1)
            for matrix, m, v in zip(matrices, first, second, strict=True):
                matrix -= 1e-2 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    outcome = planning.plan(model, request, GNNDelete(epochs=2, lr=1e-2)).run()
    tensors = outcome.releases[0].artifact.tensors
    for stage, matrix in enumerate(matrices):
        assert torch.allclose(tensors[f"deletion.rounds.0.{stage}.weight"], matrix.detach(), atol=1e-10)
    joint = planning.plan(model, request, GNNDelete(epochs=2, lr=1e-2, mode="joint")).run()
    first = joint.releases[0].artifact.tensors["deletion.rounds.0.0.weight"]
    assert not torch.allclose(first, matrices[0].detach(), atol=1e-6)  # there it follows the second stage as well


def test_check_12_the_identity_changes_nothing_and_the_start_has_rank_one():
    model, deletion = trained(), Deletion.of(trained().data, edges())
    region = Region.of(deletion, (1, 2), "retained")
    built = model.task.build(model.artifact.tensors).eval().requires_grad_(False)
    frozen = Frozen.on(model.task, built, region.graph)
    plain = frozen.stages(lambda stage, h: h)
    near = [torch.from_numpy(each)[:, None] for each in region.near]
    same = frozen.stages(lambda stage, h: torch.where(near[stage], h @ torch.eye(h.shape[1]).double(), h))
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    start = plain[0][torch.from_numpy(region.near[0])] @ torch.full((4, 4), 1e-3, dtype=torch.float64)
    assert torch.linalg.matrix_rank(start) == 1
    assert torch.allclose(start, 1e-3 * plain[0][torch.from_numpy(region.near[0])].sum(1, keepdim=True).expand(-1, 4))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("loss", ["node_embedding", "edge_probability"])
def test_check_12_the_backbone_and_everything_far_away_stay_bit_for_bit(name, loss):
    model = trained(name)
    outcome = planning.plan(model, edges(), GNNDelete(loss=loss, epochs=4, lr=1e-2)).run()
    artifact, task = outcome.releases[0].artifact, model.task
    assert artifact.form == "operator" and outcome.status == "fulfilled" and outcome.verdict == "no-certificate"
    assert all(torch.equal(artifact.tensors[n], t) for n, t in model.artifact.tensors.items())
    assert trainable_distance(task.build(), artifact.tensors, model.artifact.tensors) == 0  # it compares backbones
    after = outcome.deletion.after
    apart = (outputs(task, artifact.tensors, after) != outputs(task, model.artifact.tensors, after)).any(1).numpy()
    region = Region.of(outcome.deletion, task.build().gathers, "retained")
    reach = ball(model.data, set(model.data.nodes[region.near[0]].tolist()), 1 if name != "sgc" else 0)
    reach |= set(model.data.nodes[region.near[-1]].tolist())
    assert apart.any() and set(after.nodes[apart].tolist()) <= reach
    details = outcome.details
    assert details["deleted_edges"] == 3
    size = sum(t.numel() * t.element_size() for n, t in artifact.tensors.items() if n.startswith("deletion"))
    assert details["state_bytes_per_edge"] * 3 == size == details["state_bytes"]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_on_probabilities_is_that_of_inner_products(share):
    """All pairs nearby are few here: what is drawn of them has their mean."""
    deletion = Deletion.of(trained().data, edges())
    region = Region.of(deletion, (1, 2), "retained")
    draw = torch.Generator().manual_seed(0)
    h, h0 = (torch.randn(40, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    found = probability_loss(h, h0, region, GNNDelete(lambda_=share, pairs=200_000), np.random.default_rng(1))
    random = unlinked(trained().data, 3, np.random.default_rng(1))
    dot = lambda z, pairs: torch.stack([z[a] @ z[b] for a, b in pairs])  # noqa: E731
    deleted = (dot(h, region.edges) - dot(h0, random)).square().mean()
    inside, gone = np.flatnonzero(region.near[-1]), {tuple(sorted(pair)) for pair in region.edges.tolist()}
    around = [(a, b) for a in inside for b in inside if a != b and tuple(sorted((int(a), int(b)))) not in gone]
    kept = (dot(h, around).sigmoid() - dot(h0, around).sigmoid()).square().mean()
    assert float(found) == pytest.approx(float(share * deleted + (1 - share) * kept), rel=0.02)


def test_what_the_released_graph_keeps_is_what_the_option_says():
    deletion = Deletion.of(trained().data, edges())
    retained, released = (Region.of(deletion, (1, 2), which) for which in ("retained", "released"))
    assert len(retained.graph.edges) == 57 and len(released.graph.edges) == 60 and len(released.retained.edges) == 57


@pytest.mark.parametrize("name", ["gcn", "sgc"])
def test_a_second_request_acts_on_what_the_first_left(name):
    model = trained(name)
    first = planning.plan(model, edges(), GNNDelete(epochs=3)).run()
    second = planning.plan(first.after, nodes(5), GNNDelete(epochs=3)).run()
    one, two = first.releases[0].artifact.tensors, second.releases[0].artifact.tensors
    assert all(torch.equal(two[n], one[n]) for n in one) and "deletion.rounds.1.0.weight" in two
    assert not second.after.data.has(np.array([5])).any() and 5 in two["deletion.rounds.1.0.nodes"].tolist()
    outputs(model.task, two, second.after.data)
    third = planning.plan(second.after, nodes(6), registry.make("retrain")).run()
    assert third.releases[0].artifact.tensors.keys() == model.artifact.tensors.keys()


def test_deleted_edges_come_near_random_pairs_and_others_stay():
    """The loss on both parts falls, at the settings for small models, over several draws of the request."""
    model = trained()
    for start in (0, 10):
        deletion = Deletion.of(model.data, edges(3, start))
        region = Region.of(deletion, (1, 2), "retained")
        built = model.task.build(model.artifact.tensors).eval().requires_grad_(False)
        frozen = Frozen.on(model.task, built, region.graph)
        plain = frozen.stages(lambda stage, h: h)
        losses = []
        for epochs in (1, 60):
            draw = np.random.default_rng(0)
            weights = learn(GNNDelete(epochs=epochs, lr=3e-2), frozen, plain, region, draw, lambda *_: None)
            target = torch.from_numpy(unlinked(region.before, 3, np.random.default_rng(0)))
            near = [torch.from_numpy(each)[:, None] for each in region.near]
            now = frozen.stages(lambda stage, h, w=weights, n=near: torch.where(n[stage], h @ w[stage], h))
            losses.append(float(embedding_loss(now[0], plain[0], region, region.kept[0], target, 0.5).detach()))
        assert losses[1] < 0.9 * losses[0]


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match="as loss of gnn_delete"):
        GNNDelete(loss="embedding")
    with pytest.raises(InputError, match="as lambda_ of gnn_delete"):
        GNNDelete(lambda_=2.0)
    alone = trained().data.nodes[np.diff(trained().data.adjacency.indptr) == 0]
    assert len(alone)
    with pytest.raises(RefusedError, match="no edge goes with this request"):
        planning.plan(trained(), nodes(int(alone[0])), GNNDelete())
    with pytest.raises(InputError, match="nearly all"):
        unlinked(Graph.of(np.eye(2), [0, 1], [[0, 1]]), 1, np.random.default_rng(0))


def test_five_requests_of_mixed_kinds_follow_one_another_and_ids_keep_their_meaning():
    state, gone = trained(), []
    draw = np.random.default_rng(4)
    for number in range(5):
        graph = state.data
        busy = graph.examples[np.diff(graph.adjacency.indptr)[graph.positions(graph.examples)] > 0]
        node, other = (int(each) for each in draw.choice(busy, 2, replace=False))
        pair = next(edge for edge in graph.edges.tolist() if node not in edge)
        targets = (
            Target("node", {"ids": [node]}), Target("edge", {"pairs": [pair]}), Target("feature", {"node": other}),
        )  # fmt: skip
        outcome = planning.plan(state, Request("a", targets[: 1 + number % 3]), GNNDelete(epochs=1)).run()
        state = outcome.after
        gone.append(node)
        assert f"deletion.rounds.{number}.1.weight" in state.artifact.tensors
        assert node in state.artifact.tensors[f"deletion.rounds.{number}.1.nodes"].tolist()
    assert not state.data.has(np.array(gone)).any() and len(state.data.nodes) == 35 and len(set(gone)) == 5
    assert outputs(state.task, state.artifact.tensors, state.data).isfinite().all()
