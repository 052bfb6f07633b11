"""Classifiers: rows with labels; tables, arrays and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.data import Deletion
from expunge.core.request import Kind
from expunge.data.rows import Rows
from expunge.modalities.classification.config import ClassifierJob
from expunge.modalities.modality import Asked, Opened
from expunge.screening.result import ScreeningResult, screen_breadth
from expunge.tasks.classification import Classification

if TYPE_CHECKING:
    from expunge.modalities.benchmark import Benchmark
    from expunge.modalities.classification.recipes import ClassifierRecipe

SYNTHETIC = "Groups of consecutive images stand for people: synthetic."


class ClassificationModality:
    """See :class:`~expunge.modalities.modality.Modality`."""

    name = "classification"
    kinds = (Kind.SAMPLES, Kind.USER, Kind.CLASS)
    job = ClassifierJob
    in_processes = False

    @property
    def benchmark(self) -> Benchmark:
        """See :mod:`expunge.modalities.classification.benchmark`."""
        from expunge.modalities.classification.benchmark import BENCHMARK

        return BENCHMARK

    def open(self, job: ClassifierJob | ClassifierRecipe) -> Opened[Classification, Rows]:
        """Model factory, rows and recipe; a checkpoint's weights are read."""
        from expunge.modalities.classification.config import CheckpointTraining, called
        from expunge.modalities.classification.opening import data_of, recipe_of, task_of
        from expunge.training.store import load_checkpoint

        task = task_of(job)
        data, probes = data_of(job)
        weights = load_checkpoint(job.training.path) if isinstance(job.training, CheckpointTraining) else None
        note = SYNTHETIC if job.data.format == "digits" else ""
        name = job.model.rpartition(":")[2]
        return Opened(task, data, probes, recipe_of(job.training, task), weights, name, called(job.data), note)

    def ask(self, job: ClassifierJob, opened: Opened[Classification, Rows]) -> Asked[Rows]:
        """The targets; rows carry no words of a request."""
        return Asked(job.request.asked(), probes=opened.probes)

    def screen(
        self, job: ClassifierJob, opened: Opened[Classification, Rows], asked: Asked[Rows], deletion: Deletion
    ) -> ScreeningResult:
        """How broad the request is."""
        return screen_breadth(asked.request, deletion)


MODALITY = ClassificationModality()
