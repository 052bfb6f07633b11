"""What a recipe of models that predict edges comes to: GNNDelete's numbers stand where others have attributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.data import Deletion
from expunge.evidence.explanations.links import answered
from expunge.evidence.explanations.replay import Scene, scores_of
from expunge.modalities.benchmark import Scores
from expunge.modalities.graph.explaining import knowing_models
from expunge.modalities.graph.workload import KNOWN, GraphWorkload


@dataclass(frozen=True)
class LinkWorkload(GraphWorkload):
    """See :class:`~expunge.modalities.benchmark.Workload`."""

    @cached_property
    def knowing(self) -> list[Mapping[str, Tensor]]:
        """Further models that were trained on everything, the same for all forget sets."""
        return knowing_models(self.opened.task, self.opened.data, self.opened.recipe, self.recipe.seed, self.cache)

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """As of every graph, and how models that know everything score the forgotten edges."""
        found, scene = super().score(deletion, tensors, retrained), Scene.of(deletion, deletion.probes["test"])
        known = np.mean([scores_of(self.opened.task, each, scene) for each in self.knowing], 0)
        return Scores(found.metrics, {**found.margins, KNOWN: known.astype(np.float32)})

    def published(self, task: Any, tensors: Mapping[str, Tensor], deletion: Deletion) -> Scores:
        """How edges are answered on the graph as it is."""
        return Scores(answered(task, tensors, deletion.after, deletion, deletion.probes["test"]))
