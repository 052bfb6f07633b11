"""What nodes and edges contribute: to the training loss by gradients, along a path or under a learnt mask; or by attention.

Replay's share of attribution is saliency unless another is asked for. An explainer is a name and two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, graph_of
from expunge.evidence.explanations import attention, attribution
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.optimizers import Adam

STEPS = 32  # of the path of integrated gradients, at midpoints: within the 20 to 300 that the paper finds enough
# Of a mask: PyTorch Geometric's epochs and rate; masks differ between starts, so that ten are averaged.
EPOCHS, RATE, RESTARTS = 100, 0.01, 10
SIZE, ENTROPY = 0.005, 1.0  # what a mask's size and its indecision cost, of edges (PyTorch Geometric)

OfNodes = Callable[[NodeClassification, Mapping[str, Tensor], Graph | Links, np.ndarray | None], np.ndarray]
OfEdges = Callable[[NodeClassification, Mapping[str, Tensor], Graph | Links], np.ndarray]


@dataclass(frozen=True)
class Explainer:
    """What attributions come from.

    Attributes:
        name: what a user calls it.
        nodes: task, weights, data, and which columns of features count (``None``: all) → (n,) in the order of the nodes.
        edges: task, weights, data → (m,) in the order of the edges.
    """

    name: str
    nodes: OfNodes
    edges: OfEdges


def integrated_nodes(
    task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links, columns: np.ndarray | None = None
) -> np.ndarray:
    """``sum over features of |x times the mean of dL/dx on the way from no features to all|``, (n,).

    Source: integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365, equation 1), of the training loss; the path begins
    at a graph whose features are all zero. Without the magnitudes, the sums over nodes are L at the end less L at the start.

    Formal guarantee: none.

    Raises:
        InputError: for a model that does not begin with projections of expunge's own.
    """
    model = task.build(tensors).eval()
    batch = task.batch(data)
    x = batch["x"]
    total: list[Tensor] = []
    weights: list[Tensor] = []
    for step in range(STEPS):
        at = (step + 0.5) / STEPS
        parts = attribution.gradients(task, model, type(batch)(batch.columns, {**batch.shared, "x": _scaled(x, at)}))
        if parts is None:
            raise InputError("Integrated gradients are read of expunge's own networks only. Use saliency.")
        weights = [weight for _, weight in parts]
        total = [g / STEPS + (total[i] if total else 0) for i, (g, _) in enumerate(parts)]
    graph = graph_of(data)
    features: Any = graph.features
    chosen = np.arange(graph.width) if columns is None else columns

    def times(rows: slice, gradient: Tensor) -> Tensor:
        part = torch.from_numpy(features[rows].toarray()[:, chosen]).to(gradient)
        return (part * gradient[:, torch.from_numpy(chosen)]).abs().sum(1)

    return attribution.summed(list(zip(total, weights, strict=True)), len(graph.nodes), times)


def _scaled(x: Tensor, factor: float) -> Tensor:
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), x.values() * factor, x.shape)


def integrated_edges(task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links) -> np.ndarray:
    """``|mean of dL/dw|`` over factors w of all messages from 0 to 1, (m,). The path begins at a graph without messages.

    Formal guarantee: none.
    """
    steps = [attribution.edge_gradient(task, tensors, data, (step + 0.5) / STEPS) / STEPS for step in range(STEPS)]
    return np.abs(np.sum(steps, 0))


def masked_edges(task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links) -> np.ndarray:
    """How much of each edge a mask keeps under which the model still gives the labels it was trained on, (m,) in 0 to 1.

    Means over :data:`RESTARTS` starts from fixed seeds.

    Source: GNNExplainer (Ying et al. 2019, arXiv 1903.03894), the mask on edges; its loss is the training loss, as that of the
    other explainers, where the paper explains one prediction.

    Formal guarantee: none. Two runs from other starts differ: it describes.
    """
    model = task.build(tensors).eval()
    batch = task.batch(data)
    count = len(graph_of(data).edges)
    if not count:
        return np.empty(0)
    found = np.zeros(count)
    for restart in range(RESTARTS):
        draw = torch.Generator().manual_seed(restart)
        mask = (0.1 * torch.randn(count, generator=draw, dtype=task.dtype)).to(task.device).requires_grad_()
        optimizer = Adam([mask], RATE)
        for _ in range(EPOCHS):
            kept = mask.sigmoid()
            fitted = attribution.loss_with(task, model, batch, kept.repeat(2))
            undecided = -(kept * kept.clamp_min(1e-12).log() + (1 - kept) * (1 - kept).clamp_min(1e-12).log())
            loss = fitted + SIZE * kept.sum() + ENTROPY * undecided.mean()
            (mask.grad,) = torch.autograd.grad(loss, [mask])
            optimizer.step()
        found += mask.detach().sigmoid().double().cpu().numpy() / RESTARTS
    return found


def masked_nodes(
    task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links, columns: np.ndarray | None = None
) -> np.ndarray:
    """Half of what :func:`masked_edges` keeps of the edges at each node, (n,).

    Raises:
        InputError: for single columns, of which a mask on edges says nothing.
    """
    if columns is not None:
        raise InputError(
            "A mask on edges says nothing of single columns of features. Use saliency or integrated_gradients."
        )
    graph, kept = graph_of(data), masked_edges(task, tensors, data)
    return np.bincount(graph.ends.ravel(), np.repeat(kept / 2, 2), len(graph.nodes))


SALIENCY = Explainer("saliency", attribution.of_nodes, attribution.of_edges)
EXPLAINERS: Mapping[str, Explainer] = {
    each.name: each
    for each in (
        SALIENCY,
        Explainer("integrated_gradients", integrated_nodes, integrated_edges),
        Explainer("gnn_explainer", masked_nodes, masked_edges),
        Explainer("attention", attention.attended_nodes, attention.attended_edges),
    )
}


def explainer(name: str) -> Explainer:
    """The explainer of this name.

    Raises:
        InputError: for another name.
    """
    if name not in EXPLAINERS:
        raise InputError(f"Expected an explainer among {', '.join(EXPLAINERS)}; got {name!r}.")
    return EXPLAINERS[name]
