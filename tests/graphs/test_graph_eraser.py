"""GraphEraser: partitions and their caps, aggregators by formulas, and which networks a request changes (check 13)."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from cases import CASES, nodes, sharded_network, small_graph, small_network
from expunge import planning
from expunge.core.data import Ids
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.graphs.partitions import PARTITIONS, cap, partition
from expunge.methods.graph_eraser import GraphEraser
from expunge.tasks.graphs.shards import AGGREGATORS, ShardedNetwork
from expunge.training.graph_shards import NODES, SHARD, GraphShards
from expunge.training.graphs import GraphTraining


@functools.cache
def trained(how: str = "random", aggregator: str = "mean") -> Trained:
    return planning.train(sharded_network(3, aggregator), small_graph(), GraphShards(partition=how, epochs=8))


def members(tensors, shard: int) -> dict[str, torch.Tensor]:
    head = f"members.{shard}."
    return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}


@pytest.mark.parametrize("how", PARTITIONS)
def test_check_13_shards_hold_all_training_nodes_once_and_none_more_than_its_cap(how):
    for seed in range(3):
        for shards in (2, 7):
            of = partition(small_graph(seed), shards, how, seed)
            sizes = np.bincount(of, minlength=shards)
            assert len(of) == sizes.sum() == 30 and sizes.max() <= cap(30, shards) and len(sizes) == shards
            assert np.array_equal(of, partition(small_graph(seed), shards, how, seed))


def test_label_propagation_keeps_more_edges_inside_of_shards_than_chance():
    inside = {}
    for how in ("random", "blpa"):
        kept = 0
        for seed in range(5):
            graph = small_graph(seed)
            of = dict(zip(graph.examples.tolist(), partition(graph, 3, how, seed), strict=True))
            kept += sum(of.get(a, -1) == of.get(b, -2) for a, b in graph.edges.tolist())
        inside[how] = kept
    assert inside["blpa"] > 1.2 * inside["random"]


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_answers_are_put_together_as_the_formula_says(aggregator):
    model = trained(aggregator=aggregator)
    task, graph = model.task, model.data
    built = task.build(model.artifact.tensors).eval()
    found = task.every(built, dict(built.named_parameters()), task.batch(graph)).detach().exp().numpy()
    alone, each = small_network(), []
    for shard in range(3):
        member = alone.build(members(model.artifact.tensors, shard)).eval()
        logits = alone.every(member, dict(member.named_parameters()), alone.batch(graph)).detach()
        each.append(torch.softmax(logits, 1).numpy())
    shares = model.artifact.tensors["shares"].numpy()
    if aggregator == "majority":
        votes = sum(np.eye(3)[p.argmax(1)] for p in each)
        assert np.allclose(found, (votes + 1 / 3) / 4, atol=1e-5)
        return
    assert (np.ptp(shares) > 1e-4) == (aggregator == "learned") and shares.sum() == pytest.approx(1)
    assert np.allclose(found, sum(w * p for w, p in zip(shares, each, strict=True)), atol=1e-5)


@pytest.mark.parametrize("how", PARTITIONS)
@pytest.mark.parametrize("aggregator", ["mean", "learned"])
def test_check_13_a_request_changes_the_networks_of_its_shards_alone(how, aggregator):
    model = trained(how, aggregator)
    node = int(model.data.examples[4])
    outcome = planning.plan(model, nodes(node), GraphEraser()).run()
    now, shard = outcome.after, int(model.secret[SHARD][4])
    for other in range(3):
        same = [torch.equal(members(now.secret, other)[n], t) for n, t in members(model.secret, other).items()]
        assert all(same) == (other != shard)
    stays = np.setdiff1d(model.data.examples, [node])
    mine = stays[model.secret[SHARD].numpy()[np.isin(model.data.examples, stays)] == shard]
    induced = now.data.without(Ids({"node": np.setdiff1d(now.data.nodes, mine)}))
    by_hand = GraphTraining(epochs=8).fit(small_network(), induced, seed=shard).artifact.tensors
    assert all(torch.equal(by_hand[name], tensor) for name, tensor in members(now.secret, shard).items())
    assert node not in now.secret[NODES].tolist() and outcome.details == {"shards_retrained": 1, "shards": 3}
    assert torch.equal(now.secret["shares"], model.secret["shares"]) == (aggregator == "mean")
    later = planning.plan(now, nodes(int(stays[0])), GraphEraser()).run()
    assert len(later.after.secret[NODES]) == 28


def test_edges_count_where_a_shard_saw_them():
    model = trained()
    of = dict(zip(model.secret[NODES].tolist(), model.secret[SHARD].tolist(), strict=True))
    edges = model.data.edges.tolist()
    inside = next(pair for pair in edges if of.get(pair[0], -1) == of.get(pair[1], -2))
    across = [pair for pair in edges if of.get(pair[0], -1) != of.get(pair[1], -2)]
    one = Request("a", (Target("edge", {"pairs": [inside]}),))
    assert planning.plan(model, one, GraphEraser()).run().details["shards_retrained"] == 1
    with pytest.raises(RefusedError, match="No shard saw what goes"):
        planning.plan(model, Request("a", (Target("edge", {"pairs": across[:2]}),)), GraphEraser())


def test_what_cannot_be_served_is_refused_in_words():
    model = trained()
    whole = model.secret[NODES][model.secret[SHARD] == 1].tolist()
    with pytest.raises(RefusedError, match="Every training node of shard 1"):
        planning.plan(model, nodes(*whole), GraphEraser())
    with pytest.raises(RefusedError, match="Expected a network of shards"):
        planning.plan(CASES["graph"].ready(), CASES["graph"].request, GraphEraser())
    with pytest.raises(RefusedError, match="which node is in which shard"):
        planning.plan(replace(model, state=None), nodes(3), GraphEraser())
    with pytest.raises(InputError, match="1 to 30 shards"):
        partition(small_graph(), 31, "random", 0)
    with pytest.raises(InputError, match="an aggregator among"):
        ShardedNetwork(small_network().factory, 3, "mode")
