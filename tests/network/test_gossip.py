"""Gossip against independent loops; whose rows are whose; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.network.networks import NAMES, digits, head, partition, recipe

from cases import FIXED, PointTask
from expunge import planning
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.data.partition import Partition, by_label, evenly
from expunge.data.rows import Rows
from expunge.methods.retrain import Retrain
from expunge.network.gossip import gossip
from expunge.network.influence import spread
from expunge.network.mixing import metropolis, with_drops
from expunge.network.peers import Peers
from expunge.network.topology import Topology
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron
from expunge.training.recipes import GradientDescent


def one_by_one(task, data, topology, start, rounds, lr, l2):
    """The paper's update, one object a peer and autograd."""
    models = [{n: t.clone() for n, t in start.items()} for _ in topology.peers]
    matrix, module = metropolis(topology).toarray(), task.build(start)
    for _ in range(rounds):
        gradients = []
        for peer, model in zip(topology.peers, models, strict=True):
            leaves = {n: t.clone().requires_grad_() for n, t in model.items()}
            batch = task.batch(data, torch.from_numpy(data.at(peer)))
            loss = task.losses(module, leaves, batch).mean() + l2 / 2 * sum(t.square().sum() for t in leaves.values())
            gradients.append(dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True)))
        models = [
            {n: sum(matrix[i, j] * models[j][n] for j in range(len(models))) - lr * gradients[i][n] for n in start}
            for i in range(len(models))
        ]
    return models


@pytest.mark.parametrize("network", ["head", "closed perceptron", "by torch.func"])
@pytest.mark.parametrize("alpha", [None, 0.5])  # equal and very different numbers of rows
def test_stacked_rounds_are_those_of_one_object_a_peer(network, alpha):
    data = partition(10, alpha)
    factory = {
        "closed perceptron": lambda: perceptron([17, 6, 10]),
        "by torch.func": lambda: torch.nn.Sequential(torch.nn.Linear(17, 6), torch.nn.GELU(), torch.nn.Linear(6, 10)),
    }
    task = head(data) if network == "head" else Classification(factory[network], dtype=torch.float64)
    topology = Topology.make("ring", NAMES)
    start = dict(task.build(seed=3).state_dict())
    peers = Peers.of(task, data, topology, 1e-2, start)
    assert (peers.form is None) is (network == "by torch.func")
    stacked = gossip(peers, topology, peers.stacked(start), 5, 0.3).models
    for i, model in enumerate(one_by_one(task, data, topology, start, 5, 0.3, 1e-2)):
        for name, tensor in peers.named(stacked[i]).items():
            assert torch.allclose(tensor, model[name], atol=1e-12), (network, i, name)


def test_check_a02_on_a_complete_graph_equal_models_descend_as_one():
    """Only the first round starts from equal models; the mean of unequal ones follows the mean gradient at each."""
    data = partition()
    task, topology = head(data), Topology.make("complete", NAMES)
    start = dict(task.build().state_dict())
    peers = Peers.of(task, data, topology, 1e-2, start)
    central = planning.train(task, Rows(data.x, data.y, data.ids), GradientDescent(steps=1, lr=2.0, l2=1e-2))
    mean = gossip(peers, topology, peers.stacked(start), 1, 2.0).models.mean(0)
    assert (mean - central.artifact.tensors["linear.weight"].reshape(-1)).abs().max() < 1e-9
    # mixing after the step on a complete graph makes all models equal: ten rounds of step-then-mix are gradient descent
    stacked = peers.stacked(start)
    for _ in range(10):
        stacked = gossip(peers, topology, stacked, 1, 2.0).models.mean(0).expand(10, -1).clone()
    central = planning.train(task, Rows(data.x, data.y, data.ids), GradientDescent(steps=10, lr=2.0, l2=1e-2))
    assert (stacked[0] - central.artifact.tensors["linear.weight"].reshape(-1)).abs().max() < 1e-9


@pytest.mark.parametrize("kind", ["ring", "erdos_renyi"])
@pytest.mark.parametrize("client", ["0", "4"])
def test_check_a03_influence_of_examples_is_as_derived_where_nothing_curves(kind, client):
    """Losses linear in the weights: two real runs differ by exactly what ``spread`` says."""
    x = np.random.default_rng(1).standard_normal((60, 4))
    data = evenly(Rows.of(x, np.zeros(60, dtype=int), preprocessing=FIXED), 10)
    task = PointTask(4, lambda theta, batch: batch["x"] @ theta)
    topology, gone = Topology.make(kind, NAMES), data.ids[data.at(client)[:2]]
    without = data.without(data.only(data.select(Target("samples", {"ids": gone.tolist()}))).select(
        Target("samples", {"ids": gone.tolist()})
    ))  # fmt: skip
    runs = []
    for rows in (data, without):
        start = dict(task.build().state_dict())
        peers = Peers.of(task, rows, topology, 0.0, start)
        runs.append(gossip(peers, topology, peers.stacked(start), 12, 0.5).models)
    difference = (without.x[without.at(client)].mean(0) - data.x[data.at(client)].mean(0)).numpy()
    expected = spread(metropolis(topology), int(client), np.tile(difference, (12, 1)), 0.5)
    assert np.abs((runs[1] - runs[0]).numpy() - expected).max() < 1e-12


def test_lost_messages_are_on_record_and_repeat():
    data = partition()
    task, topology = head(data), Topology.make("ring", NAMES)
    start = dict(task.build().state_dict())
    peers = Peers.of(task, data, topology, 1e-2, start)
    run = gossip(peers, topology, peers.stacked(start), 8, 2.0, drop=0.3, seed=5)
    again = gossip(peers, topology, peers.stacked(start), 8, 2.0, drop=0.3, seed=5)
    assert run.lost is not None and 0.1 < run.lost.mean() < 0.5 and torch.equal(run.models, again.models)
    stacked, local = peers.stacked(start), peers.all_examples()
    for lost in run.lost:  # the effective matrix of each round, made again from the record
        matrix = torch.from_numpy(with_drops(metropolis(topology), lost, topology).toarray())
        stacked = matrix @ stacked - 2.0 * local.gradient(stacked)
    assert torch.allclose(stacked, run.models, atol=1e-13)


@pytest.mark.parametrize("seed", [0, 1])
def test_drawn_examples_are_each_peers_own_and_their_gradient_is_unbiased(seed):
    data = partition(10, 0.5)
    task, topology = head(data), Topology.make("ring", NAMES)
    start = dict(task.build().state_dict())
    peers = Peers.of(task, data, topology, 0.0, start)
    stacked = peers.stacked(start) + 0.1 * torch.randn(
        10, 170, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    exact, generator = peers.all_examples().gradient(stacked), np.random.default_rng(seed)
    drawn = torch.stack([peers.sampled(200, generator).gradient(stacked) for _ in range(30)])
    error = (drawn.mean(0) - exact).norm() / exact.norm()
    assert error < 6 / np.sqrt(30 * 200) * 2  # gradients of one example are about twice as long as their mean


def test_a_network_trains_on_record_and_its_peers_hold_one_model():
    data = partition()
    trained = planning.train(head(data), data, recipe())
    assert tuple(trained.views) == data.clients and len({id(view) for view in trained.views.values()}) == 1
    apart = planning.train(head(data), data, recipe(consensus=False))
    stacked = torch.stack([view.tensors["linear.weight"] for view in apart.views.values()])
    assert (stacked[0] - stacked[1]).norm() > 1e-3
    assert torch.allclose(stacked.mean(0), trained.artifact.tensors["linear.weight"], atol=1e-12)
    assert {trained.facts[n].origin.value for n in ("strong_convexity", "gradient_bound")} == {"proved"}


def test_a_client_that_leaves_takes_its_edges_along():
    data = partition()
    task = head(data)
    gone = data.select(Target("client", {"client": "3"}))
    assert len(gone) == 100
    left = recipe(consensus=False).fit(task, data.without(gone))
    assert tuple(left.views) == tuple(name for name in NAMES if name != "3")
    both = data.select(Target("client", {"client": ["3", "7"]}))
    with pytest.raises(RefusedError, match="cut set"):
        recipe().fit(task, data.without(both))
    assert len(recipe(rewire=True).fit(task, data.without(both)).views) == 8


def test_targets_find_a_client_and_a_class_at_one_client():
    data = by_label(digits(), 5, 1.0)
    with_name = Target("class", {"label": 2, "client": "1"})
    ids = data.select(with_name)["row"]
    at = np.isin(data.ids, ids)
    assert len(ids) > 0 and (data.y.numpy()[at] == 2).all() and (data.owners[at] == "1").all()
    assert at.sum() == ((data.y.numpy() == 2) & (data.owners == "1")).sum()
    trained = planning.train(head(data), data, recipe(clients=5))
    for target, said in (
        (Target("client", {"client": "9"}), "client '9'"),
        (Target("client", {"hospital": "1"}), "says where"),
        (Target("class", {"label": 11, "client": "1"}), "label 11"),
    ):
        with pytest.raises(InputError, match=said):
            planning.plan(trained, Request("a", (target,)), Retrain())


def test_whose_rows_are_whose_must_be_said_without_doubt():
    rows = digits()
    with pytest.raises(InputError, match="'hospital' is not one"):
        Partition.of_rows(rows, "hospital")
    doubled = Rows.of(rows.x[:4], rows.y[:4], {"who": [["a", "b"], "a", "b", "a"]}, preprocessing=FIXED)
    with pytest.raises(InputError, match="Expected one owner for each row"):
        Partition.of_rows(doubled, "who")
    with pytest.raises(InputError, match="have none"):
        by_label(rows, 200, 0.01)
    with pytest.raises(InputError, match="alpha > 0"):
        by_label(rows, 5, 0.0)
    data, task = partition(5), head(rows)
    start = dict(task.build().state_dict())
    with pytest.raises(InputError, match="rows at every peer; 5, 6"):
        Peers.of(task, data, Topology.make("ring", NAMES), 0.0, start)
    with pytest.raises(InputError, match="4 is none"):
        Peers.of(task, data, Topology.make("ring", NAMES[:4]), 0.0, start)
    with pytest.raises(InputError, match="an owner for each row"):
        Peers.of(task, rows, Topology.make("ring", NAMES), 0.0, start)
    moved = Partition.of_rows(Rows(data.x, data.y, data.ids, {"client": np.roll(data.owners, 1)}), "client")
    assert moved.digest != data.digest  # the same rows elsewhere train another network
    normed = Classification(
        lambda: torch.nn.Sequential(torch.nn.Linear(17, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 10)),
        dtype=torch.float64,
    )
    with pytest.raises(InputError, match="trainable weights alone"):
        Peers.of(normed, partition(), Topology.make("ring", NAMES), 0.0, dict(normed.build().state_dict()))


def test_divergence_is_an_error_with_the_round():
    data = partition()
    with pytest.raises(InputError, match=r"diverged.*smaller step size"):
        recipe(rounds=400, lr=1e6, l2=1.0).fit(head(data), data)
