"""What a recipe of graph networks comes to: the graph, forget sets, and the numbers of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, graph_of
from expunge.evidence.distance import trainable_distance
from expunge.evidence.explanations import attribution
from expunge.evidence.explanations.replay import Scene, played
from expunge.modalities.benchmark import TUNING_SET, Knowledge, Scores, Workload
from expunge.modalities.graph.opening import must_leave_every_class
from expunge.modalities.graph.recipes import GraphRecipe
from expunge.modalities.modality import Opened
from expunge.tasks.graphs.nodes import NodeClassification

CHANCE_TIMES = 1.5  # a source model below so many times chance has learnt nothing that could be forgotten; ours
SCORES = "replay_scores"  # margins: log-odds of forgotten pairs
KNOWN = "replay_known"  # margins: their mean over models that were trained on everything
BEFORE, AFTER = "attribution_before", "attribution_after"  # margins: of the nodes of either graph


@dataclass(frozen=True)
class GraphWorkload(Workload):
    """See :class:`~expunge.modalities.benchmark.Workload`."""

    recipe: GraphRecipe
    opened: Opened[Any, Any]
    cache: Cache

    @classmethod
    def of(cls, recipe: GraphRecipe, opened: Opened[Any, Any], cache: Cache) -> Self:
        """Check that there is what a table needs.

        Raises:
            InputError: if there is nothing to test on, or the graph does not fit the model.
        """
        if "test" not in opened.probes:
            raise InputError(f"Recipe {recipe.name} needs examples to test on; its split leaves none.")
        opened.task.check(opened.data)
        return cls(recipe, opened, cache)

    @property
    def content(self) -> Sequence[Any]:
        """Digests of the graph with each set."""
        return [[each.digest for each in (self.opened.data, *self.opened.probes.values())]]

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for."""
        forget, data = self.recipe.forget, graph_of(self.opened.data)
        draw = np.random.default_rng([self.recipe.seed, TUNING_SET if number == TUNING_SET else number])
        pool = data.edges if forget.kind == "edge" else data.examples
        chosen = pool[np.sort(draw.choice(len(pool), max(1, round(forget.share * len(pool))), replace=False))].tolist()
        where = {"node": {"ids": chosen}, "edge": {"pairs": chosen}, "feature": {"node": chosen}}[forget.kind]
        return Request(f"forget set {number}", (Target(forget.kind, where),))

    def unfit(self, number: int, deletion: Deletion) -> str:
        """Where a class goes entirely."""
        try:
            must_leave_every_class(deletion.before, deletion.ids)
        except InputError as error:
            return f"Forget set {number} of {self.recipe.name} cannot be used. {error}"
        return ""

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """Replay on the graph as it was; accuracies on the graph as it is; what publications measure."""
        task: NodeClassification = self.opened.task
        after = deletion.after
        replay = played(task, tensors, Scene.of(deletion, deletion.probes["test"]))
        metrics: dict[str, float] = dict(replay.statistics)
        metrics["RA"], metrics["TA"] = (
            accuracy(task, tensors, each) for each in (after, deletion.probes["test"].within(after))
        )
        if retrained is not None:
            metrics["distance"] = trainable_distance(task.build(), tensors, retrained)
        more = self.published(task, tensors, deletion)
        scores = {SCORES: replay.scores.astype(np.float32)} if len(replay.scores) else {}
        return Scores({**metrics, **more.metrics}, {**more.margins, **scores})

    def published(self, task: Any, tensors: Mapping[str, Tensor], deletion: Deletion) -> Scores:
        """Residual attribution of Forget and Explain, and the attributions that its heatmap shift is taken of."""
        before, after = deletion.before, deletion.after
        then, now = (attribution.of_nodes(task, tensors, each) for each in (before, after))
        share = attribution.residual_attribution(now, np.isin(after.nodes, deletion.ids["node"]))
        return Scores({"legacy_ra": share}, {BEFORE: then.astype(np.float32), AFTER: now.astype(np.float32)})

    def knowledge(self, scores: Scores, deletion: Deletion) -> Knowledge:
        """Accuracy on retained training examples, against chance."""
        least = CHANCE_TIMES / self.opened.data.label_count
        return Knowledge(scores.metrics["RA"] / 100, least, "what it was trained on", f"{CHANCE_TIMES} times chance")


def accuracy(task: NodeClassification, tensors: Mapping[str, Tensor], data: Graph | Links) -> float:
    """Share of the examples of ``data`` that are classified correctly, in percent."""
    model, batch = task.build(tensors).eval(), task.batch(data)
    with torch.no_grad():
        logits = task.outputs(model, dict(model.named_parameters()), batch).logits
    return 100 * float((logits.argmax(1) == batch["y"]).double().mean())
