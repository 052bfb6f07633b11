"""Models that see: what language models are, with records that carry pictures, and concepts that can be asked to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.language import LanguageModality
from expunge.modalities.vision_language.config import VisionLanguageJob, WorldData

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.core.data import Deletion
    from expunge.core.measurement import Check
    from expunge.core.task import Task
    from expunge.data.texts import Texts
    from expunge.evidence.comparison import Score
    from expunge.modalities.knowledge import Knowledge
    from expunge.modalities.modality import Asked, Opened
    from expunge.screening.result import ScreeningResult
    from expunge.tasks.vision_language import VisionLanguage


class VisionLanguageModality(LanguageModality):
    """See :class:`~expunge.modalities.modality.Modality`; what is not here is as for language models."""

    name = "vision_language"
    kinds = (Kind.SAMPLES, Kind.USER, Kind.CONCEPT)
    job = VisionLanguageJob
    right = "accuracy"

    def open(self, job: VisionLanguageJob) -> Opened[VisionLanguage, Texts]:  # type: ignore[override]
        """Records with their pictures, sets and the model."""
        from expunge.modalities.modality import Opened
        from expunge.modalities.vision_language.opening import files_of, model_of

        files = files_of(job)
        task, weights, recipe, finished = model_of(job, files.data)
        dataset = job.data.title if isinstance(job.data, WorldData) else job.data.path.name
        return Opened(
            task, files.data, files.sets, recipe, weights, job.model.title, dataset, files=files, publishable=False,
            finished=finished,
        )  # fmt: skip

    def knowledge(self, scores: Sequence[Score], data: Texts) -> Knowledge:
        """The share of what is to be forgotten that the model answers right."""
        from expunge.modalities.knowledge import Knowledge
        from expunge.modalities.vision_language.asking import RECOGNISED

        right = sum(s.n * s.value for s in scores) / sum(s.n for s in scores)
        return Knowledge(right, RECOGNISED, "what is to be forgotten", "half")

    def ask(self, job: VisionLanguageJob, opened: Opened[Any, Texts]) -> Asked[Texts]:  # type: ignore[override]
        """As for language models; of a concept the pictures that show it, and what it is forgotten through."""
        from expunge.modalities.vision_language.asking import concept_asked
        from expunge.modalities.vision_language.questions import measured

        if any(target.kind == Kind.CONCEPT for target in job.request.targets):
            return measured(job, concept_asked(job, opened))
        return super().ask(job, opened)

    def contrast(self, readings: Any, original: Any) -> list[Score]:
        """What compares a model with the original: C-Dis and the Min-K rule of MMUBench."""
        return self._module("readings").contrast(readings, original)

    def controls(self, readings: Any) -> list[Check]:
        """What models would score that always say no, or nothing."""
        return self._module("readings").controls(readings)

    def relearned(
        self, task: Task, tensors: Mapping[str, Any], sets: Mapping[str, Texts], steps: int, lr: float
    ) -> list[Score]:
        """How many steps on one new picture of the concept leave its name improbable."""
        return self._module("relearning").relearned(task, tensors, sets, steps, lr)

    def screen(  # type: ignore[override]
        self, job: VisionLanguageJob, opened: Opened[Any, Texts], asked: Asked[Texts], deletion: Deletion
    ) -> ScreeningResult:
        """As for language models; material that was written here for a concept is judged by its breadth alone."""
        from expunge.screening.result import screen_breadth

        return (
            screen_breadth(asked.request, deletion)
            if not deletion.member
            else super().screen(job, opened, asked, deletion)
        )


MODALITY = VisionLanguageModality()
