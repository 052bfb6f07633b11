"""What else is said of models that predict edges: how alike they answer, GNNDelete's numbers, and stolen edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.data import Deletion
from expunge.data.graphs.links import Links
from expunge.evidence.explanations import attack
from expunge.evidence.explanations.links import answered
from expunge.modalities.graph.explained_nodes import of_every_node
from expunge.tasks.graphs.links import LinkPrediction

Tensors = Mapping[str, Tensor]
STEALING = "link_stealing"


def answers(task: LinkPrediction, tensors: Tensors, deletion: Deletion, heldout: Links) -> np.ndarray:
    """Logits of the held-out pairs on the graph as it is, (k, 2)."""
    model = task.build(tensors).eval()
    batch = task.batch(heldout.within(deletion.after))
    with torch.no_grad():
        return task.outputs(model, dict(model.named_parameters()), batch).logits.double().cpu().numpy()


def published(task: LinkPrediction, models: Sequence[Tensors], deletion: Deletion, heldout: Links) -> dict[str, Any]:
    """Of GNNDelete: the original on the graph before, the unlearned model on the graph after."""
    found = {}
    for when, tensors, graph in (("before", models[0], deletion.before), ("after", models[1], deletion.after)):
        numbers = answered(task, tensors, graph, deletion, heldout)
        found |= {f"{name}_{when}": value for name, value in numbers.items() if name != STEALING}
    return found


def attacks(
    task: LinkPrediction, models: Sequence[Tensors], deletion: Deletion, heldout: Links, seed: int
) -> dict[str, float]:
    """Stolen edges before, after and from retrained models, and update detection by how far vectors of nodes moved."""
    original, unlearned, *retrained = models
    before, after = deletion.before, deletion.after
    vectors = [of_every_node(task, each, before) for each in (original, unlearned)]
    chosen = np.isin(before.graph.nodes, before.graph.named_by(deletion.ids))
    found = {"update_detection": attack.update_detection(vectors[0], vectors[1], chosen).value}
    stolen = {
        "before": [answered(task, original, before, deletion, heldout)],
        "after": [answered(task, unlearned, after, deletion, heldout)],
        "retrained": [answered(task, each, after, deletion, heldout) for each in retrained],
    }
    for whose, numbers in stolen.items():
        if all(STEALING in each for each in numbers):
            found[f"{STEALING}_{whose}"] = float(np.mean([each[STEALING] for each in numbers]))
    return found
