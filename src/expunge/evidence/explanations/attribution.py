"""What the training loss owes to each node, feature and edge: saliency, without ever holding a number for each feature.

Source: the node attributions of "Forget and Explain" (Ahsan et al., arXiv 2512.07450, released code): the sum of magnitudes of
the gradient of the training loss by a node's features. Attributions of edges and of single columns are derived here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.data.graphs.graph import Graph
from expunge.tasks.graphs.layers import Projection
from expunge.tasks.graphs.nodes import NodeClassification

CHUNK = 2048  # nodes whose gradients by all features are held at a time


def of_nodes(
    task: NodeClassification, tensors: Mapping[str, Tensor], graph: Graph, columns: np.ndarray | None = None
) -> np.ndarray:
    """Attribution of each node, ``sum over its features of |dL/dx|``, L the mean loss of the examples of ``graph``.

    Args:
        columns: of the features that count; all where not given.

    Shapes:
        → (n,) float64, in the order of ``graph.nodes``.

    Formal guarantee: none. Zero for a node further from every example than the model gathers.
    """
    model = task.build(tensors).eval()
    batch = task.batch(graph)
    if not task.compressed:
        return _dense(task, model, batch, columns)
    captured: list[tuple[Projection, Tensor]] = []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if inputs[0] is batch["x"]:
            assert isinstance(module, Projection)
            captured.append((module, output))

    hooks = [module.register_forward_hook(hook) for module in model.modules() if isinstance(module, Projection)]
    try:
        loss = task.losses(model, dict(model.named_parameters()), batch).mean()
    finally:
        for each in hooks:
            each.remove()
    if not captured:
        return _dense(task, model, batch, columns)
    gradients = torch.autograd.grad(loss, [output for _, output in captured], allow_unused=True)
    parts = [(g, module.weight.detach()) for (module, _), g in zip(captured, gradients, strict=True) if g is not None]
    if columns is not None:
        chosen = torch.from_numpy(columns)
        parts = [(gradient, weight.index_select(0, chosen)) for gradient, weight in parts]
    found = [
        sum((g[at : at + CHUNK] @ w.T for g, w in parts), torch.zeros(())).abs().sum(-1)
        for at in range(0, len(graph.nodes), CHUNK)
    ]
    return torch.cat([each.reshape(-1) for each in found]).double().cpu().numpy()


def _dense(task: NodeClassification, model: nn.Module, batch: Any, columns: np.ndarray | None) -> np.ndarray:
    """The same of a module that says nothing of its first layer."""
    x = batch["x"].to_dense() if batch["x"].layout is torch.sparse_csr else batch["x"]
    leaf = x.detach().clone().requires_grad_()
    held = type(batch)(batch.columns, {**batch.shared, "x": leaf})
    (gradient,) = torch.autograd.grad(task.losses(model, dict(model.named_parameters()), held).mean(), [leaf])
    gradient = gradient if columns is None else gradient[:, torch.from_numpy(columns)]
    return gradient.abs().sum(1).double().cpu().numpy()


def of_edges(task: NodeClassification, tensors: Mapping[str, Tensor], graph: Graph) -> np.ndarray:
    """Attribution of each edge, ``|dL/dw|`` of a factor w = 1 on the messages in both directions.

    Shapes:
        → (m,) float64, in the order of ``graph.edges``.

    Raises:
        InputError: for a module whose messages take no factor; expunge's own networks do.
    """
    model = task.build(tensors).eval()
    batch = task.batch(graph)
    weight = torch.ones(batch["edge_index"].shape[1], dtype=task.dtype, device=task.device, requires_grad=True)
    try:
        logits = task.every(model, dict(model.named_parameters()), batch, weight).index_select(0, batch["node"])
    except TypeError as error:
        raise InputError(f"What edges contribute is read of expunge's own networks only ({error}).") from None
    loss = nn.functional.cross_entropy(logits, batch["y"])
    (gradient,) = torch.autograd.grad(loss, [weight])
    both = gradient.double().cpu().numpy().reshape(2, -1)
    return np.abs(both.sum(0))


def residual_attribution(attributions: np.ndarray, chosen: np.ndarray) -> float:
    """The share of ``chosen`` in all attributions, in percent, 0 where there is none (RA of Forget and Explain).

    Shapes:
        attributions (n,), chosen (n,) bool.

    >>> residual_attribution(np.array([1.0, 3.0]), np.array([True, False]))
    25.0
    """
    return 100 * float(attributions[chosen].sum()) / max(float(attributions.sum()), 1e-12)
