"""What nodes take from each other by attention: read off a graph attention network, without any gradient.

It says where a model looks and not what that does to its loss. Source: the attention of graph attention networks (Veličković et
al. 2018, arXiv 1710.10903, equation 3); means over heads and layers as PyTorch Geometric's ``AttentionExplainer`` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, graph_of
from expunge.tasks.graphs.layers import GATConv
from expunge.tasks.graphs.nodes import NodeClassification


def attended_edges(task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links) -> np.ndarray:
    """What both ends of an edge take from each other, mean over heads and layers, (m,) in 0 to 2, in the order of the edges.

    Formal guarantee: none.

    Raises:
        InputError: for a network without attention.
    """
    return attention(task, tensors, data).sum(0)


def attended_nodes(
    task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links, columns: np.ndarray | None = None
) -> np.ndarray:
    """What others take from each node, sum over its neighbours, (n,). What a node takes from itself does not count.

    Formal guarantee: none.

    Raises:
        InputError: for a network without attention, or single columns, of which attention says nothing.
    """
    if columns is not None:
        raise InputError("Attention says nothing of single columns of features. Use saliency or integrated_gradients.")
    graph = graph_of(data)
    sources = np.concatenate([graph.ends[:, 0], graph.ends[:, 1]])
    return np.bincount(sources, attention(task, tensors, data).ravel(), len(graph.nodes))


def attention(task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links) -> np.ndarray:
    """The share of each message in what its target takes, mean over heads and layers.

    Shapes:
        → (2, m): from the first end of each edge to the second, and back.

    Raises:
        InputError: for a network without attention.
    """
    model = task.build(tensors).eval()
    layers = [module for module in model.modules() if isinstance(module, GATConv)]
    if not layers:
        raise InputError(
            f"Attention is read of networks that have it (model: gat); {type(model).__name__} has none. Use saliency."
        )
    found: list[Tensor] = []

    def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
        assert isinstance(layer, GATConv)
        x, neighbours = inputs
        shares, _ = layer.attention(layer.projected(x, neighbours.n), neighbours)
        found.append(shares.mean(1))

    hooks = [layer.register_forward_hook(hook) for layer in layers]
    batch = task.batch(data)
    try:
        with torch.no_grad():
            task.every(model, dict(model.named_parameters()), batch)
    finally:
        for each in hooks:
            each.remove()
    messages = batch["edge_index"].shape[1]  # each layer's self-loops stand behind them
    return torch.stack([each[:messages] for each in found]).mean(0).double().cpu().numpy().reshape(2, -1)
