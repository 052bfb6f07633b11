"""Language models: questions with answers, and plain texts; models of whole words, or folders of ``transformers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.request import Kind
from expunge.modalities.folder import OfFolder
from expunge.modalities.language.config import LanguageJob, TofuData

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.core.data import Deletion
    from expunge.core.task import Task
    from expunge.data.texts import Texts
    from expunge.evidence.comparison import Models, Score
    from expunge.modalities.knowledge import Knowledge
    from expunge.modalities.modality import Asked, Opened
    from expunge.screening.result import ScreeningResult
    from expunge.tasks.language import Language


class LanguageModality(OfFolder):
    """See :class:`~expunge.modalities.modality.Modality`."""

    name = "language"
    kinds = (Kind.SAMPLES, Kind.USER)
    job = LanguageJob
    in_processes = True
    right = "exact_memorization"
    known_on = ("forget",)

    def open(self, job: LanguageJob) -> Opened[Language, Texts]:
        """Records, sets and the model in its folder."""
        from expunge.modalities.language.opening import files_of, model_of
        from expunge.modalities.modality import Opened

        files = files_of(job)
        task, weights, recipe, finished = model_of(job, files.data)
        dataset = f"TOFU {job.data.split}" if isinstance(job.data, TofuData) else job.data.path.name
        return Opened(
            task, files.data, files.sets, recipe, weights, job.model.title, dataset, files=files, publishable=False,
            long_training=True, finished=finished,
        )  # fmt: skip

    def knowledge(self, scores: Sequence[Score], data: Texts) -> Knowledge:
        """The share of the forgotten answers' tokens that the model says itself."""
        from expunge.modalities.language.knowledge import knowledge

        return knowledge(sum(s.n * s.value for s in scores) / sum(s.n for s in scores))

    def ask(self, job: LanguageJob, opened: Opened[Language, Texts]) -> Asked[Texts]:
        """The targets or the request's own records, and what of these the model's context holds."""
        from expunge.core.data import selected
        from expunge.modalities.language.asking import asked_of, fitted
        from expunge.modalities.modality import Asked

        request, wording = asked_of(job, opened.files.data, opened.files.asked)
        fit = fitted(job, opened.task, opened.files, selected(opened.data, request))
        return Asked(request, wording, fit.dropped, fit.sets, fit.note)

    def said(self, task: Task, models: Models[Any], sets: Mapping[str, Texts]) -> list[dict[str, Any]]:
        """What every model answers to some questions of each set, with their pictures where they have any. Private."""
        from expunge.modalities.language.speaking import said

        return said(task, models, sets)

    def screen(
        self, job: LanguageJob, opened: Opened[Language, Texts], asked: Asked[Texts], deletion: Deletion
    ) -> ScreeningResult:
        """How broad the request is, and how it is worded."""
        from expunge.modalities.language.screening import Wording

        wording = None if asked.wording is None else asked.wording.only(deletion.ids)
        how = Wording(job.request.on_screening, wording, opened.files.benign, job.seed)
        return how.screen(asked.request, deletion)


MODALITY = LanguageModality()
