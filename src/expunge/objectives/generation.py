"""Objectives of diffusion models: draw other classes, or noise, for the forgotten one, or steer away from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.descent.parameters import mean_squares
from expunge.descent.schedule import FORGET, RETAIN, Turn
from expunge.descent.streams import mixed_seed
from expunge.descent.work import Objective, Prepared, Work
from expunge.objectives.supervised import RandomLabels, both_streams, random_labels
from expunge.tasks.diffusion.images import ImageDiffusion
from expunge.training.descent import trainable


def diffusion(work: Work) -> ImageDiffusion:
    """The task as one that draws images; raises InputError where it does not."""
    if not isinstance(work.task, ImageDiffusion):
        raise InputError(f"Expected a diffusion model, which draws images of a class; the task is {work.task.name}.")
    return work.task


def wrong_labels(task: Task, exclude_true: bool = False) -> Objective:
    """Random labels as ``task`` has a use for them: of what is classified, or of what is drawn.

    Images of the forgotten class under other labels, which is what random labels are for a classifier, would teach a diffusion
    model to draw the forgotten class for the others.
    """
    return Misled() if isinstance(task, ImageDiffusion) else RandomLabels(exclude_true)


@dataclass(frozen=True)
class Misled:
    """The forgotten class is drawn as the others are (SalUn, arXiv 2310.12508, its form for generation).

    Forget: for forgotten images x_t with noise, ``|e(x_t, class) - e(x_t, another class)|²``, the second without a gradient and
    of a class that is drawn anew for every image. Retain: the loss of retained images.
    """

    def prepare(self, work: Work) -> Prepared:
        """Nothing is computed ahead."""
        task = diffusion(work)

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            if role == RETAIN:
                return task.losses(work.model, work.params, batch).mean()
            level, noise = task.drawn(batch)
            noisy, y = task.schedule.noised(batch["x"], level, noise), batch["y"]
            other = random_labels(y, task.classes, work.draw("labels", turn.step), exclude_true=True)
            with torch.no_grad():
                target = task.predicted(work.model, work.params, noisy, level, other)
            return (task.predicted(work.model, work.params, noisy, level, y) - target).square().mean()

        return Prepared(both_streams(work), loss)


@dataclass(frozen=True)
class Amnesia:
    """Selective amnesia (arXiv 2305.10120): noise is learnt for the forgotten class, and the rest is held.

    Forget: the loss of images of uniform noise under the forgotten class: that is what it is drawn as afterwards. Retain: the
    loss of images that the model drew itself of the other classes, before anything moved, plus ``ewc`` / 2 times the squared
    distance of each weight from where it was, weighed by the diagonal Fisher of what the model drew.

    Attributes:
        ewc: lambda, in units of losses that are sums over pixels, as the paper's are.
        replayed: images drawn of each retained class.
        fisher: images drawn of each class, on which the Fisher is taken one by one.
    """

    ewc: float
    replayed: int
    fisher: int

    def prepare(self, work: Work) -> Prepared:
        """Draw what is replayed, and take the Fisher."""
        task, names = diffusion(work), trainable(work.model)
        gone = work.deletion.forget.y.unique()
        kept = torch.tensor([label for label in range(task.classes) if label not in gone.tolist()])
        forget = task.batch(work.deletion.forget)
        replay = _drawn(work, kept.repeat_interleave(self.replayed), "replay")
        every = _drawn(work, torch.arange(task.classes).repeat_interleave(self.fisher), "fisher")
        pixels = replay["x"][0].numel()
        # of losses that are means over pixels: the Fisher of sums is pixels² times theirs, and the loss pixels times
        weigh = {name: self.ewc * pixels * each for name, each in mean_squares(work, names, every, 1).items()}
        start = {name: work.base[name].to(each) for name, each in weigh.items()}

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            level, noise = task.drawn(batch)
            if role == FORGET:
                surrogate = torch.rand(batch["x"].shape, generator=work.draw("surrogate", turn.step)).to(batch["x"])
                return task.errors(work.model, work.params, 2 * surrogate - 1, level, noise, batch["y"]).mean()
            y = task.sometimes_hidden(batch["y"])
            return task.errors(work.model, work.params, batch["x"], level, noise, y).mean() + held(
                work.params, start, weigh
            )

        drawn = len(replay) + len(every)
        return Prepared({FORGET: forget, RETAIN: replay}, loss, gradient_evaluations=drawn)


def held(params: Mapping[str, Tensor], start: Mapping[str, Tensor], weigh: Mapping[str, Tensor]) -> Tensor:
    """Half the squared distance of each weight from its start, weighed: the penalty of elastic weight consolidation."""
    return torch.stack([(each * (params[n] - start[n]).square()).sum() for n, each in weigh.items()]).sum() / 2


def _drawn(work: Work, labels: Tensor, purpose: str) -> Batch:
    """Images that the model draws of ``labels`` before it moves, as a batch of its task."""
    task = diffusion(work)
    x = task.draw(work.model, work.params, labels, mixed_seed(work.seed, purpose, 0) % 2**31)
    return Batch({"x": 2 * x - 1, "y": labels.to(x.device), "id": torch.arange(len(labels), device=x.device)})


@dataclass(frozen=True)
class NegativeGuidance:
    """Steer the forgotten class away from itself (ESD, arXiv 2303.07345), and train on with what is retained.

    Forget: for forgotten images x_t with noise, ``|e(x_t, class) - (e0(x_t, any) - eta (e0(x_t, class) - e0(x_t, any)))|²``, e0
    of the model before: afterwards the class is drawn as what is least like it among all that the model draws. Retain: the loss
    of retained images, which the paper's erasure does without.

    Attributes:
        eta: strength of the negative guidance.
    """

    eta: float

    def prepare(self, work: Work) -> Prepared:
        """The model as it was stays at hand; nothing is computed ahead."""
        task = diffusion(work)
        before: nn.Module = task.build(work.base).eval()
        known = dict(before.named_parameters())

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            if role == RETAIN:
                return task.losses(work.model, work.params, batch).mean()
            level, noise = task.drawn(batch)
            noisy, y = task.schedule.noised(batch["x"], level, noise), batch["y"]
            with torch.no_grad():
                free = task.predicted(before, known, noisy, level, torch.full_like(y, task.any_class))
                target = free - self.eta * (task.predicted(before, known, noisy, level, y) - free)
            guess = task.predicted(work.model, work.params, noisy, level, y)
            return (guess - target).square().mean()

        return Prepared(both_streams(work), loss)
