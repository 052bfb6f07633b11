"""What a recipe of models that predict edges comes to: GNNDelete's numbers stand where others have attributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from expunge.core.data import Deletion
from expunge.evidence.explanations.links import answered
from expunge.modalities.benchmark import Scores
from expunge.modalities.graph.workload import GraphWorkload


@dataclass(frozen=True)
class LinkWorkload(GraphWorkload):
    """See :class:`~expunge.modalities.benchmark.Workload`."""

    def published(self, task: Any, tensors: Mapping[str, Tensor], deletion: Deletion) -> Scores:
        """How edges are answered on the graph as it is."""
        return Scores(answered(task, tensors, deletion.after, deletion, deletion.probes["test"]))
