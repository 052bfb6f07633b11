"""Classifiers: rows with labels; tables, arrays and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.classification.config import ClassifierJob

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.core.data import Deletion
    from expunge.core.task import Task
    from expunge.data.rows import Rows
    from expunge.evidence.comparison import Score
    from expunge.evidence.membership import MembershipAttack
    from expunge.modalities.knowledge import Knowledge
    from expunge.modalities.modality import Asked, Opened
    from expunge.screening.result import ScreeningResult
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
    right = "accuracy"
    known_on = ("retain", "forget")

    @property
    def benchmark(self) -> Benchmark:
        """See :mod:`expunge.modalities.classification.benchmark`."""
        from expunge.modalities.classification.benchmark import BENCHMARK

        return BENCHMARK

    def open(self, job: ClassifierJob | ClassifierRecipe) -> Opened[Classification, Rows]:
        """Model factory, rows and recipe; a checkpoint's weights are read."""
        from expunge.modalities.classification.config import CheckpointTraining, called
        from expunge.modalities.classification.opening import data_of, recipe_of, task_of
        from expunge.modalities.modality import Opened
        from expunge.training.store import load_checkpoint

        task = task_of(job)
        data, probes = data_of(job)
        weights = load_checkpoint(job.training.path) if isinstance(job.training, CheckpointTraining) else None
        note = SYNTHETIC if job.data.format == "digits" else ""
        name = job.model.rpartition(":")[2]
        return Opened(task, data, probes, recipe_of(job.training, task), weights, name, called(job.data), note)

    def knowledge(self, scores: Sequence[Score], data: Rows) -> Knowledge:
        """Accuracy on the training rows, against chance."""
        from expunge.modalities.classification.knowledge import knowledge

        return knowledge(sum(s.n * s.value for s in scores) / sum(s.n for s in scores), data.classes)

    def ask(self, job: ClassifierJob, opened: Opened[Classification, Rows]) -> Asked[Rows]:
        """The targets; rows carry no words of a request."""
        from expunge.modalities.modality import Asked

        return Asked(job.request.asked(), probes=opened.probes)

    def screen(
        self, job: ClassifierJob, opened: Opened[Classification, Rows], asked: Asked[Rows], deletion: Deletion
    ) -> ScreeningResult:
        """How broad the request is."""
        from expunge.screening.result import screen_breadth

        return screen_breadth(asked.request, deletion)

    @property
    def attacks(self) -> Sequence[MembershipAttack]:
        """By loss, by confidence, and by likelihood ratio on shadow models."""
        from expunge.modalities.classification.readings import ATTACKS

        return ATTACKS

    def read(self, task: Task, tensors: Mapping[str, Any], sets: Mapping[str, Rows]) -> Any:
        """Losses and logits; see ``modalities.classification.readings``."""
        from expunge.modalities.classification.readings import read

        return read(task, tensors, sets)

    def score(self, readings: Any, retrained: Any = None) -> list[Score]:
        """Accuracy and loss of each set."""
        from expunge.modalities.classification.readings import score

        return score(readings)


MODALITY = ClassificationModality()
