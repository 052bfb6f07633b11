"""What a recipe of classifiers comes to: rows, forget sets, and the numbers of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.data import Deletion, Ids
from expunge.core.errors import FailedError, InputError
from expunge.core.request import Request, Target
from expunge.data.rows import Rows
from expunge.data.splits import holdout_per_class
from expunge.evidence.distance import trainable_distance
from expunge.metrics import klom
from expunge.metrics.membership_conventions import (
    entropy,
    entropy_member_percent,
    svc_nonmember_percent,
    true_label_confidence,
)
from expunge.metrics.unlearning import zrf
from expunge.modalities.benchmark import TUNING_SET, Scores, Workload
from expunge.modalities.classification.knowledge import knowledge
from expunge.modalities.classification.recipes import ClassifierRecipe, ForgetClass, ForgetUser
from expunge.modalities.knowledge import Knowledge
from expunge.modalities.modality import Opened
from expunge.tasks.classification import Classification
from expunge.tasks.passes import BENCH_OUTPUTS, at_once, in_passes

UNTRAINED_SEED = 999_983  # of the network that ZRF compares with


@dataclass(frozen=True)
class ClassifierWorkload(Workload):
    """See :class:`~expunge.modalities.benchmark.Workload`."""

    recipe: ClassifierRecipe
    opened: Opened[Classification, Rows]

    @classmethod
    def of(cls, recipe: ClassifierRecipe, opened: Opened[Classification, Rows]) -> ClassifierWorkload:
        """Hold validation rows back, and check that there is what a table needs.

        Raises:
            InputError: if data are missing, do not fit the model, or hold no test rows.
        """
        train, test = opened.data, opened.probes.get("test")
        if test is None:
            raise InputError(f"Recipe {recipe.name} needs test rows; its data have none (test_path).")
        probes = {"test": test}
        if recipe.validation:
            train, probes["validation"] = holdout_per_class(train, recipe.validation, recipe.seed)
        if recipe.training_rows not in (None, len(train)):
            raise InputError(
                f"Recipe {recipe.name} trains on {recipe.training_rows:,} rows; the data here leave {len(train):,}. Get the "
                "whole data set, or copy the recipe and change training_rows: another benchmark then."
            )
        for rows in (train, test):
            opened.task.check(rows)
        return cls(recipe, replace(opened, data=train, probes=probes))

    @property
    def content(self) -> Sequence[Any]:
        """Digests of all rows."""
        return [[rows.digest for rows in (self.opened.data, *self.opened.probes.values())]]

    @cached_property
    def users(self) -> np.ndarray:
        """Whoever may be forgotten; empty where no users are.

        Raises:
            InputError: if there is no such column.
        """
        forget, columns = self.recipe.forget, self.opened.data.columns
        if not isinstance(forget, ForgetUser):
            return np.array([])
        if forget.column not in columns:
            raise InputError(f"There is no column {forget.column!r}; there are {', '.join(columns) or 'none'}.")
        return np.unique(columns[forget.column])

    @property
    def sets(self) -> float:
        """How many forget sets there are before they repeat."""
        forget = self.recipe.forget
        return len(forget.labels) if isinstance(forget, ForgetClass) else len(self.users) or float("inf")

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for."""
        forget, train = self.recipe.forget, self.opened.data
        if isinstance(forget, ForgetUser):
            users = self.users
            order = np.random.default_rng([self.recipe.seed]).permutation(len(users))
            at = order[-1] if number == TUNING_SET else order[number % len(users)]
            return Request(f"user {number}", (Target("user", {forget.column: users[at]}),))
        if isinstance(forget, ForgetClass):
            label = forget.labels[-1 if number == TUNING_SET else number % len(forget.labels)]
            return Request(f"class {label}", (Target("class", {"label": label}),))
        count = round(forget.share * len(train))
        draw = np.random.default_rng([self.recipe.seed, number])
        ids = draw.choice(train.ids, count, replace=False)
        return Request(f"forget set {number}", (Target("samples", {"ids": np.sort(ids)}),))

    def unfit(self, number: int, deletion: Deletion) -> str:
        """Where a class goes by the way."""
        lost = sorted(set(self.opened.data.y.unique().tolist()) - set(deletion.after.y.unique().tolist()))
        if not lost or isinstance(self.recipe.forget, ForgetClass):
            return ""
        return (
            f"Forget set {number} of {self.recipe.name} takes every row of class {', '.join(map(str, lost[:5]))}: no "
            "retrained model knows it, and accuracies would mix two questions. Forget the class itself (kind: class), or "
            "less."
        )

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """See :func:`score`."""
        return score(self.opened.task, deletion, tensors, retrained)

    def knowledge(self, scores: Scores, deletion: Deletion) -> Knowledge:
        """Accuracy on the training rows, against chance."""
        kept, gone = len(deletion.after), len(deletion.forget)
        right = (kept * scores.metrics["RA"] + gone * scores.metrics["FA"]) / (100 * (kept + gone))
        return knowledge(right, self.opened.data.classes)


def score(
    task: Classification, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
) -> Scores:
    """Accuracies in percent, both membership conventions, both forms of ZRF, the distance to one retrained model, and margins.

    Where a whole class goes, test rows of that class are left out, as class-wise tables have it.

    Raises:
        FailedError: if outputs are not finite.
    """
    test = of_classes_that_stay(deletion.probes["test"], deletion.after)
    sets = {"forget": deletion.forget, "retain": deletion.after, "test": test}
    logits = {name: _logits(task, tensors, rows).numpy() for name, rows in sets.items()}
    labels = {name: rows.y.cpu().numpy() for name, rows in sets.items()}
    shares = {name: torch.softmax(torch.from_numpy(values), 1).numpy() for name, values in logits.items()}
    accuracy = {name: 100 * float((logits[name].argmax(1) == labels[name]).mean()) for name in sets}
    confidence = {name: true_label_confidence(shares[name], labels[name]) for name in sets}
    entropies = {name: entropy(shares[name]) for name in sets}
    untrained = torch.softmax(_logits(task, task.build(seed=UNTRAINED_SEED).state_dict(), deletion.forget), 1).numpy()
    zrf_released = zrf(shares["forget"], untrained, released=True).value
    metrics: dict[str, Any] = {
        "FA": accuracy["forget"],
        "UA": 100 - accuracy["forget"],
        "RA": accuracy["retain"],
        "TA": accuracy["test"],
        "mia_svc_nonmember": svc_nonmember_percent(
            confidence["retain"], confidence["test"], confidence["forget"]
        ).value.value,
        "mia_entropy_member": entropy_member_percent(
            entropies["retain"], entropies["test"], entropies["forget"]
        ).value.value,
        "zrf": zrf(shares["forget"], untrained).value,
    }
    if math.isfinite(zrf_released):  # a class of probability 0 makes it infinite
        metrics["zrf_released"] = zrf_released
    if retrained is not None:
        metrics["distance"] = trainable_distance(task.build(), tensors, retrained)
    margins = {name: klom.margins(logits[name], labels[name]).astype(np.float32) for name in ("forget", "test")}
    return Scores(metrics, margins)


def of_classes_that_stay(test: Rows, after: Rows) -> Rows:
    """Test rows of the classes that ``after`` still has."""
    known = torch.isin(test.y, after.y.unique().to(test.y.device))
    return test if bool(known.all()) else test.only(Ids.rows(test.ids[known.cpu().numpy()]))


def _logits(task: Classification, tensors: Mapping[str, Tensor], rows: Rows) -> Tensor:
    """What a model says about ``rows``, (rows, classes), in double precision on the CPU."""
    model = task.build(tensors).eval()
    params, batch = dict(model.named_parameters()), task.batch(rows)
    with torch.no_grad():
        logits = in_passes(lambda part: task.outputs(model, params, part).logits, batch, at_once(batch, BENCH_OUTPUTS))
    logits = logits.double().cpu()
    if broken := int((~torch.isfinite(logits)).any(1).sum()):
        raise FailedError(
            f"The outputs of the model are not finite on {broken:,} of {len(rows):,} rows. Take smaller learning rates."
        )
    return logits
