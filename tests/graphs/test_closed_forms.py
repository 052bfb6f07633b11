"""Derivatives of graph convolutions that are written out, against autograd; and which models have them."""

from __future__ import annotations

import functools

import pytest
import torch

from expunge.core.errors import InputError
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import split_links
from expunge.tasks.graphs.closed_forms import closed_form_of_convolutions
from expunge.tasks.graphs.links import LinkPrediction
from expunge.tasks.graphs.networks import GCN, NETWORKS
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.graphs import GraphTraining

COLUMNS, CLASSES = 6, 3


def made(nodes: int = 30, edges: int = 45) -> Graph:
    found = block_model(BlockModel(nodes, edges, COLUMNS, CLASSES, words=2), 0)
    return Graph.of(found.x, found.y, found.edges, depth=2)


def by_autograd(task, model, batch, sign):
    loss = sign * task.losses(model, dict(model.named_parameters()), batch).mean()
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("kind", [NodeClassification, LinkPrediction])
@pytest.mark.parametrize(("depth", "hidden", "dropout"), [(1, 4, 0.5), (2, 20, 0.5), (3, 5, 0.3), (2, 4, 0.0)])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(("training", "sign"), [(True, 1.0), (False, -1.0)])
def test_derivatives_in_closed_form_are_those_of_autograd(kind, depth, hidden, dropout, compressed, training, sign):
    factory = functools.partial(GCN, COLUMNS, CLASSES, hidden=hidden, depth=depth, dropout=dropout)
    task = kind.of(factory, dtype=torch.float64, compressed=compressed)
    data = made() if kind is NodeClassification else split_links(made(), 0.8, 0.1, 0)[0]
    model = task.build(seed=1).train(training)
    for number in range(depth):  # biases begin at zero, and ReLU at its joint would hide a wrong one
        torch.nn.init.normal_(model.layers[number].bias, generator=torch.Generator().manual_seed(number))
    batch = task.batch(data).take(torch.arange(1, len(data), 2))
    form = closed_form_of_convolutions(task, model)
    assert form is not None
    torch.manual_seed(5)
    found = form.gradient(dict(model.named_parameters()), batch, training, sign)
    torch.manual_seed(5)
    expected = by_autograd(task, model, batch, sign)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.abs().max() > 1e-4, name  # it says something
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)


def test_training_is_that_of_autograd_and_a_loss_that_is_not_finite_is_refused(monkeypatch):
    task, graph = NodeClassification.of(functools.partial(GCN, COLUMNS, CLASSES), dtype=torch.float64), made()
    recipe = GraphTraining(epochs=6)
    fast = recipe.fit(task, graph, seed=2).artifact.tensors
    with pytest.raises(InputError, match="not finite"):
        GraphTraining(epochs=6, lr=1e200, optimizer="sgd").fit(task, graph)
    monkeypatch.setattr(NodeClassification, "closed_form", lambda *_: None)
    slow = recipe.fit(task, graph, seed=2).artifact.tensors
    assert all(torch.allclose(fast[name], slow[name], atol=1e-10) for name in slow)
    assert any(not torch.equal(fast[name], slow[name]) for name in slow)  # two ways of rounding: it was the closed form


class Own(GCN):
    """Somebody's own network: what it computes is not known."""


def hooked(model):
    model.layers[0].register_forward_hook(lambda *_: None)
    return model


def activated(model):
    model.activation = torch.tanh
    return model


def frozen(model):
    model.layers[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "change",
    [hooked, activated, frozen, lambda model: model.half(), lambda _: Own(COLUMNS, CLASSES)],
    ids=["hooked", "activated", "frozen", "half", "subclass"],
)
def test_a_model_that_is_changed_in_any_way_is_differentiated_by_autograd(change):
    task = NodeClassification.of(functools.partial(GCN, COLUMNS, CLASSES))
    assert closed_form_of_convolutions(task, task.build()) is not None
    assert closed_form_of_convolutions(task, change(task.build())) is None


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"gcn"}))
def test_other_networks_are_differentiated_by_autograd(name):
    task = NodeClassification.of(functools.partial(NETWORKS[name], COLUMNS, CLASSES))
    assert closed_form_of_convolutions(task, task.build()) is None


def test_a_task_of_its_own_is_differentiated_by_autograd():
    class Weighed(NodeClassification):
        def losses(self, model, params, batch, weight=None):
            return 2 * super().losses(model, params, batch, weight)

    task = Weighed(functools.partial(GCN, COLUMNS, CLASSES), compressed=True)
    assert closed_form_of_convolutions(task, task.build()) is None
