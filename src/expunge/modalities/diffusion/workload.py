"""What a recipe of diffusion models comes to: images, forgotten classes, and the numbers of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from expunge.core.cache import Cache
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.rows import Rows
from expunge.evidence.distance import trainable_distance
from expunge.evidence.outputs import example_losses
from expunge.metrics import generation
from expunge.modalities.benchmark import TUNING_SET, Knowledge, Scores, Workload
from expunge.modalities.diffusion.judge import Judge
from expunge.modalities.diffusion.opening import must_leave_two_classes
from expunge.modalities.diffusion.readings import draw, gone_of, real_images
from expunge.modalities.diffusion.recipes import DiffusionRecipe
from expunge.modalities.modality import Opened
from expunge.tasks.diffusion.images import ImageDiffusion

KNOWN = 0.5  # a model of whose images fewer show what was asked for has learnt too little to forget; our choice


@dataclass(frozen=True)
class DiffusionWorkload(Workload):
    """See :class:`~expunge.modalities.benchmark.Workload`."""

    recipe: DiffusionRecipe
    opened: Opened[ImageDiffusion, Rows]
    cache: Cache = field(repr=False, compare=False)

    @classmethod
    def of(cls, recipe: DiffusionRecipe, opened: Opened[ImageDiffusion, Rows], cache: Cache) -> DiffusionWorkload:
        """Check that there are test images, on which the judge is judged.

        Raises:
            InputError: if there are none, or a class is not there.
        """
        if "test" not in opened.probes:
            raise InputError(f"Recipe {recipe.name} needs test images; its data have none (test_path).")
        if missing := sorted({*recipe.forget.labels} - {*opened.data.y.unique().tolist()}):
            raise InputError(f"Recipe {recipe.name} forgets class {missing[0]}, of which its data have no image.")
        return cls(recipe, opened, cache)

    @cached_property
    def judge(self) -> Judge:
        """Trained on all training images."""
        return Judge.of(self.opened.data, self.opened.task.classes, self.cache)

    @cached_property
    def judged(self) -> float:
        """Percent of the test images on which the judge is right: no model can be told to be better."""
        return 100 * self.judge.accuracy(self.opened.probes["test"])

    @property
    def sets(self) -> float:
        """How many forget sets there are before they repeat."""
        return len(self.recipe.forget.labels)

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for."""
        labels = self.recipe.forget.labels
        label = labels[-1 if number == TUNING_SET else number % len(labels)]
        return Request(f"class {label}", (Target("class", {"label": label}),))

    def unfit(self, number: int, deletion: Deletion) -> str:
        """Where too few classes would be left."""
        try:
            must_leave_two_classes(deletion.before, deletion.after)
        except InputError as error:
            return f"Forget set {number} of {self.recipe.name} cannot be used. {error}"
        return ""

    def score(
        self, deletion: Deletion, tensors: Mapping[str, Tensor], retrained: Mapping[str, Tensor] | None
    ) -> Scores:
        """What drawn images show, how near those of retained classes are to real ones, and losses."""
        task = self.opened.task
        gone = gone_of(deletion.forget, deletion.after)
        kept = sorted(deletion.after.y.unique().tolist())
        drawn = draw(task, tensors, [*kept, *gone], gone, self.judge)
        real = self.judge.looks(real_images(deletion.after))[1]
        features = drawn.features[~drawn.forgotten]
        losses = example_losses(task, tensors, {"forget": deletion.forget.only(_first(deletion.forget, len(features)))})
        forgotten, retained = drawn.right(True), drawn.right(False)
        assert forgotten is not None and retained is not None
        metrics = {
            "FA": 100 * forgotten.value, "UA": 100 - 100 * forgotten.value, "RA": 100 * retained.value,
            "frechet": generation.frechet_distance(features, real),
            "frechet_real": generation.frechet_between_real(real, min(len(features), len(real) // 2)),
            "sample_recall": generation.recall(real[: len(features)], features),
            "judge": self.judged,
            "loss/forget": float(losses["forget"].mean()),
        }  # fmt: skip
        if retrained is not None:
            metrics["distance"] = trainable_distance(task.build(), tensors, retrained)
        return Scores(metrics)

    def knowledge(self, scores: Scores, deletion: Deletion) -> Knowledge:
        """What the original model draws, of all classes."""
        gone, kept = len(deletion.forget.y.unique()), len(deletion.after.y.unique())
        right = (gone * scores.metrics["FA"] + kept * scores.metrics["RA"]) / (100 * (gone + kept))
        return Knowledge(right, KNOWN, "the images that it draws", "half of them")


def _first(rows: Rows, count: int) -> Ids:
    """Ids of the first images: the loss of so many says enough."""
    return Ids.rows(np.sort(rows.ids)[:count])
