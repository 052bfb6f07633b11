"""Everything the cells of a benchmark share: rows, source model, forget sets, and the retrained models they are held against.

All of it follows from the recipe; source and references come from the cache wherever they were trained before, by whatever
benchmark, and their cost is told all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from expunge.bench.benchmark import RETRAIN, SOURCE
from expunge.bench.recipe import ForgetClass, ForgetUser, Recipe
from expunge.bench.scores import Scores, score
from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.digest import digest_json
from expunge.core.errors import FailedError, InputError
from expunge.core.method import Watch, silent
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Trained
from expunge.data.rows import Rows
from expunge.data.splits import holdout_per_class
from expunge.modalities.classification.opening import data_of, recipe_of, task_of
from expunge.tasks.classification import Classification
from expunge.tasks.passes import BENCH_OUTPUTS, in_passes
from expunge.training.facts import prepared
from expunge.training.retrainings import Retraining, retrain_all

TUNING_SET = 10_000  # number of the forget set that settings are tuned on: none that a table is made of
REFERENCE_SEEDS = 1_000  # reference r of forget set i trains from seed REFERENCE_SEEDS (i + 1) + r
CHANCE_TIMES = 3  # a source model below so many times chance has learnt nothing that could be forgotten; ours


@dataclass(frozen=True)
class World:
    """One benchmark's world.

    Attributes:
        recipe: what it was made from.
        task: how the model is run.
        train, validation, test: rows; validation is ``None`` where the recipe holds nothing back.
    """

    recipe: Recipe
    task: Classification
    train: Rows
    validation: Rows | None
    test: Rows
    cache: Cache = field(repr=False)
    _models: dict[tuple[str, int, int], Retraining] = field(default_factory=dict, repr=False)
    _deletions: dict[int, Deletion] = field(default_factory=dict, repr=False)

    tunable: ClassVar[bool] = True

    @classmethod
    def of(cls, recipe: Recipe, cache: Cache | None = None) -> World:
        """Read the data; train nothing yet.

        Raises:
            InputError: if data are missing, do not fit the model, or hold no test rows.
        """
        task = task_of(recipe)
        train, probes = data_of(recipe)
        if "test" not in probes:
            raise InputError(f"Recipe {recipe.name} needs test rows; its data have none (test_path).")
        validation = None
        if recipe.validation:
            train, validation = holdout_per_class(train, recipe.validation, recipe.seed)
        if recipe.training_rows not in (None, len(train)):
            raise InputError(
                f"Recipe {recipe.name} trains on {recipe.training_rows:,} rows; the data here leave {len(train):,}. Get the "
                "whole data set, or copy the recipe and change training_rows: another benchmark then."
            )
        for rows in (train, probes["test"]):
            task.check(rows)
        return cls(recipe, task, train, validation, probes["test"], cache or Cache())

    @property
    def digest(self) -> str:
        """Of the recipe's settings and of all rows: what cells in one folder must agree in."""
        parts = [self.train, self.test, *([] if self.validation is None else [self.validation])]
        return digest_json([self.recipe.digest, [rows.digest for rows in parts]])

    @property
    def threads(self) -> int:
        """Of one process: small tensors want one."""
        return 1

    @cached_property
    def fit(self) -> Any:
        """The recipe of source and references."""
        return recipe_of(self.recipe.training, self.task)

    @cached_property
    def users(self) -> np.ndarray:
        """Whoever may be forgotten; empty where no users are.

        Raises:
            InputError: if there is no such column.
        """
        forget = self.recipe.forget
        if not isinstance(forget, ForgetUser):
            return np.array([])
        if forget.column not in self.train.columns:
            raise InputError(
                f"There is no column {forget.column!r}; there are {', '.join(self.train.columns) or 'none'}."
            )
        return np.unique(self.train.columns[forget.column])

    @property
    def different_sets(self) -> float:
        """How many forget sets there are before they repeat."""
        forget = self.recipe.forget
        return len(forget.labels) if isinstance(forget, ForgetClass) else len(self.users) or float("inf")

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for."""
        forget = self.recipe.forget
        if isinstance(forget, ForgetUser):
            users = self.users
            order = np.random.default_rng([self.recipe.seed]).permutation(len(users))
            at = order[-1] if number == TUNING_SET else order[number % len(users)]
            return Request(f"user {number}", (Target("user", {forget.column: users[at]}),))
        if isinstance(forget, ForgetClass):
            label = forget.labels[-1 if number == TUNING_SET else number % len(forget.labels)]
            return Request(f"class {label}", (Target("class", {"label": label}),))
        count = round(forget.share * len(self.train))
        draw = np.random.default_rng([self.recipe.seed, number])
        ids = draw.choice(self.train.ids, count, replace=False)
        return Request(f"forget set {number}", (Target("samples", {"ids": np.sort(ids)}),))

    def deletion(self, number: int) -> Deletion:
        """The rows of forget set ``number``, and what is measured on.

        Raises:
            InputError: if nothing or everything would go, or a class goes by the way.
        """
        if number in self._deletions:
            return self._deletions[number]
        probes = {"test": self.test} | ({"validation": self.validation} if self.validation is not None else {})
        deletion = Deletion.of(self.train, self.request(number), probes)
        lost = sorted(set(self.train.y.unique().tolist()) - set(deletion.after.y.unique().tolist()))
        if lost and not isinstance(self.recipe.forget, ForgetClass):
            raise InputError(
                f"Forget set {number} of {self.recipe.name} takes every row of class {', '.join(map(str, lost[:5]))}: no "
                "retrained model knows it, and accuracies would mix two questions. Forget the class itself (kind: class), "
                "or less."
            )
        self._deletions[number] = deletion
        return deletion

    def models(
        self, sets: Sequence[int], jobs: int = 1, watch: Watch = silent, folder: Path | None = None
    ) -> Mapping[tuple[str, int, int], Retraining]:
        """The source and the references of ``sets``: ("source", 0, 0) and ("retrain", set, r), trained or cached.

        Each is in the cache as soon as it is trained; ``folder`` is not needed for more.

        Raises:
            FailedError: if the source model learnt next to nothing.
        """
        wanted: dict[tuple[str, int, int], tuple[Rows, int]] = {(SOURCE, 0, 0): (self.train, self.recipe.seed)}
        for number in sets:
            for r in range(self.recipe.references):
                seed = REFERENCE_SEEDS * (number + 1) + r
                wanted[RETRAIN, number, r] = (self.deletion(number).after, seed)
        missing = [name for name in wanted if name not in self._models]
        if missing:
            found = retrain_all(
                self.task, [wanted[name] for name in missing], self.fit, processes=jobs, cache=self.cache, watch=watch
            )
            self._models.update(zip(missing, found, strict=True))
            self._must_have_learnt(self._models[SOURCE, 0, 0].tensors)
        return self._models

    def source(self, model: Retraining) -> Trained:
        """The source model as methods are given it: on record, with the digest of its rows."""
        facts = prepared(self.train)
        return Trained(
            self.task, Artifact(dict(model.tensors)), self.train, self.fit, None, facts, seed=self.recipe.seed
        )

    def wording(self, row: str, number: int, seed: int) -> None:
        """Rows have no wording: a request names them."""

    def score(self, row: str, number: int, tensors: Mapping[str, torch.Tensor]) -> Scores:
        """See :func:`expunge.bench.scores.score`; distances are to the first reference."""
        return score(self, self.deletion(number), tensors, self.models([number])[RETRAIN, number, 0].tensors)

    def logits(self, tensors: Mapping[str, torch.Tensor], rows: Rows) -> torch.Tensor:
        """What a model says about ``rows``, (rows, classes), in double precision on the CPU.

        Raises:
            FailedError: if that is not finite.
        """
        model = self.task.build(tensors).eval()
        params, batch = dict(model.named_parameters()), self.task.batch(rows)
        with torch.no_grad():
            logits = in_passes(lambda part: self.task.outputs(model, params, part).logits, batch, BENCH_OUTPUTS)
        logits = logits.double().cpu()
        if broken := int((~torch.isfinite(logits)).any(1).sum()):
            raise FailedError(
                f"The outputs of the model are not finite on {broken:,} of {len(rows):,} rows. Take smaller learning rates."
            )
        return logits

    def _must_have_learnt(self, tensors: Mapping[str, torch.Tensor]) -> None:
        correct = float((self.logits(tensors, self.train).argmax(1) == self.train.y.cpu()).double().mean())
        classes = self.train.classes
        if correct < CHANCE_TIMES / classes:
            raise FailedError(
                f"The source model of {self.recipe.name} gets {correct:.1%} of its own training rows right, below "
                f"{CHANCE_TIMES} times chance ({CHANCE_TIMES / classes:.1%}): there is nothing to forget, and no table would "
                "mean anything. Train longer, or with another learning rate."
            )
