"""How graph networks are measured: accuracy, loss and membership attacks, from one pass over each set.

What was forgotten is read on the graph *as it was*: on the graph without it nothing could be read of it, whatever the weights
remember. What is retained and the sets of other nodes are read on the graph as it is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from expunge.core.task import Task
from expunge.data.graphs.graph import Graph
from expunge.evidence.membership import FORGET, MembershipAttack
from expunge.evidence.outputs import example_outputs
from expunge.modalities.classification.readings import Readings, confidence, score, small_loss

__all__ = ["ATTACKS", "Readings", "read", "score"]

ATTACKS = (MembershipAttack("loss", small_loss), MembershipAttack("confidence", confidence))


def read(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Graph]) -> Readings:
    """Losses and logits of each example, by set.

    Raises:
        InputError: as ``evidence.outputs.example_outputs``.
    """
    now = sets.get("retain")
    placed: dict[str, Any] = {
        name: each if name == FORGET or now is None else each.within(now) for name, each in sets.items()
    }
    return example_outputs(task, tensors, {name: each for name, each in placed.items() if len(each)})
