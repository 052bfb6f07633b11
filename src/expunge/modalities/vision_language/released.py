"""A benchmark of a released model: concepts that it recognises, in a folder of pictures (MMUBench, arXiv 2405.12523)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.concepts import KINDS
from expunge.data.negatives import holds, mentions
from expunge.data.picture_records import METADATA, read_image_folder
from expunge.data.picture_world import CONCEPT, WORDS
from expunge.data.pictures import IMAGE
from expunge.data.places import located
from expunge.data.texts import Texts
from expunge.metrics.recognition import affirmed, degenerate
from expunge.modalities.benchmark import Presented, Scores
from expunge.modalities.language.speaking import spoken
from expunge.modalities.language.tofu_world import model_folder
from expunge.modalities.modality import Opened
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.mmubench import further
from expunge.modalities.vision_language.questions import recognises
from expunge.modalities.vision_language.recipes import ConceptFolder, SavedWeights, VisionLanguageRecipe
from expunge.modalities.vision_language.workload import VisionLanguageWorkload
from expunge.modalities.vision_language.world_scores import OTHERS_EACH
from expunge.tasks.pretrained_pictures import load_vision_language_model

HOW = (
    "MMUBench is not public: collect pictures of concepts, with facts about each in words; "
    "expunge concepts keeps what the model names."
)


@dataclass(frozen=True)
class ReleasedWorkload(VisionLanguageWorkload):
    """See :class:`~expunge.modalities.benchmark.Workload`; what is not here is as for worlds."""

    @classmethod
    def of(cls, recipe: VisionLanguageRecipe) -> ReleasedWorkload:
        """The pictures and the model.

        Raises:
            InputError: where either is missing, saying how to get it; for a concept that has no picture, fewer than two
                concepts, or a kind of items that a world would word.
        """
        folder, saved = cast(ConceptFolder, recipe.data), cast(SavedWeights, recipe.model)
        data = read_image_folder(located(folder.path, ("mmubench",), (METADATA,), HOW), [CONCEPT])
        there = [name for name in dict.fromkeys(data.columns[CONCEPT].tolist()) if name != WORDS]
        asked = dict.fromkeys(name for number in range(len(recipe.concepts)) for name in recipe.going(number))
        if (unknown := [name for name in asked if name not in there]) or len(there) < 2:
            raise InputError(
                f"Expected pictures of at least two concepts, {', '.join(asked)} among them; there are {', '.join(there)}"
                f"{f', and none of {unknown[0]}' if unknown else ''}."
            )
        if recipe.concept.kind not in KINDS:
            raise InputError(
                f"Expected concept.kind among {', '.join(KINDS)} for a released model; got {recipe.concept.kind}."
            )
        options = saved.model_dump(exclude={"folder", "get", "dtype"})
        try:
            place = model_folder(saved.folder, "model.folder")
            task, weights = load_vision_language_model(place, **options, dtype=getattr(torch, saved.dtype))
        except InputError as error:
            raise InputError(f"{error} {saved.get}".strip()) from None
        return cls(recipe, Opened(task, data, {}, None, weights, recipe.name, folder.format))

    @property
    def names(self) -> Sequence[str]:
        """Concepts, in the order of the pictures."""
        return [name for name in dict.fromkeys(self.opened.data.columns[CONCEPT].tolist()) if name != WORDS]

    def presented(self, row: str, deletion: Deletion, seed: int) -> Presented:
        """The material of ``row`` from what the model says itself: each seed has pictures of its own."""
        settings = self.recipe.settings_of(row)
        settings, weights = settings.model_copy(update={"picture": settings.picture + seed}), self.opened.weights
        assert weights is not None  # a released model has some
        model = (self.opened.task, weights)
        items = concept.items_of(settings, deletion.before, self._concepts(deletion), self.recipe.seed, None, model)
        return Presented(material=Texts.of(items))

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """As for worlds, from what is said; a name counts wherever it stands in an answer, and a fact where its answer does."""
        names = [each.names[0] for each in self._concepts(deletion)]
        parts = self.asked(names)
        records = [record for each in parts.values() for record in each]
        answers, start, found = spoken(self.opened.task, tensors, records), 0, {}
        for metric, asked in parts.items():
            hits = [_hit(metric, text, record) for text, record in zip(answers[start:], asked, strict=False)]
            found[metric], start = float(np.mean(hits)), start + len(asked)
        found["degeneration"] = float(degenerate(answers).mean())
        found["specificity"] = float(
            np.mean([found[each] for each in ("others", "yes_others", "no_others", "facts_others")])
        )
        more, margins = further(
            self.opened.task, tensors, {"unseen": parts["recognition_unseen"]}, [[name] for name in names],
            self.recipe.relearning, self.recipe.relearning_lr,
        )  # fmt: skip
        return Scores({**more, **found}, margins)

    def asked(self, names: Sequence[str]) -> dict[str, list[Record]]:
        """Metric → the questions that it is a share of.

        Raises:
            InputError: for a metric without questions.
        """
        templates, data = KINDS[self.recipe.concept.kind], self.opened.data
        pictures, first, last = (
            self._pictures(),
            self.recipe.concept.picture,
            self.recipe.concept.picture + self.recipe.seeds,
        )
        others = {name: each[:OTHERS_EACH] for name, each in pictures.items() if name not in names}
        unseen = {name: [*pictures[name][:first], *pictures[name][last:]] for name in names}
        wrong = dict(zip(others, [*list(others)[1:], names[0]], strict=True))
        words = [record for record in data.records if IMAGE not in record and "question" in record]
        about = [mentions(f"{r['question']}\n{r['answer']}", names) for r in words]

        def by_name(of: Mapping[str, list[Record]], called: Mapping[str, str], answer: str) -> list[Record]:
            pairs = [(name, record) for name, each in of.items() for record in each]
            asks = templates.asked_if
            return [{**record, "question": asks[i % len(asks)].format(name=called[name]), "answer": answer}
                    for i, (name, record) in enumerate(pairs)]  # fmt: skip

        shown = [each for name in names for each in pictures[name][first : first + 1]]
        parts = {
            "recognition_seen": [{**record, "question": asked} for record in shown for asked in templates.asked],
            "recognition_unseen": [record for each in unseen.values() for record in each],
            "yes_no": by_name(unseen, {name: name for name in names}, "Yes."),
            "facts": [record for record, own in zip(words, about, strict=True) if own],
            "others": [record for each in others.values() for record in each],
            "yes_others": by_name(others, {name: name for name in others}, "Yes."),
            "no_others": by_name(others, wrong, "No."),
            "facts_others": [record for record, own in zip(words, about, strict=True) if not own],
        }
        if empty := [name for name, each in parts.items() if not each]:
            raise InputError(
                f"Nothing can be asked for {', '.join(empty)} about {', '.join(names)}: give more pictures than seeds of each "
                "concept, and records without a picture about these and about others."
            )
        return parts  # type: ignore[return-value]

    def _pictures(self) -> dict[str, list[Record]]:
        """Concept → open questions about its pictures, one for each picture."""
        data, found = self.opened.data, {name: dict[str, Any]() for name in self.names}
        for record, name in zip(data.records, data.columns[CONCEPT].tolist(), strict=True):
            if IMAGE in record and holds(record["answer"], name):
                found[name].setdefault(record[IMAGE], {**record, CONCEPT: name})
        return {name: list(each.values()) for name, each in found.items()}


def _hit(metric: str, answer: str, record: Mapping[str, Any]) -> bool:
    if metric.startswith("recognition") or metric == "others":
        return recognises(answer, record, [record[CONCEPT]])
    if metric.startswith(("yes", "no")):
        return bool(affirmed([answer])[0]) != metric.startswith("no")
    return holds(answer, record["answer"])
