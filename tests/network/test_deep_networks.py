"""Corrections of networks that are no linear head: the Gauss-Newton matrix in closed form, retraining, and what is refused."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from tests.network.networks import digits, recipe

from expunge import planning
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Budget, Fact, InMemoryBook, Origin
from expunge.curvature import weighted_network
from expunge.curvature.weighted_head import WeightedHead
from expunge.curvature.weighted_network import WeightedNetwork
from expunge.data.partition import evenly
from expunge.methods.network_newton import NetworkNewton
from expunge.network.correction import network_objective
from expunge.network.topology import Topology
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron


def network_of(sizes: tuple[int, ...]) -> Classification:
    return Classification(functools.partial(perceptron, sizes), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_products_are_those_of_the_matrix_written_out_however_examples_are_parted(seed, monkeypatch):
    generator = torch.Generator().manual_seed(seed)
    rows, task = digits(n=20), network_of((17, 4, 10))
    model, batch = task.build(seed=seed), task.batch(rows)
    like = dict(model.named_parameters())
    sizes = [t.numel() for t in like.values()]
    theta, v = (torch.randn(sum(sizes), generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.rand(len(rows), generator=generator, dtype=torch.float64)

    def logits(flat):
        parts = {n: part.view(t.shape) for (n, t), part in zip(like.items(), flat.split(sizes), strict=True)}
        return task.outputs(model, parts, batch).logits

    def value(flat):
        losses = torch.nn.functional.cross_entropy(logits(flat), batch["y"], reduction="none")
        return (weights * losses).sum() + 0.15 * flat.square().sum()

    derivative, p = torch.func.jacrev(logits)(theta), torch.softmax(logits(theta), 1)
    whole = 0.3 * torch.eye(len(theta), dtype=torch.float64)
    for w, j, q in zip(weights, derivative, p, strict=True):
        whole = whole + w * j.T @ (torch.diag(q) - torch.outer(q, q)) @ j
    for at_once in (512, 7):
        monkeypatch.setattr(weighted_network, "AT_ONCE", at_once)
        ours = WeightedNetwork(task, model, like, batch, weights, 0.3)
        assert torch.allclose(ours.gradient(theta), torch.func.grad(value)(theta), atol=1e-10)
        assert torch.allclose(ours.gauss_newton(theta)(v), whole @ v, atol=1e-10)


def test_of_a_linear_head_the_matrix_is_the_hessian():
    data, names = evenly(digits(), 4), ("0", "1", "2", "3")
    task = Classification(lambda: SoftmaxHead(17, 10), dtype=torch.float64)
    start = dict(task.build().state_dict())
    head = network_objective(task, data, Topology.make("ring", names), 0.1, start)
    assert isinstance(head, WeightedHead)
    general = WeightedNetwork(task, task.build(start), start, task.batch(data), head.weights[0], 0.1)
    theta, v = (torch.randn(170, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    assert torch.allclose(general.gradient(theta), head.gradient(theta), atol=1e-12)
    assert torch.allclose(general.gauss_newton(theta)(v), head.gauss_newton(theta)(v), atol=1e-12)


@functools.cache
def trained(seed: int = 0):
    data = evenly(digits(), 10)
    return planning.train(network_of((17, 16, 10)), data, recipe(rounds=60, lr=0.5, l2=1e-3), seed=seed)


def ran(method: NetworkNewton, seed: int = 0):
    asked = Request("a", (Target("class", {"label": 3, "client": "4"}),))
    return planning.plan(replace(trained(seed), book=InMemoryBook()), asked, method).run()


@pytest.mark.parametrize("seed", range(3))
def test_a_correction_brings_a_perceptron_closer_to_retraining_and_promises_nothing(seed):
    network, outcome = trained(seed), ran(NetworkNewton(tolerance=1e-4, max_products=100), seed)
    retrained = network.recipe.fit(network.task, outcome.deletion.after, seed=seed).artifact.tensors
    before, after = (
        float(sum((model[name] - retrained[name]).square().sum() for name in retrained)) ** 0.5
        for model in (network.secret, outcome.after.secret)
    )
    assert after < before / 1.5 and outcome.verdict == "no-certificate"


@pytest.mark.parametrize("settings", [{"correction": "stacked"}, {"correction": "difference", "curvature": "kfac"}])
def test_what_is_written_out_for_linear_heads_is_refused_on_others(settings):
    with pytest.raises(RefusedError, match="written out for linear heads"):
        ran(NetworkNewton(**settings))


def test_no_deep_network_is_published_for_a_certificate_even_where_constants_are_declared():
    declared = Fact(1.0, Origin.DECLARED, "the operator's word")
    network = replace(trained(), facts={**trained().facts, "strong_convexity": declared, "smoothness": declared})
    budget, method = Budget(1.0, 1e-5, capacity=200), NetworkNewton(distance=0.2, tau=1.0)
    with pytest.raises(InputError, match="certifies linear heads alone"):
        planning.publish(network, budget, method=method)
    with pytest.raises(RefusedError, match="certifies linear heads alone"):
        asked = Request("a", (Target("client", {"client": "4"}),))
        planning.plan(replace(network, budget=replace(budget, sigma=1.0), book=InMemoryBook()), asked, method).run()
