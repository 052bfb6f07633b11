"""Graph networks: nodes with features and labels, of which nodes, edges and features can be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.folder import OfFolder
from expunge.modalities.graph.config import CheckpointTraining, GraphJob, called

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.data.graphs.graph import Graph
    from expunge.modalities.modality import Asked, Opened
    from expunge.tasks.graphs.nodes import NodeClassification


class GraphModality(OfFolder):
    """See :class:`~expunge.modalities.modality.Modality`."""

    name = "graph"
    kinds = (Kind.NODE, Kind.EDGE, Kind.FEATURE)
    job = GraphJob
    in_processes = False

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


MODALITY = GraphModality()
