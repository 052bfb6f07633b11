"""How diffusion models are measured: the loss of real images, and what the images that are drawn for each class show.

Which classes are forgotten follows from the sets: those of the forgotten images that no retained image has. Images are drawn
for every class, from the same noise for every model, and a classifier says what they show (:mod:`.judge`). Where no class goes
entirely, what is drawn says nothing about single forgotten images, and only their losses do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.data.rows import Rows, joined
from expunge.evidence.comparison import Score
from expunge.evidence.membership import FORGET, MembershipAttack
from expunge.evidence.outputs import example_losses
from expunge.metrics import generation
from expunge.metrics.intervals import Interval, mean_interval, wilson
from expunge.modalities.diffusion.judge import Judge, judge_of
from expunge.tasks.diffusion.images import ImageDiffusion

RETAIN = "retain"
SEED = 20_260  # of the noise that images begin with, the same for every model that is compared
REAL = 5000  # real images that drawn ones are compared with, at most; the first ones, in the order of their ids


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn for the classes that stay or go, and what a classifier makes of it.

    Attributes:
        asked: class that each image was drawn for, (n,).
        seen: class that the judge calls it, (n,).
        features: what the judge's head sees, (n, d).
        gone: classes that are to be forgotten.
        images: the images, (n, c, h, w) in [0, 1].
    """

    asked: np.ndarray
    seen: np.ndarray
    features: np.ndarray
    gone: tuple[int, ...]
    images: Tensor

    @property
    def forgotten(self) -> np.ndarray:
        """Which images were drawn for a forgotten class, (n,) bool."""
        return np.isin(self.asked, self.gone)

    def right(self, forgotten: bool) -> Interval | None:
        """Share of images that show what they were drawn for; ``None`` where none was drawn."""
        chosen = self.forgotten == forgotten
        if not chosen.any():
            return None
        return wilson(int((self.asked == self.seen)[chosen].sum()), int(chosen.sum()))


@dataclass(frozen=True, eq=False)
class Readings:
    """What one model says.

    Attributes:
        losses: set → loss of each image, (n,).
        drawn: what it draws; ``None`` where retained and forgotten images were not both there to be compared with.
        real: features of retained real images, (m, d).
    """

    losses: Mapping[str, np.ndarray]
    drawn: Drawn | None = None
    real: np.ndarray | None = None


def draw(
    task: ImageDiffusion, tensors: Mapping[str, Tensor], labels: Sequence[int], gone: Sequence[int], judge: Judge
) -> Drawn:
    """``task.images`` images of each of ``labels``, judged."""
    asked = torch.tensor(list(labels)).repeat_interleave(task.images)
    model = task.build(tensors).eval()
    images = task.draw(model, dict(model.named_parameters()), asked, SEED).cpu()
    seen, features = judge.looks(images)
    return Drawn(asked.numpy(), seen, features, tuple(gone), images)


def gone_of(forget: Rows, retain: Rows) -> list[int]:
    """The classes of which no image is retained."""
    return sorted(set(forget.y.unique().tolist()) - set(retain.y.unique().tolist()))


def real_images(rows: Rows) -> Tensor:
    """At most :data:`REAL` of them."""
    return rows.x[:REAL]


def read(task: Any, tensors: Mapping[str, Tensor], sets: Mapping[str, Rows]) -> Readings:
    """Losses by set, and what is drawn where ``sets`` say what is retained and what is forgotten.

    Raises:
        InputError: as ``evidence.outputs.example_losses``.
    """
    with torch.no_grad():
        losses = example_losses(task, tensors, sets)
    if not {RETAIN, FORGET} <= sets.keys():
        return Readings(losses)
    retain, forget = sets[RETAIN], sets[FORGET]
    judge = judge_of(joined([retain, forget]), task.classes)
    gone = gone_of(forget, retain)
    drawn = draw(task, tensors, [*sorted(retain.y.unique().tolist()), *gone], gone, judge)
    return Readings(losses, drawn, judge.looks(real_images(retain))[1])


def score(readings: Readings) -> list[Score]:
    """Losses, shares of drawn images that show what was asked for, and how near and how varied retained classes are."""
    scores = [Score.of("loss", name, mean_interval(losses), len(losses)) for name, losses in readings.losses.items()]
    drawn, real = readings.drawn, readings.real
    if drawn is None or real is None:
        return scores
    kept = drawn.features[~drawn.forgotten]
    for name, forgotten in ((FORGET, True), (RETAIN, False)):
        if (share := drawn.right(forgotten)) is not None:
            scores.append(Score.of("accuracy", name, share, int((drawn.forgotten == forgotten).sum())))
    scores.append(Score("frechet", RETAIN, generation.frechet_distance(kept, real), None, len(kept)))
    if len(kept) > generation.NEIGHBOURS:
        scores.append(Score("sample_recall", RETAIN, generation.recall(real[: len(kept)], kept), None, len(kept)))
    return scores


def small_loss(readings: Readings, of: str) -> np.ndarray:
    """Minus the loss: images whose (fixed) noise the model predicts well are taken for members (arXiv 2302.01316)."""
    return -readings.losses[of]


ATTACKS = (MembershipAttack("loss", small_loss),)
