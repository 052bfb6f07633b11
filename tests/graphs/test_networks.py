"""Five graph networks against dense formulas, derivatives, stacked training, and how far a deletion reaches."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.data.graphs import names
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.reach import affected, radius
from expunge.tasks.graphs.networks import GAT, GCN, GIN, NETWORKS, SGC, GraphSAGE
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.tasks.graphs.sparse import Pattern
from expunge.training.graphs import GraphTraining, stackable

COLUMNS, CLASSES = 6, 3
SMALL = {
    "gcn": {"hidden": 4},
    "gat": {"hidden": 3, "heads": 2},
    "graphsage": {"hidden": 4},
    "gin": {"hidden": 4},
    "sgc": {},
}


def made(seed: int = 0, nodes: int = 30, edges: int = 45, depth: int | None = 2) -> Graph:
    found = block_model(BlockModel(nodes, edges, COLUMNS, CLASSES, words=2), seed)
    return Graph.of(found.x, found.y, found.edges, depth=depth)


def task_of(name: str, **settings) -> NodeClassification:
    factory = functools.partial(NETWORKS[name], COLUMNS, CLASSES, **{**SMALL[name], **settings})
    return NodeClassification.of(factory, dtype=torch.float64)


def logits(task: NodeClassification, graph: Graph, seed: int = 0) -> Tensor:
    model = task.build(seed=seed).eval()
    return task.every(model, dict(model.named_parameters()), task.batch(graph)).detach()


def dense(graph: Graph) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(graph.features.toarray()).double(), torch.from_numpy(graph.adjacency.toarray()).double()


def symmetric(adjacency: Tensor) -> Tensor:
    looped = adjacency + torch.eye(len(adjacency), dtype=torch.float64)
    scale = looped.sum(1).rsqrt()
    return scale[:, None] * looped * scale


def by_hand(name: str, model: torch.nn.Module, x: Tensor, adjacency: Tensor) -> Tensor:
    p = dict(model.named_parameters())
    norm, n = symmetric(adjacency), len(adjacency)
    if name == "sgc":
        return norm @ norm @ (x @ p["linear.weight"] + p["linear.bias"])
    h = x
    for layer in (0, 1):
        w = functools.partial(lambda at, leaf: p[f"layers.{at}.{leaf}"], layer)
        if name == "gcn":
            h = norm @ h @ w("project.weight") + w("bias")
        elif name == "graphsage":
            mean = adjacency / adjacency.sum(1, keepdim=True).clamp_min(1)
            h = h @ w("own.weight") + mean @ h @ w("others.weight") + w("bias")
        elif name == "gin":
            total = ((1 + w("eps")) * torch.eye(n, dtype=torch.float64) + adjacency) @ h
            inner = torch.relu(total @ w("first.weight") + w("bias"))
            h = inner @ w("second.weight") + w("second.bias")
        else:
            heads, width = w("heard").shape
            z = (h @ w("project.weight")).reshape(n, heads, width)
            score = (z * w("heard")).sum(-1)[None] + (z * w("hears")).sum(-1)[:, None]  # [target, source, head]
            score = torch.nn.functional.leaky_relu(score, 0.2)
            allowed = (adjacency + torch.eye(n)) > 0
            share = torch.softmax(score.masked_fill(~allowed[:, :, None], -torch.inf), 1)
            out = torch.einsum("tsh,shw->thw", share, z)
            h = (out.flatten(1) if layer == 0 else out.mean(1)) + w("bias")
        if layer == 0:
            h = torch.nn.functional.elu(h) if name == "gat" else torch.relu(h)
    return h


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_networks_are_their_papers_formulas(name, seed):
    graph, task = made(seed), task_of(name)
    model = task.build(seed=seed).eval()
    if name == "gin":
        with torch.no_grad():
            model.layers[0].eps.fill_(0.3)
    found = task.every(model, dict(model.named_parameters()), task.batch(graph))
    assert torch.allclose(found, by_hand(name, model, *dense(graph)), atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_compressed_and_dense_features_give_the_same(name):
    graph, task = made(), task_of(name)
    other = NodeClassification(task.factory, dtype=torch.float64, compressed=False, depth=2)
    assert torch.allclose(logits(task, graph), logits(other, graph), atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_ids_do_not_matter(name):
    """Renaming nodes renames the rows of the logits and changes nothing else."""
    graph, task = made(), task_of(name)
    new = 1000 - 7 * graph.nodes
    renamed = Graph.of(graph.x, graph.y, new[graph.ends], nodes=new)
    order = renamed.positions(new)
    assert torch.allclose(logits(task, renamed)[order], logits(task, graph), atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_finite_differences_twice(name):
    graph, task = made(nodes=6, edges=5), task_of(name, **({} if name == "sgc" else {"dropout": 0.0, "hidden": 2}))
    model, batch = task.build().eval(), task.batch(graph)
    draw = torch.Generator().manual_seed(1)  # biases of zero would put empty nodes on the kink of ReLU
    weights = {
        n: t.detach() + 0.3 * torch.randn(t.shape, generator=draw, dtype=t.dtype) for n, t in model.named_parameters()
    }

    def loss(*values: Tensor) -> Tensor:
        out = functional_call(model, dict(zip(weights, values, strict=True)), (batch["x"], batch["edge_index"]))
        return torch.nn.functional.cross_entropy(out, batch["y"])

    inputs = [t.clone().requires_grad_() for t in weights.values()]
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-5)
    assert torch.autograd.gradgradcheck(loss, inputs, atol=1e-5)


def test_sparse_products_have_gradients_by_values_and_by_the_dense_matrix():
    draw = torch.Generator().manual_seed(0)
    flat = torch.randperm(30, generator=draw)[:11]
    pattern, order = Pattern.of(flat // 6, flat % 6, (5, 6))
    values = torch.randn(11, dtype=torch.float64, generator=draw)[order].requires_grad_()
    right = torch.randn(6, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    full = torch.zeros(5, 6, dtype=torch.float64).index_put((pattern.rows, pattern.columns), values)
    assert torch.allclose(pattern.times(values, right), full @ right)
    assert torch.autograd.gradcheck(pattern.times, (values, right))
    assert torch.autograd.gradgradcheck(pattern.times, (values, right))


@pytest.mark.parametrize("name", ["gcn", "gat"])  # the others are made of the same products
def test_models_train_stacked_as_they_train_alone_dropout_included(name):
    graph, task, recipe = made(), task_of(name), GraphTraining(epochs=4, lr=0.02)
    seeds = [3, 1, 9]
    assert stackable(task, graph)
    together = recipe.fit_together(task, graph, seeds)
    for seed, stacked in zip(seeds, together, strict=True):
        alone = recipe.fit(task, graph, seed=seed).artifact.tensors
        for name_, tensor in alone.items():
            assert torch.allclose(tensor, stacked.artifact.tensors[name_], atol=1e-10), name_
    again = recipe.fit_together(task, graph, [9, 4])[0].artifact.tensors  # whatever it is stacked with
    assert all(torch.allclose(again[n], together[2].artifact.tensors[n], atol=1e-10) for n in again)


class Batched(torch.nn.Module):
    """Its nodes depend on one another by running statistics: not to be stacked."""

    depth = 1

    def __init__(self):
        super().__init__()
        self.linear, self.norm = torch.nn.Linear(COLUMNS, CLASSES), torch.nn.BatchNorm1d(CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.norm(self.linear(x)).index_add(0, edge_index[1], self.linear(x)[edge_index[0]])


def test_models_that_cannot_be_stacked_are_trained_one_after_another():
    task, graph = NodeClassification.of(Batched), made()
    assert not stackable(task, graph)
    recipe = GraphTraining(epochs=3)
    first, second = recipe.fit_together(task, graph, [0, 1])
    assert torch.equal(
        recipe.fit(task, graph, seed=1).artifact.tensors["linear.weight"], second.artifact.tensors["linear.weight"]
    )
    assert not torch.equal(first.artifact.tensors["linear.weight"], second.artifact.tensors["linear.weight"])


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_check_17_labels_of_other_nodes_never_enter(name):
    """Other labels on every node that is not trained on: the same weights, bit for bit."""
    graph, task = made().on(np.arange(0, 30, 3)), task_of(name)
    other = graph.y.copy()
    hidden = np.setdiff1d(graph.nodes, graph.examples)
    other[hidden] = (other[hidden] + 1) % CLASSES
    changed = Graph.of(graph.x, other, graph.edges, examples=graph.examples)
    first, second = (GraphTraining(epochs=5).fit(task, each).artifact.tensors for each in (graph, changed))
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_check_18_the_same_seed_gives_the_same_weights():
    task, graph = task_of("gcn"), made()
    first, second, third = (GraphTraining(epochs=5).fit(task, graph, seed=s).artifact.tensors for s in (0, 0, 1))
    assert all(torch.equal(first[n], second[n]) for n in first) and any(
        not torch.equal(first[n], third[n]) for n in first
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_check_11_a_deletion_reaches_as_far_as_the_radius_says(name, depth):
    """Brute force on random graphs: nothing outside changes, and some node at the very edge of the ball does."""
    settings = {"steps": depth} if name == "sgc" else {"depth": depth}
    task = task_of(name, **settings)
    assert task.depth == depth and task.symmetric == (name in ("gcn", "sgc"))
    reached = dict.fromkeys(("node", "edge", "feature"), False)
    for seed in range(20 if depth == 2 else 8):
        graph = made(seed, nodes=40, edges=38, depth=depth)
        busy = graph.nodes[np.diff(graph.adjacency.indptr) > 0]
        filled = graph.nodes[np.diff(graph.x.indptr) > 0]
        column = graph.x[graph.positions(filled[:1])].indices.astype(np.int64)
        asks = {
            "node": Ids({"node": busy[:1]}),
            "edge": Ids({"edge": names.of_edges(graph.edges[:1])}),
            "feature": Ids({"feature": names.joined(np.repeat(filled[:1], len(column)), column)}),
        }
        for kind, ids in asks.items():
            after = graph.without(ids)
            then, now = logits(task, graph), logits(task, after)
            stay = graph.positions(after.nodes)
            changed = np.zeros(len(graph.nodes), dtype=bool)
            changed[stay] = ((then[stay] - now).abs().amax(1) > 1e-9).numpy()
            ball = affected(graph, ids, depth, task.symmetric)
            assert not (changed & ~ball).any(), (kind, seed)
            smaller = radius(kind, depth, task.symmetric) > 0
            inner = affected(graph, ids, depth - 1, task.symmetric) if smaller else np.zeros_like(ball)
            reached[kind] |= bool((changed & ball & ~inner).any())
    assert all(reached.values()), reached


def test_deleted_operators_come_and_go_with_the_weights():
    from expunge.tasks.graphs.operators import Operator, Operators

    task, graph = task_of("gcn"), made()
    model = task.build()
    eye = [Operator(torch.eye(k, dtype=torch.float64), torch.tensor([1, 5])) for k in (4, CLASSES)]
    model.add_module("deletion", Operators([eye]))
    tensors = task.released(model)
    built = task.build(tensors).eval()
    same = task.every(built, dict(built.named_parameters()), task.batch(graph))
    assert torch.equal(same, logits(task, graph))
    tensors["deletion.rounds.0.1.weight"] = 2 * torch.eye(CLASSES, dtype=torch.float64)
    built = task.build(tensors).eval()
    twice = task.every(built, dict(built.named_parameters()), task.batch(graph))
    factor = torch.where(torch.isin(torch.arange(30), torch.tensor([1, 5])), 2.0, 1.0).double()
    assert torch.allclose(twice, same * factor[:, None])
    del tensors["deletion.rounds.0.0.nodes"]
    with pytest.raises(InputError, match="behind every stage"):
        task.build(tensors)


@pytest.mark.parametrize("kind", [GCN, GAT, GIN, GraphSAGE, SGC])
def test_a_model_that_does_not_fit_is_refused_in_words(kind):
    task = NodeClassification.of(functools.partial(kind, COLUMNS + 1, CLASSES))
    with pytest.raises(InputError, match="does not accept a graph of 30 nodes"):
        task.check(made())
    with pytest.raises(InputError, match="labels below 2"):
        NodeClassification.of(functools.partial(kind, COLUMNS, 2)).check(made())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "low", "high"), [("Cora", 0.805, 0.825), ("CiteSeer", 0.695, 0.72)])
def test_check_19_accuracy_on_the_public_split_is_the_published_one(name, low, high, real_data):
    from expunge.data.graphs.planetoid import planetoid

    graph, sets = planetoid(name, real_data("planetoid"))
    task = NodeClassification.of(functools.partial(GCN, graph.x.shape[1], graph.label_count))
    scores = []
    for trained in GraphTraining().fit_together(task, graph, range(5)):
        model, batch = task.build(trained.artifact.tensors).eval(), task.batch(sets["test"])
        found = task.outputs(model, dict(model.named_parameters()), batch).logits.argmax(1)
        scores.append(float((found == batch["y"]).float().mean()))
    assert low <= np.mean(scores) <= high, scores
