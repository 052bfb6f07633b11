"""Classifiers: rows with labels; tables, arrays and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.classification.config import ClassifierJob
from expunge.modalities.folder import OfFolder

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.core.task import Task
    from expunge.data.rows import Rows
    from expunge.evidence.comparison import Models, Score
    from expunge.modalities.classification.recipes import ClassifierRecipe
    from expunge.modalities.knowledge import Knowledge
    from expunge.modalities.modality import Asked, Opened
    from expunge.tasks.classification import Classification

SYNTHETIC = "Groups of consecutive images stand for people: synthetic."


class ClassificationModality(OfFolder):
    """See :class:`~expunge.modalities.modality.Modality`."""

    name = "classification"
    kinds = (Kind.SAMPLES, Kind.USER, Kind.CLASS)
    job = ClassifierJob
    in_processes = False
    right = "accuracy"
    known_on = ("retain", "forget")

    def open(self, job: ClassifierJob | ClassifierRecipe) -> Opened[Classification, Rows]:
        """Model factory, rows and recipe; a checkpoint's weights are read."""
        from expunge.modalities.classification.config import CheckpointTraining, UserTraining, called
        from expunge.modalities.classification.opening import data_of, recipe_of, task_of
        from expunge.modalities.modality import Opened
        from expunge.training.store import load_checkpoint

        task = task_of(job)
        data, probes = data_of(job)
        place = job.training.path if isinstance(job.training, CheckpointTraining | UserTraining) else None
        weights = None if place is None else load_checkpoint(place)
        note = SYNTHETIC if job.data.format == "digits" else ""
        name = job.model.rpartition(":")[2]
        recipe, finished = recipe_of(job.training, task), weights is not None
        return Opened(task, data, probes, recipe, weights, name, called(job.data), note, finished=finished)

    def knowledge(self, scores: Sequence[Score], data: Rows) -> Knowledge:
        """Accuracy on the training rows, against chance."""
        from expunge.modalities.classification.knowledge import knowledge

        return knowledge(sum(s.n * s.value for s in scores) / sum(s.n for s in scores), data.classes)

    def said(self, task: Task, models: Models[Any], sets: Mapping[str, Rows]) -> list[dict[str, Any]]:
        """What every model takes some images of each set for. Private; nothing of rows that are no images."""
        from expunge.modalities.classification.readings import said

        return said(task, models, sets)

    def ask(self, job: ClassifierJob, opened: Opened[Classification, Rows]) -> Asked[Rows]:
        """The targets; rows carry no words of a request."""
        from expunge.modalities.modality import Asked

        return Asked(job.request.asked(), probes=opened.probes)


MODALITY = ClassificationModality()
