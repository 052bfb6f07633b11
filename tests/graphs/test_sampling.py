"""Sampled neighbourhoods: what is drawn, that drawing everything is the whole graph, and that training on them learns."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from expunge import planning
from expunge.core.errors import InputError
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.splits import shares
from expunge.tasks.graphs.networks import NETWORKS
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.tasks.graphs.sampling import SampledNodes, rows_of, sampled
from expunge.tasks.graphs.sparse import Pattern
from expunge.training.sampled_graphs import SampledGraphTraining
from expunge.training.stored_recipes import from_record, settings_record


@functools.cache
def made(seed: int = 0) -> tuple[Graph, dict[str, Graph]]:
    found, sets = shares(block_model(BlockModel(200, 700, 40, 3, words=8), seed), 0.6, 0.1, seed)
    return replace(found, depth=2), sets


def task_of(name: str = "gcn", **settings) -> NodeClassification:
    return NodeClassification.of(functools.partial(NETWORKS[name], 40, 3, **settings), dtype=torch.float64)


def hears(graph: Graph) -> Pattern:
    both = torch.from_numpy(np.concatenate([graph.ends, graph.ends[:, ::-1]]))
    return Pattern.of(both[:, 1], both[:, 0], (len(graph.nodes),) * 2)[0]


@pytest.mark.parametrize("seed", range(3))
def test_each_node_hears_as_many_different_neighbours_as_its_hop_allows(seed):
    graph, _ = made()
    torch.manual_seed(seed)
    seeds = torch.randperm(200)[:9]
    nodes, (source, target) = sampled(hears(graph), seeds, (2, 3))
    assert torch.equal(nodes[:9], seeds) and len(torch.unique(nodes)) == len(nodes)
    dense, degree = graph.adjacency.toarray(), np.diff(graph.adjacency.indptr)
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert len(pairs) == len(source) and all(dense[nodes[a], nodes[b]] for a, b in pairs)
    heard = np.bincount(target.numpy(), minlength=len(nodes))
    assert np.array_equal(heard[:9], np.minimum(degree[seeds.numpy()], 2))
    first = np.unique(source[target < 9].numpy())
    first = first[first >= 9]
    assert np.array_equal(heard[first], np.minimum(degree[nodes[first].numpy()], 3))
    assert not heard[np.setdiff1d(np.arange(9, len(nodes)), first)].any()


def test_every_neighbour_is_drawn_equally_often():
    star = Graph.of(np.eye(6), np.zeros(6, int), [(0, i) for i in range(1, 6)])
    pattern, counts = hears(star), np.zeros(6)
    torch.manual_seed(0)
    for _ in range(2000):
        nodes, (source, _) = sampled(pattern, torch.tensor([0]), (2,))
        counts[nodes[source].numpy()] += 1
    expected, spread = 2000 * 2 / 5, (2000 * 0.4 * 0.6) ** 0.5
    assert counts[0] == 0 and np.abs(counts[1:] - expected).max() < 4 * spread


@pytest.mark.parametrize("name", ["gcn", "gat", "graphsage"])
def test_with_all_neighbours_drawn_the_losses_are_those_of_the_whole_graph(name):
    """Of a network that averages without the degrees of others; a convolution needs one hop more to know these degrees."""
    graph, _ = made()
    task = task_of(name, dropout=0.0)
    model = task.build(seed=1).train()
    batch = task.batch(graph)
    hops = (1000, 1000) if name != "gcn" else (1000, 1000, 1000)
    own = SampledNodes.around(task, hops)
    params, part = dict(model.named_parameters()), batch.take(torch.arange(7))
    assert torch.allclose(own.losses(model, params, part), task.losses(model, params, part), rtol=1e-9)
    few = SampledNodes.around(task, (1, 1))
    assert not torch.allclose(few.losses(model, params, part), task.losses(model, params, part), rtol=1e-3)
    assert torch.equal(few.losses(model.eval(), params, part), task.losses(model, params, part))


def test_rows_of_a_compressed_matrix_are_its_rows():
    graph, _ = made()
    x = task_of().shared(graph)["x"]
    rows = torch.tensor([5, 0, 199, 7])
    assert torch.equal(rows_of(x, rows).to_dense(), x.to_dense()[rows])
    assert torch.equal(rows_of(x.to_dense(), rows), x.to_dense()[rows])


@pytest.mark.parametrize("seed", range(3))
def test_training_on_samples_learns_repeats_itself_and_is_stored(seed):
    graph, sets = made()
    recipe = SampledGraphTraining(epochs=15, lr=0.01, batch_size=32, fan_out=(3, 3))
    task = task_of("graphsage", hidden=16)
    first, again = (planning.train(task, graph, recipe, seed=seed) for _ in range(2))
    assert all(torch.equal(first.artifact.tensors[n], t) for n, t in again.artifact.tensors.items())
    model = task.build(first.artifact.tensors).eval()
    with torch.no_grad():
        batch = task.batch(sets["test"])
        right = task.outputs(model, dict(model.named_parameters()), batch).logits.argmax(1) == batch["y"]
    assert float(right.double().mean()) > 0.6  # chance is a third
    assert first.fact("batch") == "mini-batch" and from_record(settings_record(recipe)) == recipe


def test_a_fan_out_that_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match="at least one neighbour"):
        SampledGraphTraining(fan_out=(5, 0))
    with pytest.raises(InputError, match="each of the 2 hops"):
        SampledGraphTraining(fan_out=(5,)).fit(task_of(), made()[0])
