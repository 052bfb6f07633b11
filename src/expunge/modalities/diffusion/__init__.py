"""Diffusion models: they draw images of a class, and a class or single training images can be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.diffusion.config import CheckpointTraining, DiffusionJob, called

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.core.data import Deletion
    from expunge.core.task import Task
    from expunge.data.rows import Rows
    from expunge.evidence.comparison import Models, Score
    from expunge.evidence.membership import MembershipAttack
    from expunge.modalities.benchmark import Benchmark
    from expunge.modalities.modality import Asked, Opened
    from expunge.screening.result import ScreeningResult
    from expunge.tasks.diffusion.images import ImageDiffusion


class DiffusionModality:
    """See :class:`~expunge.modalities.modality.Modality`."""

    name = "diffusion"
    kinds = (Kind.SAMPLES, Kind.USER, Kind.CLASS)
    job = DiffusionJob
    in_processes = False

    @property
    def benchmark(self) -> Benchmark:
        """See :mod:`expunge.modalities.diffusion.benchmark`."""
        from expunge.modalities.diffusion.benchmark import BENCHMARK

        return BENCHMARK

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

    def screen(
        self, job: DiffusionJob, opened: Opened[ImageDiffusion, Rows], asked: Asked[Rows], deletion: Deletion
    ) -> ScreeningResult:
        """How broad the request is."""
        from expunge.screening.result import screen_breadth

        return screen_breadth(asked.request, deletion)

    @property
    def attacks(self) -> Sequence[MembershipAttack]:
        """By loss."""
        from expunge.modalities.diffusion.readings import ATTACKS

        return ATTACKS

    def read(self, task: Task, tensors: Mapping[str, Any], sets: Mapping[str, Rows]) -> Any:
        """Losses, and drawn images; see ``modalities.diffusion.readings``."""
        from expunge.modalities.diffusion.readings import read

        return read(task, tensors, sets)

    def score(self, readings: Any, retrained: Any = None) -> list[Score]:
        """Loss of each set; what drawn images show, how near they are to real ones and how varied."""
        from expunge.modalities.diffusion.readings import score

        return score(readings)

    def pictures(self, readings: Models[Any]) -> list[dict[str, Any]]:
        """Some images that each model draws of each class, for the private page."""
        from expunge.modalities.diffusion.pictures import pictures

        return pictures(readings)


MODALITY = DiffusionModality()
