"""Replay: what weights still know of what was deleted, read on the graph as it was before.

Derived here: the published verifier (Forget and Explain, arXiv 2512.07450) reads a model on the graph after the deletion, where
nodes that are gone have no attribution whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.data import Deletion
from expunge.core.errors import FailedError
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, graph_of
from expunge.evidence.explanations import attribution
from expunge.evidence.explanations.explainers import SALIENCY, Explainer
from expunge.evidence.explanations.kept import KEPT
from expunge.metrics.intervals import auc_interval
from expunge.tasks.graphs.nodes import NodeClassification

DECIDING = ("replay_nll", "replay_ra", "replay_auc", KEPT)


@dataclass(frozen=True, eq=False)
class Scene:
    """What replay looks at: fixed for a request, the same for every model. All of it is on the graph as it was.

    Attributes:
        before: all training examples: nodes, or pairs of them.
        forgotten: the training examples that the request names: nodes (as nodes, as ends of edges, by features), or edges.
        unseen: examples that nobody trained on, of the same classes and as many where there are enough.
        deletion: what went.
    """

    before: Graph | Links
    forgotten: Graph | Links
    unseen: Graph | Links
    deletion: Deletion

    @classmethod
    def of(cls, deletion: Deletion, heldout: Graph | Links, seed: int = 0) -> Scene:
        """For ``deletion``; ``heldout`` has examples that were never trained on.

        Those that are compared with are drawn class by class from ``seed``, as many as are forgotten of the class, or all.
        """
        before, forgotten = deletion.before, deletion.before.only(deletion.ids)
        draw = np.random.default_rng(seed)
        if isinstance(before, Links):
            assert isinstance(heldout, Links)
            chosen = _alike(forgotten.joined, heldout.joined, np.arange(len(heldout)), draw)
            unseen = replace(before, pairs=heldout.pairs[chosen], joined=heldout.joined[chosen])
        else:
            assert isinstance(heldout, Graph)
            pool = np.setdiff1d(heldout.examples, np.union1d(before.examples, before.named_by(deletion.ids)))
            pool = pool[before.has(pool)]
            unseen = replace(
                before, examples=_alike(before.labels(forgotten.examples), before.labels(pool), pool, draw)
            )
        return cls(before, forgotten, unseen, deletion)


def _alike(labels: np.ndarray, others: np.ndarray, pool: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Of ``pool``, whose classes are ``others``, as many of each class as ``labels`` has, or all; ascending."""
    parts = [np.empty(0, dtype=np.int64)]
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        of_class = pool[others == label]
        parts.append(draw.choice(of_class, min(len(of_class), int(count)), replace=False))
    return np.sort(np.concatenate(parts))


@dataclass(frozen=True, eq=False)
class Played:
    """What one model says on the graph as it was.

    Attributes:
        statistics: name → value; those of :data:`DECIDING` that the request allows, ``replay_probability`` and
            ``replay_accuracy``.
        probabilities: of the classes of the forgotten examples, (k, classes). Private.
        scores: log-odds of forgotten pairs' own class, (k,); of nodes none. Private.
    """

    statistics: Mapping[str, float]
    probabilities: np.ndarray
    scores: np.ndarray


def played(
    task: NodeClassification, tensors: Mapping[str, Tensor], scene: Scene, explainer: Explainer = SALIENCY
) -> Played:
    """Run the model on the scene.

    ``replay_nll``: mean of -log p(label) over what was forgotten; ``replay_probability``, ``replay_accuracy``: the mean of
    p(label), and the share that is right, in percent; ``replay_auc``: area under the curve of log p(label), forgotten against
    unseen examples of the same classes; ``replay_ra``: share of the loss's attribution on what was deleted, in percent.

    Raises:
        FailedError: for outputs that are not finite.
    """
    log_p = log_probabilities(task, tensors, scene.forgotten)
    found: dict[str, float] = {}
    if len(log_p):
        labels = labels_of(scene.forgotten)
        own = log_p[np.arange(len(labels)), labels]
        found["replay_nll"] = float(-own.mean())
        found["replay_probability"] = 100 * float(np.exp(own).mean())
        found["replay_accuracy"] = 100 * float((log_p.argmax(1) == labels).mean())
        if len(scene.unseen):
            others, labels = log_probabilities(task, tensors, scene.unseen), labels_of(scene.unseen)
            found["replay_auc"] = auc_interval(own, others[np.arange(len(labels)), labels]).value
    found["replay_ra"] = attributed(task, tensors, scene, explainer)
    return Played(found, np.exp(log_p), _scores(log_p, scene.forgotten))


def scores_of(task: NodeClassification, tensors: Mapping[str, Tensor], scene: Scene) -> np.ndarray:
    """Log-odds of forgotten pairs' own class, (k,); of nodes none."""
    return _scores(log_probabilities(task, tensors, scene.forgotten), scene.forgotten)


def _scores(log_p: np.ndarray, forgotten: Graph | Links) -> np.ndarray:
    if not isinstance(forgotten, Links) or not len(log_p):
        return np.empty(0)
    own = labels_of(forgotten)
    return log_p[np.arange(len(own)), own] - log_p[np.arange(len(own)), 1 - own]


def log_probabilities(task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links) -> np.ndarray:
    """Of the classes of every example, (k, classes) float64.

    Raises:
        FailedError: for outputs that are not finite.
    """
    model = task.build(tensors).eval()
    with torch.no_grad():
        logits = task.outputs(model, dict(model.named_parameters()), task.batch(data)).logits.double().cpu().numpy()
    if not np.isfinite(logits).all():
        raise FailedError("The outputs of the model are not finite on the graph. Take smaller learning rates.")
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def labels_of(data: Graph | Links) -> np.ndarray:
    """The class of every example: of a node its label, of a pair 1 where an edge joins it."""
    return data.joined.astype(np.int64) if isinstance(data, Links) else data.labels(data.examples)


def attributed(
    task: NodeClassification, tensors: Mapping[str, Tensor], scene: Scene, explainer: Explainer = SALIENCY
) -> float:
    """The share of attribution on what was deleted, in percent: of nodes, else of edges, else of columns of nodes.

    Where a request mixes kinds, what it names as nodes decides what is read.
    """
    data, graph, ids = scene.before, graph_of(scene.before), scene.deletion.ids
    if len(ids["node"]):
        return attribution.residual_attribution(
            explainer.nodes(task, tensors, data, None), np.isin(graph.nodes, ids["node"])
        )
    if len(ids["edge"]) and task.compressed:
        chosen = np.isin(names.of_edges(graph.edges), ids["edge"])
        return attribution.residual_attribution(explainer.edges(task, tensors, data), chosen)
    if len(ids["edge"]):
        ends = np.isin(graph.nodes, names.edges(ids["edge"]))
        return attribution.residual_attribution(explainer.nodes(task, tensors, data, None), ends)
    nodes, columns = names.apart(ids["feature"])
    named = np.isin(graph.nodes, nodes)
    part = explainer.nodes(task, tensors, data, np.unique(columns))
    whole = explainer.nodes(task, tensors, data, None)
    return 100 * float(part[named].sum()) / max(float(whole.sum()), 1e-12)


def divergence(nulls: np.ndarray, mine: np.ndarray) -> float:
    """Mean over nodes of KL(mean of the retrained models ‖ this model), in nats.

    Shapes:
        nulls (models, k, classes), mine (k, classes): probabilities.
    """
    floor: Any = np.finfo(np.float64).tiny
    expected = nulls.mean(0)
    return float((expected * (np.log(np.maximum(expected, floor)) - np.log(np.maximum(mine, floor)))).sum(1).mean())
