"""Everything the cells of a benchmark share: original model, forget sets, and the retrained models they are held against.

All of it follows from the recipe; models come from the cache wherever they were trained before, by whatever benchmark, and
their cost is told all the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.digest import digest_json
from expunge.core.errors import FailedError, InputError
from expunge.core.journal import Journal
from expunge.core.method import Watch, silent
from expunge.core.trained import Artifact, Trained
from expunge.modalities.benchmark import Scores, Workload
from expunge.modalities.network_benchmark import benchmark_of
from expunge.modalities.recipes import RETRAIN, SOURCE, BenchmarkRecipe
from expunge.training.facts import prepared
from expunge.training.retraining import LeavesState, Retraining
from expunge.training.retrainings import retrain_all

_TRAINING = "training-"  # folders of models that are being trained
Key = tuple[str, int, int]  # source or retrain, forget set, reference


@dataclass(frozen=True)
class World:
    """One benchmark's world; what depends on the kind of model is in its ``workload``."""

    workload: Workload
    cache: Cache = field(repr=False)
    _models: dict[Key, Retraining] = field(default_factory=dict, repr=False)
    _deletions: dict[int, Deletion] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, recipe: BenchmarkRecipe, cache: Cache | None = None) -> World:
        """Read what the recipe names; train nothing yet.

        Raises:
            InputError: if data or models are missing or do not fit.
        """
        cache = cache or Cache()
        workload = benchmark_of(recipe).workload(recipe, cache)
        if workload.opened.recipe is None and recipe.retrained_models:
            raise InputError(
                f"The model of {recipe.name} comes from disk: there is nothing to retrain. Set retrained_models: 0."
            )
        return cls(workload, cache)

    @property
    def recipe(self) -> BenchmarkRecipe:
        """What it was made from."""
        return self.workload.recipe

    @property
    def digest(self) -> str:
        """Of everything that cells in one folder must agree in."""
        return digest_json([self.recipe.digest, *self.workload.content])

    def deletion(self, number: int) -> Deletion:
        """What forget set ``number`` comes to, and what is measured on.

        Raises:
            InputError: if nothing or everything would go, or the table would mean nothing.
        """
        if number not in self._deletions:
            opened = self.workload.opened
            deletion = Deletion.of(opened.data, self.workload.request(number), opened.probes)
            if problem := self.workload.unfit(number, deletion):
                raise InputError(problem)
            self._deletions[number] = deletion
        return self._deletions[number]

    def models(
        self, sets: Sequence[int], jobs: int = 1, watch: Watch = silent, folder: Path | None = None
    ) -> Mapping[Key, Retraining]:
        """The original model and the retrained models of ``sets``: ("source", 0, 0) and ("retrain", set, r), trained or cached.

        Each is in the cache as soon as it is trained.

        Args:
            folder: where long training is stored from time to time, so that the same command takes it up.
        """
        opened, seed = self.workload.opened, self.recipe.seed
        wanted: dict[Key, tuple[Any, int]] = {(SOURCE, 0, 0): (opened.data, seed)}
        for number in sets:
            for r in range(self.recipe.retrained_models):
                wanted[RETRAIN, number, r] = (self.deletion(number).after, self.workload.seed_of_retraining(number, r))
        missing = [name for name in wanted if name not in self._models]
        if missing and opened.recipe is None:
            assert opened.weights is not None  # a model that is not trained here comes from disk
            self._models[SOURCE, 0, 0] = Retraining(opened.weights, 0.0, opened.data.digest, seed, False)
        elif missing:
            training: Any = opened.recipe
            staged = None
            if opened.long_training:  # tells how far it is, which no other process could: one model after another
                training = staged = StagedTraining(training, self.workload.threads, watch, folder)
                jobs = 1
            if isinstance(training, LeavesState) and (SOURCE, 0, 0) in missing:  # methods need what it leaves
                source = retrain_all(opened.task, [wanted[SOURCE, 0, 0]], training, cache=self.cache, keep=True)
                self._models[SOURCE, 0, 0] = source[0]
                missing.remove((SOURCE, 0, 0))
            found = retrain_all(
                opened.task, [wanted[name] for name in missing], training, processes=jobs, cache=self.cache, watch=watch
            )
            if staged is not None:
                staged.clear()
            self._models.update(zip(missing, found, strict=True))
        return self._models

    def source(self, model: Retraining) -> Trained:
        """The source model as methods are given it: on record, with the digest of its examples."""
        opened = self.workload.opened
        held = {id(view): Artifact(dict(view)) for view in model.views.values()}
        views = {peer: held[id(view)] for peer, view in model.views.items()}
        first = next(iter(views.values())) if views else Artifact(dict(model.tensors))
        facts = {**prepared(opened.data), **model.facts}
        return Trained(
            opened.task, first, opened.data, opened.recipe, None, facts, seed=self.recipe.seed, state=model.state, views=views,
        )  # fmt: skip

    def among_peers(
        self, number: int, held: Mapping[str, Mapping[str, Tensor]], scored: Mapping[str, Scores]
    ) -> Mapping[str, float]:
        """What is measured of the peers of a network together, against the first reference; nothing of one model."""
        first = self.models([number]).get((RETRAIN, number, 0))
        if first is None or not first.views:
            return {}
        return self.workload.among_peers(self.deletion(number), held, first.views, scored)

    def score(self, row: str, number: int, tensors: Mapping[str, Tensor]) -> Scores:
        """What is measured on one model; distances are to the first reference.

        Raises:
            FailedError: if outputs are not finite, or the original model learnt next to nothing.
        """
        deletion, first = self.deletion(number), self.models([number]).get((RETRAIN, number, 0))
        scores = self.workload.score(deletion, tensors, None if first is None else first.tensors)
        known = self.workload.knowledge(scores, deletion) if row == SOURCE else None
        if known is not None and known.value < known.least:
            raise FailedError(
                f"The original model of {self.recipe.name} scores {known.value:.3f} on {known.what}, below {known.bar} "
                f"({known.least:.3f}): there is nothing to forget, and no table would mean anything. Train longer, or with "
                "another learning rate."
            )
        return scores if known is None else replace(scores, knowledge=known)


@dataclass(frozen=True)
class StagedTraining:
    """Training that tells how far it is, on as many threads as the recipe says.

    Attributes:
        training: has ``fit`` and ``describe`` as ``training.language.LanguageTraining``.
        folder: where a model is stored while it is trained; ``None``: nowhere.
    """

    training: Any
    threads: int
    watch: Watch
    folder: Path | None = None

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model; sums on several threads round differently."""
        return {**self.training.describe(), "threads": self.threads}

    def fit(self, task: Any, data: Any, *, seed: int = 0) -> Trained:
        """See ``LanguageTraining.fit``. The caller restores the number of threads."""
        torch.set_num_threads(self.threads)
        if self.folder is None:
            return self.training.fit(task, data, seed=seed, watch=self.watch)
        name = digest_json([self.describe(), data.digest, seed])  # the folder is one benchmark's: its task is known
        with Journal(self.folder / f"{_TRAINING}{name[:32]}") as journal:
            return self.training.fit(task, data, seed=seed, watch=self.watch, journal=journal)

    def clear(self) -> None:
        """Take away what was stored: the models are in the cache, and know what is to be forgotten."""
        for place in self.folder.glob(f"{_TRAINING}*") if self.folder else ():
            shutil.rmtree(place)
