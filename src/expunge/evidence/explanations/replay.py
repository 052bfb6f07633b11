"""Replay: what weights still know of what was deleted, read on the graph as it was before.

Derived here: the published verifier (Forget and Explain, arXiv 2512.07450) reads a model on the graph after the deletion, where
nodes that are gone have no attribution whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.data import Deletion
from expunge.core.errors import FailedError
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.evidence.explanations import attribution
from expunge.evidence.explanations.explainers import SALIENCY, Explainer
from expunge.metrics.intervals import auc_interval
from expunge.tasks.graphs.nodes import NodeClassification

DECIDING = ("replay_nll", "replay_ra", "replay_auc")


@dataclass(frozen=True, eq=False)
class Scene:
    """What replay looks at: fixed for a request, the same for every model.

    Attributes:
        graph: as it was, with all its training nodes as examples.
        forgotten: training nodes that the request names (as nodes, ends of edges, or by features), ids (k,).
        unseen: nodes that nobody trained on, of the same classes and as many where there are enough, ids.
        deletion: what went.
    """

    graph: Graph
    forgotten: np.ndarray
    unseen: np.ndarray
    deletion: Deletion

    @classmethod
    def of(cls, deletion: Deletion, heldout: Graph, seed: int = 0) -> Scene:
        """For ``deletion``; ``heldout`` has nodes that were never trained on as its examples.

        Negatives are drawn class by class from ``seed``, as many as there are forgotten nodes of the class, or all.
        """
        graph = deletion.before
        forgotten = graph.only(deletion.ids).examples
        draw = np.random.default_rng(seed)
        pool = np.setdiff1d(heldout.examples, np.union1d(graph.examples, graph.named_by(deletion.ids)))
        pool = pool[graph.has(pool)]
        parts = [np.empty(0, dtype=np.int64)]
        for label, count in zip(*np.unique(graph.labels(forgotten), return_counts=True), strict=True):
            of_class = pool[graph.labels(pool) == label]
            parts.append(draw.choice(of_class, min(len(of_class), int(count)), replace=False))
        return cls(graph, forgotten, np.sort(np.concatenate(parts)), deletion)


@dataclass(frozen=True, eq=False)
class Played:
    """What one model says on the graph as it was.

    Attributes:
        statistics: name → value; those of :data:`DECIDING` that the request allows, and ``replay_accuracy``.
        probabilities: of the classes at the forgotten nodes, (k, classes). Private.
    """

    statistics: Mapping[str, float]
    probabilities: np.ndarray


def played(
    task: NodeClassification, tensors: Mapping[str, Tensor], scene: Scene, explainer: Explainer = SALIENCY
) -> Played:
    """Run the model on the scene.

    ``replay_nll``: mean of -log p(label) over forgotten training nodes; ``replay_accuracy``: share of them that is right, in
    percent; ``replay_auc``: area under the curve of -log p, forgotten against unseen nodes of the same classes; ``replay_ra``:
    share of the training loss's attribution on what was deleted, in percent.

    Raises:
        FailedError: for outputs that are not finite.
    """
    model = task.build(tensors).eval()
    with torch.no_grad():
        logits = task.every(model, dict(model.named_parameters()), task.batch(scene.graph)).double().cpu().numpy()
    if not np.isfinite(logits).all():
        raise FailedError(
            "The outputs of the model are not finite on the graph as it was. Take smaller learning rates."
        )
    logits -= logits.max(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    graph = scene.graph
    found: dict[str, float] = {}
    at = graph.positions(scene.forgotten)
    if len(at):
        own = log_p[at, graph.y[at]]
        found["replay_nll"] = float(-own.mean())
        found["replay_accuracy"] = 100 * float((log_p[at].argmax(1) == graph.y[at]).mean())
        if len(scene.unseen):
            others = graph.positions(scene.unseen)
            found["replay_auc"] = auc_interval(own, log_p[others, graph.y[others]]).value
    found["replay_ra"] = attributed(task, tensors, scene, explainer)
    return Played(found, np.exp(log_p[at]))


def attributed(
    task: NodeClassification, tensors: Mapping[str, Tensor], scene: Scene, explainer: Explainer = SALIENCY
) -> float:
    """The share of attribution on what was deleted, in percent: of nodes, else of edges, else of columns of nodes.

    Where a request mixes kinds, what it names as nodes decides what is read.
    """
    graph, ids = scene.graph, scene.deletion.ids
    if len(ids["node"]):
        return attribution.residual_attribution(
            explainer.nodes(task, tensors, graph, None), np.isin(graph.nodes, ids["node"])
        )
    if len(ids["edge"]) and task.compressed:
        chosen = np.isin(names.of_edges(graph.edges), ids["edge"])
        return attribution.residual_attribution(explainer.edges(task, tensors, graph), chosen)
    if len(ids["edge"]):
        ends = np.isin(graph.nodes, names.edges(ids["edge"]))
        return attribution.residual_attribution(explainer.nodes(task, tensors, graph, None), ends)
    nodes, columns = names.apart(ids["feature"])
    named = np.isin(graph.nodes, nodes)
    part = explainer.nodes(task, tensors, graph, np.unique(columns))
    whole = explainer.nodes(task, tensors, graph, None)
    return 100 * float(part[named].sum()) / max(float(whole.sum()), 1e-12)


def divergence(nulls: np.ndarray, mine: np.ndarray) -> float:
    """Mean over nodes of KL(mean of the retrained models ‖ this model), in nats.

    Shapes:
        nulls (models, k, classes), mine (k, classes): probabilities.
    """
    floor: Any = np.finfo(np.float64).tiny
    expected = nulls.mean(0)
    return float((expected * (np.log(np.maximum(expected, floor)) - np.log(np.maximum(mine, floor)))).sum(1).mean())
