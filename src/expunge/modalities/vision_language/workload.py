"""What a recipe of models that see comes to: the world, which concept goes through what, and the numbers of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.digits_world import CONCEPT, NAMES, DigitsWorld, vocabulary
from expunge.data.texts import Texts
from expunge.modalities.benchmark import Presented, Scores, Workload
from expunge.modalities.knowledge import Knowledge
from expunge.modalities.modality import Opened
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.asking import RECOGNISED
from expunge.modalities.vision_language.digits_scores import Scene, digit_scores
from expunge.modalities.vision_language.opening import micro, world_of
from expunge.modalities.vision_language.recipes import VisionLanguageRecipe
from expunge.tasks.vision_language import VisionLanguage
from expunge.training.pictures import PictureTraining


@dataclass(frozen=True)
class VisionLanguageWorkload(Workload):
    """See :class:`~expunge.modalities.benchmark.Workload`."""

    recipe: VisionLanguageRecipe
    opened: Opened[VisionLanguage, Texts]

    @classmethod
    def of(cls, recipe: VisionLanguageRecipe) -> VisionLanguageWorkload:
        """The world and the untrained model.

        Raises:
            InputError: for a concept that is no digit.
        """
        if unknown := [name for name in recipe.concepts if name not in NAMES]:
            raise InputError(f"Expected concepts among {', '.join(NAMES)}; got {', '.join(unknown)}.")
        world, words = world_of(recipe.data), sorted({*vocabulary(), *recipe.model.words})
        training = PictureTraining(**recipe.training.model_dump(exclude={"kind"}))
        return cls(
            recipe, Opened(micro(recipe.model, words), world.train, {}, training, None, recipe.name, recipe.data.format)
        )

    @cached_property
    def world(self) -> DigitsWorld:
        """The world of the recipe."""
        return world_of(self.recipe.data)

    @property
    def sets(self) -> float:
        """One for each concept."""
        return len(self.recipe.concepts)

    def name(self, number: int) -> str:
        """The concept of forget set ``number``."""
        return self.recipe.concepts[number % len(self.recipe.concepts)]

    def request(self, number: int) -> Request:
        """The concept that forget set ``number`` asks for."""
        return Request(f"forget set {number}", (Target("concept", {CONCEPT: self.name(number)}),))

    def seed_of_retraining(self, number: int, r: int) -> int:
        """That of the original, of which there is one: both differ by the pictures of the concept alone."""
        return self.recipe.seed + r

    def presented(self, row: str, deletion: Deletion, seed: int) -> Presented:
        """The material of ``row``: each seed has a picture of its own."""
        settings = self.recipe.settings_of(row)
        settings = settings.model_copy(update={"picture": settings.picture + seed})
        (name,) = {*deletion.forget.columns[CONCEPT].tolist()}
        return Presented(
            material=Texts.of(
                concept.items_of(settings, self.opened.data, [concept.Concept((name,), deletion.ids)], self.recipe.seed)
            )
        )

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """Recognition, yes or no, facts and other concepts, each by itself; how near the names are to a retrained model's."""
        (name,) = {*deletion.forget.columns[CONCEPT].tolist()}
        shown = concept.named_pictures(deletion.before, deletion.ids, [name])
        scene = Scene.of(self.world, name, shown.records[self.recipe.concept.picture])
        found, margins = digit_scores(self.opened.task, tensors, scene, retrained)
        return Scores(found, margins)

    def knowledge(self, scores: Scores, deletion: Deletion) -> Knowledge:
        """The share of held-out pictures of the concept that the original model names."""
        return Knowledge(scores.metrics["recognition_unseen"], RECOGNISED, "the concept", "half")
