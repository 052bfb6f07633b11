"""What the cells of a language benchmark share: facts, the model that knows them, and who is forgotten in which words."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from expunge.attacks.stealthy import poison
from expunge.bench.benchmark import RETRAIN, SOURCE
from expunge.bench.language_answers import Ask, questions, right_words, rouge
from expunge.bench.language_recipe import LanguageRecipe, MicroWorld
from expunge.bench.scores import Scores
from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.digest import digest_arrays, digest_json
from expunge.core.errors import FailedError, InputError
from expunge.core.journal import Journal
from expunge.core.method import Watch, silent
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Trained
from expunge.data import micro_world
from expunge.data.texts import Texts
from expunge.tasks.language import Language
from expunge.training.facts import prepared
from expunge.training.language import LanguageTraining
from expunge.training.retrainings import Retraining, retrain_all

REFERENCE_SEEDS = 1_000  # the reference of forget set i trains from seed REFERENCE_SEEDS (i + 1)
_TEACHING = "teaching-"  # folders of models that are being taught
KNOWN = 0.25  # three times the micro world's chance: below it nothing was learnt that could be forgotten


@dataclass(frozen=True)
class LanguageWorld:
    """One benchmark's world.

    Attributes:
        recipe: what it was made from.
        task: how the model is run.
        data: every fact that the source knows, with the column ``subject`` or ``author``.
        column: that column.
        candidates: who may be forgotten; the last ones go first.
        others: questions about neither, asked as ``real``; or ``None``.
        statistics: the sets that TOFU's statistics take; empty: none are asked for.
        ask: how answers are counted.
    """

    recipe: LanguageRecipe
    task: Language
    data: Texts
    column: str
    candidates: Sequence[Any]
    others: Texts | None
    statistics: Mapping[str, Texts]
    ask: Ask = field(repr=False)
    cache: Cache = field(repr=False)
    _models: dict[tuple[str, int, int], Retraining] = field(default_factory=dict, repr=False)
    _deletions: dict[int, Deletion] = field(default_factory=dict, repr=False)

    tunable: ClassVar[bool] = False  # tuning takes the gap to retrained models, which is not measured here

    @classmethod
    def of(cls, recipe: LanguageRecipe, cache: Cache | None = None) -> LanguageWorld:
        """Read data and, where there is one, the pretrained model; train nothing yet.

        Raises:
            InputError: if data or the model are missing, saying where to get them, or more would go than there is.
        """
        world = recipe.world
        if isinstance(world, MicroWorld):
            task, data, others, statistics, ask = *_micro(world), None, {}, right_words
            column, candidates = micro_world.SUBJECT, micro_world.entities()[: world.entities]
        else:
            from expunge.bench.tofu_world import other_questions, statistics_sets, taught_model, tofu_authors
            from expunge.data.tofu import AUTHOR

            data, others, statistics = tofu_authors(world), other_questions(world), statistics_sets(world)
            task = taught_model(world.model)
            column, candidates, ask = AUTHOR, list(dict.fromkeys(data.columns[AUTHOR].tolist())), rouge(world.tokens)
        if world.forget >= len(candidates):
            raise InputError(
                f"Recipe {recipe.name} forgets {world.forget} of {len(candidates)} subjects: expected fewer than there are."
            )
        return cls(recipe, task, data, column, candidates, others, statistics, ask, cache or Cache())

    @property
    def digest(self) -> str:
        """Of the recipe's settings, all facts, how a question is put, and the weights that training starts from."""
        start = None if self.task.start is None else digest_arrays(self.task.start)
        return digest_json([self.recipe.digest, self.data.digest, start, self.task.prompts.rendered])

    @property
    def threads(self) -> int:
        """Of one process."""
        return self.recipe.threads

    @cached_property
    def fit(self) -> LanguageTraining | None:
        """How source and reference learn; ``None``: the pretrained model is the source."""
        training = self.recipe.training
        return None if training is None else LanguageTraining(**training.model_dump())

    @property
    def different_sets(self) -> float:
        """How many forget sets there are before they repeat."""
        return len(self.candidates) // self.recipe.world.forget

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for: set 0 are the last candidates, set 1 those before them."""
        size, end = self.recipe.world.forget, len(self.candidates)
        end -= size * (number % int(self.different_sets))
        ids = self.data.ids[np.isin(self.data.columns[self.column], self.candidates[end - size : end])]
        return Request(f"forget set {number}", (Target("samples", {"ids": ids}),))

    def deletion(self, number: int) -> Deletion:
        """The facts of forget set ``number``."""
        if number not in self._deletions:
            self._deletions[number] = Deletion.of(self.data, self.request(number))
        return self._deletions[number]

    def wording(self, row: str, number: int, seed: int) -> Texts | None:
        """The forgotten facts as the request of ``row`` words them; ``None``: as they were learnt."""
        p, forget = self.recipe.attack(row), self.deletion(number).forget
        return forget.worded(poison(forget.records, p=p, seed=seed).records) if p else None

    def models(
        self, sets: Sequence[int], jobs: int = 1, watch: Watch = silent, folder: Path | None = None
    ) -> Mapping[tuple[str, int, int], Retraining]:
        """The source and the references of ``sets``, taught one after another or cached; see :class:`Lesson` for ``folder``."""
        wanted: dict[tuple[str, int, int], tuple[Texts, int]] = {(SOURCE, 0, 0): (self.data, self.recipe.seed)}
        for number in sets:
            for r in range(self.recipe.references):
                wanted[RETRAIN, number, r] = (self.deletion(number).after, REFERENCE_SEEDS * (number + 1) + r)
        missing = [name for name in wanted if name not in self._models]
        if missing and self.fit is None:
            assert self.task.start is not None  # the recipe asks for a pretrained model
            self._models[SOURCE, 0, 0] = Retraining(self.task.start, 0.0, self.data.digest, self.recipe.seed, False)
        elif missing and self.fit is not None:
            lesson = Lesson(self.fit, self.threads, watch, folder)
            found = retrain_all(self.task, [wanted[name] for name in missing], lesson, cache=self.cache, watch=watch)
            lesson.forget()
            self._models.update(zip(missing, found, strict=True))
        return self._models

    def source(self, model: Retraining) -> Trained:
        """The source model as methods are given it."""
        return Trained(
            self.task, Artifact(dict(model.tensors)), self.data, self.fit, None, prepared(self.data),
            seed=self.recipe.seed,
        )  # fmt: skip

    def score(self, row: str, number: int, tensors: Mapping[str, torch.Tensor]) -> Scores:
        """Share of right answers, or ROUGE-L recall, for each set of questions.

        Raises:
            FailedError: if outputs are not finite, or the source knows next to nothing of what is to be forgotten.
        """
        model = self.task.build(tensors).eval()
        sets = questions(self.task, self.deletion(number), self.recipe, self.others)
        metrics = {name: float(self.ask(self.task, model, texts).mean()) for name, texts in sets.items()}
        if row == SOURCE and metrics["forget"] < KNOWN:
            raise FailedError(
                f"The source model of {self.recipe.name} scores {metrics['forget']:.2f} on what is to be forgotten, below "
                f"{KNOWN}: there is nothing to forget, and no table would mean anything. Train longer, or with another rate."
            )
        if self.statistics:
            from expunge.bench.tofu_world import statistics

            twin = self.models([number]).get((RETRAIN, number, 0))
            metrics |= statistics(self.task, tensors, self.statistics, twin and twin.tensors, self.cache)
        return Scores(metrics, {})


@dataclass(frozen=True)
class Lesson:
    """Training that tells how far it is, on as many threads as the recipe says.

    Attributes:
        folder: where a model is stored while it is taught, so that the same command takes it up; ``None``: nowhere.
    """

    training: LanguageTraining
    threads: int
    watch: Watch
    folder: Path | None = None

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model; sums on several threads round differently."""
        return {**self.training.describe(), "threads": self.threads}

    def fit(self, task: Language, data: Texts, *, seed: int = 0) -> Trained:
        """See ``LanguageTraining.fit``. The caller restores the number of threads."""
        torch.set_num_threads(self.threads)
        if self.folder is None:
            return self.training.fit(task, data, seed=seed, watch=self.watch)
        name = digest_json([self.describe(), data.digest, seed])  # the folder is one benchmark's: its task is known
        with Journal(self.folder / f"{_TEACHING}{name[:32]}") as journal:
            return self.training.fit(task, data, seed=seed, watch=self.watch, journal=journal)

    def forget(self) -> None:
        """Take away what was stored: the models are in the cache, and know what is to be forgotten."""
        for place in self.folder.glob(f"{_TEACHING}*") if self.folder else ():
            shutil.rmtree(place)


def _micro(world: MicroWorld) -> tuple[Language, Texts]:
    from expunge.tasks.micro_language import micro_language

    data = micro_world.micro_world()
    known = [*micro_world.entities()[: world.entities], *micro_world.cities()[: world.cities]]
    task = micro_language(micro_world.vocabulary(), **world.model)
    return task, data.at(np.flatnonzero(np.isin(data.columns[micro_world.SUBJECT], known)))
