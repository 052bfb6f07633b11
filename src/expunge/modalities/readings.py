"""How a kind of model is measured that brings nothing of its own, and which kind measures a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from expunge import modalities
from expunge.core.task import Task
from expunge.evidence.comparison import Reads, Score
from expunge.evidence.membership import MembershipAttack
from expunge.evidence.outputs import example_losses
from expunge.metrics.intervals import mean_interval


class MeanLosses:
    """The mean loss of each set, of any task; no attacks. An ``evidence.comparison.Reads``."""

    attacks: Sequence[MembershipAttack] = ()

    def read(self, task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The loss of each example, by set."""
        return example_losses(task, tensors, sets)

    def score(self, readings: Mapping[str, np.ndarray], retrained: Any = None) -> list[Score]:
        """Their means, each with Student's interval."""
        return [Score.of("loss", name, mean_interval(losses), len(losses)) for name, losses in readings.items()]


def reads(task: Task) -> Reads:
    """What measures models of ``task``: the modality of its name, or mean losses where there is none that reads."""
    kind = modalities.load(task.name) if task.name in modalities.names() else None
    return kind if isinstance(kind, Reads) else MeanLosses()
