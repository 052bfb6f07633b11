"""What a recipe of language models comes to: facts, who is forgotten in which words, and the numbers of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from expunge.attacks.stealthy import poison
from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.digest import digest_arrays
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.texts import Texts
from expunge.modalities.benchmark import Presented, Scores, Workload
from expunge.modalities.knowledge import Knowledge
from expunge.modalities.language.knowledge import knowledge
from expunge.modalities.language.micro_world import micro_facts
from expunge.modalities.language.questions import Facts, questions
from expunge.modalities.language.recipes import LanguageRecipe, MicroWorld
from expunge.modalities.modality import Opened
from expunge.tasks.language import Language
from expunge.training.language import LanguageTraining


@dataclass(frozen=True)
class LanguageWorkload(Workload):
    """See :class:`~expunge.modalities.benchmark.Workload`; ``facts`` are what the world of the recipe holds."""

    recipe: LanguageRecipe
    opened: Opened[Language, Texts]
    facts: Facts
    cache: Cache = field(repr=False)

    @classmethod
    def of(cls, recipe: LanguageRecipe, cache: Cache) -> LanguageWorkload:
        """Read data and, where there is one, the pretrained model.

        Raises:
            InputError: if data or the model are missing, saying where to get them, or more would go than there is.
        """
        world, training = recipe.world, recipe.training
        if isinstance(world, MicroWorld):
            facts = micro_facts(world)
        else:
            from expunge.modalities.language.tofu_world import tofu_facts

            facts = tofu_facts(world)
        if world.forget >= len(facts.candidates):
            raise InputError(
                f"Recipe {recipe.name} forgets {world.forget} of {len(facts.candidates)} subjects: expected fewer than there "
                "are."
            )
        opened = Opened(
            facts.task, facts.data, {}, None if training is None else LanguageTraining(**training.model_dump()),
            facts.task.start, recipe.name, world.kind, long_training=True,
        )  # fmt: skip
        return cls(recipe, opened, facts, cache)

    @property
    def content(self) -> Sequence[Any]:
        """Digests of all facts and of the weights that training starts from, and how a question is put."""
        start, task = self.opened.weights, self.opened.task
        return [self.opened.data.digest, None if start is None else digest_arrays(start), task.prompts.rendered]

    @property
    def threads(self) -> int:
        """As the recipe says."""
        return self.recipe.threads

    @property
    def sets(self) -> float:
        """How many forget sets there are before they repeat."""
        return len(self.facts.candidates) // self.recipe.world.forget

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for: set 0 are the last candidates, set 1 those before them."""
        size, end, data = self.recipe.world.forget, len(self.facts.candidates), self.opened.data
        end -= size * (number % int(self.sets))
        ids = data.ids[np.isin(data.columns[self.facts.column], self.facts.candidates[end - size : end])]
        return Request(f"forget set {number}", (Target("samples", {"ids": ids}),))

    def presented(self, row: str, deletion: Deletion, seed: int) -> Presented:
        """The forgotten facts as the request of ``row`` words them: some inside the templates of the stealthy attack."""
        p, forget = self.recipe.attack(row), deletion.forget
        return Presented(forget.worded(poison(forget.records, p=p, seed=seed).records)) if p else Presented()

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """Share of right answers, or ROUGE-L recall, for each set of questions; TOFU's statistics where they are asked for."""
        task, facts = self.opened.task, self.facts
        model = task.build(tensors).eval()
        asked = questions(task, deletion, self.recipe.seed, facts.asked, facts.others)
        metrics = {name: float(facts.count(task, model, texts).mean()) for name, texts in asked.items()}
        if facts.statistics:
            from expunge.modalities.language.tofu_world import statistics

            metrics |= statistics(task, tensors, facts.statistics, retrained, self.cache)
        return Scores(metrics)

    def knowledge(self, scores: Scores, deletion: Deletion) -> Knowledge:
        """What is known of what is to be forgotten."""
        return knowledge(scores.metrics["forget"])
