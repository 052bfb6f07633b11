"""From a checked job for a graph network to live objects: task, graph, recipe; and what its request may not ask."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.measurement import OWN_PROBES
from expunge.data.graphs import selecting, splits
from expunge.data.graphs.block_model import block_model
from expunge.data.graphs.files import coauthor, read_graph
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, graph_of, split_links
from expunge.data.graphs.planetoid import planetoid
from expunge.modalities.graph import config
from expunge.modalities.id_files import read_ids
from expunge.modalities.named import module_factory, must_be_free, must_exist, resolve
from expunge.tasks.graphs.links import LinkPrediction
from expunge.tasks.graphs.networks import NETWORKS
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.tasks.graphs.shards import ShardedNetwork
from expunge.training.graph_minimiser import GraphMinimiser
from expunge.training.graph_ridge import GraphRidge
from expunge.training.graph_shards import GraphShards
from expunge.training.graphs import GraphTraining
from expunge.training.sampled_graphs import SampledGraphTraining


def data_of(source: Any, predict: str) -> tuple[Any, dict[str, Any]]:
    """The graph with its training nodes (or edges) as examples, and the sets to measure on."""
    if predict == "links" and not isinstance(source.split, config.SharesSplit):
        raise InputError("Edges are split by shares: set data.split to {kind: shares, train: 0.9, validation: 0.05}.")
    match source:
        case config.PlanetoidData():
            graph, sets = planetoid(source.name, source.path)
            if isinstance(source.split, config.PublicSplit):
                return graph, sets
            graph = graph.on(graph.nodes[graph.y >= 0])
        case config.CoauthorData():
            graph = coauthor(source.name, source.path)
        case config.BlockModelData():
            graph = block_model(source.preset, source.seed)
        case _:
            graph = read_graph(source.path, source.edges, label=source.label, node=source.node, scale=source.scale)
    split = source.split
    if isinstance(split, config.SharesSplit):
        if predict == "links":
            return split_links(graph, split.train, split.validation, split.seed)
        return splits.shares(graph, split.train, split.validation, split.seed)
    assert isinstance(split, config.PerClassSplit)
    return splits.per_class(graph, split.train, split.validation, split.seed)


def own_sets(source: config.OwnSets, data: Graph | Links, sets: Mapping[str, Any]) -> dict[str, Graph]:
    """The operator's own sets and probes: nodes by their ids, one on each line of a file, with the labels of the graph.

    Raises:
        InputError: for a file that holds no ids, nodes that are not there or have no label, a name that is taken, or links.
    """
    must_be_free(source.sets, [*sets])
    files = {**source.sets, **({} if source.probes is None else {OWN_PROBES: source.probes})}
    if files and isinstance(data, Links):
        raise InputError(
            "data.sets and data.probes name nodes with labels; a model of links is measured on edges. Leave them out."
        )
    found = {}
    for name, path in files.items():
        try:
            found[name] = data.on(read_ids(path, "ids of nodes"))  # pyright: ignore[reportAttributeAccessIssue]
        except InputError as error:
            raise InputError(f"data.sets, {name} ({path.name}): {error}") from None
    return found


def task_of(setup: Any, data: Graph | Links) -> NodeClassification:
    """The task."""
    must_exist(setup.device)
    settings = dict(setup.model_settings)
    own = setup.model in NETWORKS
    if own:
        width, outputs = (data.graph.width, VECTOR) if isinstance(data, Links) else (data.width, data.label_count)
        settings = {"inputs": width, "classes": outputs, **settings}
    elif ":" not in setup.model:
        raise InputError(
            f"Expected model among {', '.join(NETWORKS)}, or package.module:callable; got {setup.model!r}."
        )
    factory = module_factory(setup.model, NETWORKS[setup.model] if own else resolve(setup.model), settings)
    if isinstance(data, Links) and setup.training.kind in OF_NODES:
        raise InputError(
            f"training: {{kind: {setup.training.kind}}} is for labels of nodes; links are learnt by whole_graph steps."
        )
    if isinstance(setup.training, config.ShardsTraining):
        factory = functools.partial(ShardedNetwork, factory, setup.training.shards, setup.training.aggregator)
    kind = LinkPrediction if isinstance(data, Links) else NodeClassification
    task = kind.of(factory, dtype=getattr(torch, setup.dtype), device=setup.device)
    if setup.depth is not None and task.depth not in (None, setup.depth):
        raise InputError(
            f"The job says depth {setup.depth}, and {setup.model} says {task.depth} itself. Leave depth out."
        )
    return task if setup.depth is None else replace(task, depth=setup.depth)


def opened_of(setup: Any) -> tuple[NodeClassification, Any, dict[str, Any]]:
    """Task, data and sets, each graph knowing how far the model gathers."""
    data, sets = data_of(setup.data, setup.predict)
    sets |= own_sets(setup.data, data, sets)
    task = task_of(setup, data)
    return task, data.deep(task.depth), {name: each.deep(task.depth) for name, each in sets.items()}


VECTOR = 64  # numbers that stand for a node where links are predicted (released code of GNNDelete, arXiv 2302.13406)
OF_NODES = ("sampled_graph", "minimum", "ridge", "shards")  # kinds of training that need labels
OF_THE_NETWORK = ("shards", "aggregator")  # settings of training that its network is made with
RECIPES = {
    "whole_graph": GraphTraining, "sampled_graph": SampledGraphTraining, "minimum": GraphMinimiser, "ridge": GraphRidge,
    "shards": GraphShards,
}  # fmt: skip


def recipe_of(training: Any) -> Any:
    """The recipe, or ``None`` for models that come from disk."""
    recipe = RECIPES.get(training.kind)
    return None if recipe is None else recipe(**training.model_dump(exclude={"kind", *OF_THE_NETWORK}))


def must_leave_every_class(data: Graph | Links, ids: Ids) -> None:
    """Raise InputError where no training node of a class would be left.

    A retrained model could not know the class, and would have an output that nothing ever asked for. Of links nothing is asked.
    """
    if isinstance(data, Links):
        return
    left = np.unique(data.labels(np.setdiff1d(data.examples, ids["node"])))
    gone = np.setdiff1d(np.unique(data.labels(data.examples)), left)
    if len(gone):
        raise InputError(
            f"The request takes every training node of class {selecting.shown(gone)}: a model retrained without them has an "
            "output for a class that it never saw, and nothing can be compared. Train a model without this class instead."
        )


def note_of(data: Graph | Links, ids: Ids) -> str:
    """What a reader should know of a request: nodes whose label nobody trained on, and nodes without edges."""
    parts = []
    graph = graph_of(data)
    named = np.intersect1d(ids["node"], graph.nodes)
    unlabelled = np.setdiff1d(named, data.examples) if isinstance(data, Graph) else named[:0]  # links ask for no label
    alone = named[np.diff(graph.adjacency.indptr)[graph.positions(named)] == 0]
    if len(unlabelled):
        parts.append(
            f"The labels of {len(unlabelled)} of {len(named)} nodes were never trained on: of these only features and "
            "edges can be forgotten."
        )
    if len(alone):
        parts.append(f"{len(alone)} of {len(named)} nodes have no edge.")
    if len(np.intersect1d(unlabelled, alone)):
        parts.append("A node with neither never reached the model: nothing of it was learnt.")
    return " ".join(parts)


def called(setup: config.Setup) -> str:
    """What a report calls the model."""
    return setup.model.upper() if setup.model in NETWORKS else setup.model.rpartition(":")[2]


def settings_of(task: NodeClassification) -> Mapping[str, Any]:
    """What a record says of the model besides its name."""
    return {"depth": task.depth, "symmetric": task.symmetric}
