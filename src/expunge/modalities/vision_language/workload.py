"""What a recipe of models that see comes to: the world, which concept goes through what, and the numbers of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from expunge.core.data import Deletion, Ids
from expunge.core.errors import FailedError, InputError
from expunge.core.request import Request, Target
from expunge.data.picture_world import CONCEPT, World
from expunge.data.texts import Texts
from expunge.modalities.benchmark import Presented, Scores, Turn, Workload
from expunge.modalities.knowledge import Knowledge
from expunge.modalities.modality import Opened
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.asking import RECOGNISED
from expunge.modalities.vision_language.config import MicroModel, PicturesTraining, WorldData
from expunge.modalities.vision_language.mmubench import further
from expunge.modalities.vision_language.opening import micro
from expunge.modalities.vision_language.questions import both_modalities
from expunge.modalities.vision_language.recipes import VisionLanguageRecipe
from expunge.modalities.vision_language.world_scores import Scene, world_scores
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
            InputError: for a concept that the world lacks, or sequential rows that the recipe does not have.
        """
        assert isinstance(recipe.data, WorldData) and isinstance(recipe.model, MicroModel)
        assert isinstance(recipe.training, PicturesTraining)
        world = recipe.data.world()
        asked = dict.fromkeys(name for number in range(len(recipe.concepts)) for name in recipe.going(number))
        if unknown := [name for name in asked if name not in world.names]:
            raise InputError(f"Expected concepts among {', '.join(world.names)}; got {', '.join(unknown)}.")
        if unknown := [row for row in recipe.sequential if row not in recipe.rows]:
            raise InputError(f"Expected rows of {recipe.name} in sequential; got {', '.join(unknown)}.")
        if not world.other_style and (blind := [name for name in recipe.gates if name.endswith("_style")]):
            raise InputError(
                f"Expected no gate {', '.join(blind)}: {recipe.data.title} has pictures in one style alone."
            )
        training = PictureTraining(**recipe.training.model_dump(exclude={"kind"}))
        task = micro(recipe.model, sorted({*world.vocabulary, *recipe.model.words}))
        return cls(recipe, Opened(task, world.train, {}, training, None, recipe.name, recipe.data.format))

    @cached_property
    def world(self) -> World:
        """The world of the recipe."""
        assert isinstance(self.recipe.data, WorldData)
        return self.recipe.data.world()

    @property
    def names(self) -> Sequence[str]:
        """Concepts, in their order."""
        return self.world.names

    @property
    def sets(self) -> float:
        """One for each concept, or for each list of them."""
        return len(self.recipe.concepts)

    def request(self, number: int) -> Request:
        """The concepts that forget set ``number`` asks for."""
        names = self.recipe.going(number)
        where = names[0] if len(names) == 1 else list(names)
        return Request(f"forget set {number}", (Target("concept", {CONCEPT: where}),))

    def seed_of_retraining(self, number: int, r: int) -> int:
        """That of the original, of which there is one: both differ by the pictures of the concept alone."""
        return self.recipe.seed + r

    def presented(self, row: str, deletion: Deletion, seed: int) -> Presented:
        """The material of ``row``: each seed has pictures of its own."""
        settings = self.recipe.settings_of(row)
        settings = settings.model_copy(update={"picture": settings.picture + seed})
        items = concept.items_of(settings, deletion.before, self._concepts(deletion), self.recipe.seed, self.world)
        return Presented(material=Texts.of(items))

    def turns(self, row: str, number: int, deletion: Deletion, seed: int) -> Sequence[Turn]:
        """One request for all concepts, or one for each."""
        names = self.recipe.going(number)
        if row not in self.recipe.sequential or len(names) == 1:
            return super().turns(row, number, deletion, seed)
        turns, data = [], deletion.before
        for name in names:
            request = Request(f"forget set {number}, {name}", (Target("concept", {CONCEPT: name}),))
            own = Deletion.of(data, request, deletion.probes)
            turns.append(Turn(request, own, self.presented(row, own, seed)))
            data = own.after
        return turns

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """Recognition, yes or no, facts and other concepts, each by itself; how near the names are to a retrained model's."""
        concepts = self._concepts(deletion)
        shown = [concept.named_pictures(deletion.before, each.absent, each.names) for each in concepts]
        picture = self.recipe.concept.picture
        scene = Scene.of(
            self.world, [each.names[0] for each in concepts], [each.records[picture] for each in shown],
        )  # fmt: skip
        found, margins = world_scores(self.opened.task, tensors, scene, retrained)
        others = [found[name] for name in ("others", "yes_others", "no_others", "facts_others") if name in found]
        names = [name for each in concepts for name in each.names]
        more, of_questions = further(
            self.opened.task, tensors, {"unseen": scene.unseen, **both_modalities(self.world, names)},
            [each.names for each in concepts], self.recipe.relearning, self.recipe.relearning_lr,
        )  # fmt: skip
        return Scores({**more, **found, "specificity": float(np.mean(others))}, {**of_questions, **margins})

    def knowledge(self, scores: Scores, deletion: Deletion) -> Knowledge:
        """The share of held-out pictures of the concept that the original model names.

        Raises:
            FailedError: for an original model below a gate of the recipe.
        """
        found, gates = scores.metrics, self.recipe.gates
        if low := [f"{name} {found[name]:.3f} of {least}" for name, least in gates.items() if found[name] < least]:
            raise FailedError(
                f"The original model of {self.recipe.name} has not learnt its world: {', '.join(low)}. Nothing is compared "
                "with it: train it longer, or larger."
            )
        return Knowledge(found["recognition_unseen"], RECOGNISED, "the concept", "half")

    def _concepts(self, deletion: Deletion) -> list[concept.Concept]:
        """What ``deletion`` takes, in the order of the world."""
        data, shows = deletion.forget, deletion.forget.columns[CONCEPT]
        going = [name for name in self.names if name in {*shows.tolist()}]
        return [concept.Concept((name,), Ids.rows(data.ids[shows == name])) for name in going]
