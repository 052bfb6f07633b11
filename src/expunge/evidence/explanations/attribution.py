"""What the training loss owes to each node, feature and edge: saliency, without ever holding a number for each feature.

Source: the node attributions of "Forget and Explain" (Ahsan et al., arXiv 2512.07450, released code): the sum of magnitudes of
the gradient of the training loss by a node's features. Attributions of edges and of single columns are derived here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, graph_of
from expunge.tasks.graphs.layers import Projection
from expunge.tasks.graphs.nodes import NodeClassification

CHUNK = 2048  # nodes whose gradients by all features are held at a time


def of_nodes(
    task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links, columns: np.ndarray | None = None
) -> np.ndarray:
    """Attribution of each node, ``sum over its features of |dL/dx|``, L the mean loss of the examples of ``data``.

    Args:
        columns: of the features that count; all where not given.

    Shapes:
        → (n,) float64, in the order of the graph's nodes.

    Formal guarantee: none. Zero for a node further from every example than the model gathers.
    """
    model = task.build(tensors).eval()
    batch = task.batch(data)
    parts = gradients(task, model, batch)
    if parts is None:
        return _dense(task, model, batch, columns)
    if columns is not None:
        chosen = torch.from_numpy(columns)
        parts = [(gradient, weight.index_select(0, chosen)) for gradient, weight in parts]
    return summed(parts, len(graph_of(data).nodes), lambda at, part: part.abs().sum(1))


def gradients(task: NodeClassification, model: nn.Module, batch: Any) -> list[tuple[Tensor, Tensor]] | None:
    """The gradient of the mean loss by all features as products, the sum of ``g @ w.T`` over parts; ``None`` where the model
    does not begin with projections of its own.

    Shapes:
        of each part, g (n, k) and w (d, k).
    """
    if not task.compressed:
        return None
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
        return None
    found = torch.autograd.grad(loss, [output for _, output in captured], allow_unused=True)
    return [(g, module.weight.detach()) for (module, _), g in zip(captured, found, strict=True) if g is not None]


def summed(parts: list[tuple[Tensor, Tensor]], n: int, each: Callable[[slice, Tensor], Tensor]) -> np.ndarray:
    """``each(rows, gradient of these rows by all features)`` for all rows, :data:`CHUNK` at a time, (n,) float64."""
    if not parts:
        return np.zeros(n)
    found = [
        each(slice(at, at + CHUNK), torch.stack([g[at : at + CHUNK] @ w.T for g, w in parts]).sum(0))
        for at in range(0, n, CHUNK)
    ]
    return torch.cat(found).double().cpu().numpy()


def _dense(task: NodeClassification, model: nn.Module, batch: Any, columns: np.ndarray | None) -> np.ndarray:
    """The same of a module that says nothing of its first layer."""
    x = batch["x"].to_dense() if batch["x"].layout is torch.sparse_csr else batch["x"]
    leaf = x.detach().clone().requires_grad_()
    held = type(batch)(batch.columns, {**batch.shared, "x": leaf})
    (gradient,) = torch.autograd.grad(task.losses(model, dict(model.named_parameters()), held).mean(), [leaf])
    gradient = gradient if columns is None else gradient[:, torch.from_numpy(columns)]
    return gradient.abs().sum(1).double().cpu().numpy()


def of_edges(task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links) -> np.ndarray:
    """Attribution of each edge, ``|dL/dw|`` of a factor w = 1 on the messages in both directions.

    Shapes:
        → (m,) float64, in the order of the graph's edges.

    Raises:
        InputError: for a module whose messages take no factor; expunge's own networks do.
    """
    return np.abs(edge_gradient(task, tensors, data, 1.0))


def edge_gradient(
    task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links, factor: float
) -> np.ndarray:
    """dL/dw of each edge, both directions together, where every message has the factor w = ``factor``, (m,) float64.

    Raises:
        InputError: as :func:`of_edges`.
    """
    model = task.build(tensors).eval()
    batch = task.batch(data)
    weight = torch.full((batch["edge_index"].shape[1],), factor, dtype=task.dtype, device=task.device)
    weight.requires_grad_()
    (gradient,) = torch.autograd.grad(loss_with(task, model, batch, weight), [weight])
    return gradient.double().cpu().numpy().reshape(2, -1).sum(0)


def loss_with(task: NodeClassification, model: nn.Module, batch: Any, weight: Tensor) -> Tensor:
    """Mean loss of the examples with a factor on each message; raises InputError as :func:`of_edges`."""
    try:
        return task.losses(model, dict(model.named_parameters()), batch, weight).mean()
    except TypeError as error:
        raise InputError(f"What edges contribute is read of expunge's own networks only ({error}).") from None


def residual_attribution(attributions: np.ndarray, chosen: np.ndarray) -> float:
    """The share of ``chosen`` in all attributions, in percent, 0 where there is none (RA of Forget and Explain).

    Shapes:
        attributions (n,), chosen (n,) bool.

    >>> residual_attribution(np.array([1.0, 3.0]), np.array([True, False]))
    25.0
    """
    return 100 * float(attributions[chosen].sum()) / max(float(attributions.sum()), 1e-12)
