"""Graph networks: nodes with features and labels, of which nodes, edges and features can be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.graph.config import CheckpointTraining, GraphJob, called

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.core.data import Deletion
    from expunge.core.task import Task
    from expunge.data.graphs.graph import Graph
    from expunge.evidence.comparison import Score
    from expunge.evidence.membership import MembershipAttack
    from expunge.modalities.benchmark import Benchmark
    from expunge.modalities.modality import Asked, Opened
    from expunge.screening.result import ScreeningResult
    from expunge.tasks.graphs.nodes import NodeClassification


class GraphModality:
    """See :class:`~expunge.modalities.modality.Modality`."""

    name = "graph"
    kinds = (Kind.NODE, Kind.EDGE, Kind.FEATURE)
    job = GraphJob
    in_processes = False

    @property
    def benchmark(self) -> Benchmark:
        """See :mod:`expunge.modalities.graph.benchmark`."""
        from expunge.modalities.graph.benchmark import BENCHMARK

        return BENCHMARK

    def open(self, job: Any) -> Opened[NodeClassification, Graph]:
        """The graph, its sets, the model factory and recipe; a checkpoint's weights are read."""
        from expunge.modalities.graph import opening
        from expunge.modalities.modality import Opened
        from expunge.training.store import load_checkpoint

        task, data, sets = opening.opened_of(job)
        weights = load_checkpoint(job.training.path) if isinstance(job.training, CheckpointTraining) else None
        recipe = opening.recipe_of(job.training)
        return Opened(task, data, sets, recipe, weights, opening.called(job), called(job.data))

    def ask(self, job: GraphJob, opened: Opened[NodeClassification, Graph]) -> Asked[Graph]:
        """The targets, matched on all of the graph.

        Raises:
            InputError: where no training node of a class would be left.
        """
        from expunge.core.data import selected
        from expunge.modalities.graph import opening
        from expunge.modalities.modality import Asked

        request = job.request.asked()
        ids = selected(opened.data, request)
        opening.must_leave_every_class(opened.data, ids)
        return Asked(request, probes=opened.probes, note=opening.note_of(opened.data, ids))

    def screen(
        self, job: GraphJob, opened: Opened[NodeClassification, Graph], asked: Asked[Graph], deletion: Deletion
    ) -> ScreeningResult:
        """How broad the request is."""
        from expunge.screening.result import screen_breadth

        return screen_breadth(asked.request, deletion)

    @property
    def attacks(self) -> Sequence[MembershipAttack]:
        """By loss and by confidence, on the graph as it was."""
        from expunge.modalities.graph.readings import ATTACKS

        return ATTACKS

    def read(self, task: Task, tensors: Mapping[str, Any], sets: Mapping[str, Graph]) -> Any:
        """Losses and logits; see ``modalities.graph.readings``."""
        from expunge.modalities.graph.readings import read

        return read(task, tensors, sets)

    def score(self, readings: Any, retrained: Any = None) -> list[Score]:
        """Accuracy and loss of each set."""
        from expunge.modalities.graph.readings import score

        return score(readings)


MODALITY = GraphModality()
