"""What else is said of models that classify nodes: how alike they answer, Forget and Explain's numbers, and stolen edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.data import Deletion
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links
from expunge.data.graphs.pairs import unlinked
from expunge.evidence.explanations import attack, attribution, legacy
from expunge.tasks.graphs.nodes import NodeClassification

FEWEST_KNOWN = 40  # edges that are left: below, an attacker has nothing to learn from; ours
Tensors = Mapping[str, Tensor]


def answers(task: NodeClassification, tensors: Tensors, deletion: Deletion, heldout: Graph) -> np.ndarray:
    """Logits of all nodes that are left, (n, classes)."""
    return of_every_node(task, tensors, deletion.after)


def published(
    task: NodeClassification, models: Sequence[Tensors], deletion: Deletion, heldout: Graph
) -> dict[str, Any]:
    """Of Forget and Explain: the original on the graph before, the unlearned model on the graph after."""
    original, unlearned, *_ = models
    before, after = deletion.before, deletion.after
    gone = before.positions(before.named_by(deletion.ids))
    then, now = attribution.of_nodes(task, original, before), attribution.of_nodes(task, unlearned, after)
    named = before.named_by(deletion.ids)
    first, second = _predicted(task, original, before), _predicted(task, unlearned, after)
    residual = [
        attribution.residual_attribution(each, np.isin(graph.nodes, named))
        for each, graph in ((then, before), (now, after))
    ]
    return {
        "ra_before": residual[0], "ra_after": residual[1], "ra_delta": residual[0] - residual[1],
        "hs": legacy.heatmap_shift(then, now), "esd": legacy.score_deviation(then, now, gone),
        "ged": legacy.edit_distance(before, after, deletion.ids),
        "rules_removed": legacy.rule_shift(
            legacy.rules(before.features, first.argmax(1)), legacy.rules(after.features, second.argmax(1))
        ),
        "membership_before": _membership(before, first), "membership_after": _membership(after, second),
    }  # fmt: skip


def _membership(graph: Graph, probabilities: np.ndarray) -> dict[str, float]:
    labelled = np.flatnonzero(graph.y >= 0)
    own = probabilities[labelled, graph.y[labelled]]
    return legacy.train_membership(own, np.isin(graph.nodes[labelled], graph.examples))


def attacks(
    task: NodeClassification, models: Sequence[Tensors], deletion: Deletion, heldout: Graph, seed: int
) -> dict[str, Any]:
    """Update detection, and stolen edges where some were deleted, before and after."""
    original, unlearned, *_ = models
    before, after, ids = deletion.before, deletion.after, deletion.ids
    then, now = _predicted(task, original, before), _predicted(task, unlearned, before)
    chosen = np.isin(before.nodes, before.named_by(ids))
    found: dict[str, Any] = {"update_detection": attack.update_detection(then, now, chosen).value}
    linked = before.ends[np.isin(names.of_edges(before.edges), ids["edge"]) | np.isin(before.edges, ids["node"]).any(1)]
    if not len(linked):
        return found
    draw = np.random.default_rng(seed)
    pairs = unlinked(before, len(linked), draw)
    for name, predicted in (("before", then), ("after", now)):
        found[f"link_similarity_{name}"] = attack.link_similarity(predicted, linked, pairs).value
    left = before.positions(after.edges)
    if len(left) < FEWEST_KNOWN:
        return found
    half = draw.permutation(left)[: len(left) // 2]
    known = half, unlinked(before, len(half), draw)
    for name, predicted in (("before", then), ("after", now)):
        found[f"link_stealing_{name}"] = attack.link_stealing(predicted, known, linked, pairs, seed=seed).value
    if len(after.nodes) == len(before.nodes):  # of edges that went: it looks at what is answered on the graph as it is
        predicted = _predicted(task, unlearned, after)
        trend = attack.confidence_trend(predicted, after.adjacency)
        found["trend_attack_after"] = attack.link_stealing(predicted, known, linked, pairs, trend, seed).value
    return found


def _predicted(task: NodeClassification, tensors: Tensors, graph: Graph) -> np.ndarray:
    """Probabilities of every node, (n, classes)."""
    return torch.softmax(torch.from_numpy(of_every_node(task, tensors, graph)), 1).numpy()


def of_every_node(task: NodeClassification, tensors: Tensors, data: Graph | Links) -> np.ndarray:
    """What the network gives for every node of the graph: logits, or the vectors that edges are predicted from; (n, k)."""
    model = task.build(tensors).eval()
    with torch.no_grad():
        return task.every(model, dict(model.named_parameters()), task.batch(data)).double().cpu().numpy()
