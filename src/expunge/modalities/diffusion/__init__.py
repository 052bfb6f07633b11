"""Diffusion models: they draw images of a class, and a class or single training images can be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.diffusion.config import CheckpointTraining, DiffusionJob, called
from expunge.modalities.folder import OfFolder

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.data.rows import Rows
    from expunge.evidence.comparison import Models
    from expunge.modalities.modality import Asked, Opened
    from expunge.tasks.diffusion.images import ImageDiffusion


class DiffusionModality(OfFolder):
    """See :class:`~expunge.modalities.modality.Modality`."""

    name = "diffusion"
    kinds = (Kind.SAMPLES, Kind.USER, Kind.CLASS)
    job = DiffusionJob
    in_processes = False

    def open(self, job: Any) -> Opened[ImageDiffusion, Rows]:
        """Images, model factory and recipe; a checkpoint's weights are read and must fit."""
        from expunge.modalities.diffusion import opening
        from expunge.modalities.modality import Opened
        from expunge.training.store import load_checkpoint

        data, sets = opening.data_of(job.data)
        task = opening.task_of(job, data)
        task.check(data)
        weights = load_checkpoint(job.training.path) if isinstance(job.training, CheckpointTraining) else None
        if weights is not None:
            task.build(weights)
        name = job.model.rpartition(":")[2]
        return Opened(task, data, sets, opening.recipe_of(job.training), weights, name, called(job.data))

    def ask(self, job: DiffusionJob, opened: Opened[ImageDiffusion, Rows]) -> Asked[Rows]:
        """The targets.

        Raises:
            InputError: where fewer than two classes would be left.
        """
        from expunge.core.data import selected
        from expunge.modalities.diffusion.opening import must_leave_two_classes
        from expunge.modalities.modality import Asked

        request = job.request.asked()
        after = opened.data.without(selected(opened.data, request))
        if len(after):  # of an empty rest the matching of the request speaks
            must_leave_two_classes(opened.data, after)
        return Asked(request, probes=opened.probes)

    def pictures(self, readings: Models[Any]) -> list[dict[str, Any]]:
        """Some images that each model draws of each class, for the private page."""
        from expunge.modalities.diffusion.pictures import pictures

        return pictures(readings)


MODALITY = DiffusionModality()
