"""Objectives made of cross-entropy alone: up, down, weighed, with a penalty, or towards wrong labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.descent.schedule import FORGET, MIXED, RETAIN, Turn
from expunge.descent.work import Prepared, Work
from expunge.tasks.passes import evaluating, joined
from expunge.training.descent import trainable


def both_streams(work: Work) -> dict[str, Batch]:
    """What goes and what stays, as the task batches it; what stays is unknown where a model came without its data."""
    rows = {FORGET: work.deletion.forget, RETAIN: work.deletion.after}
    return {role: work.task.batch(data) for role, data in rows.items() if data is not None}


def mixed_stream(streams: Mapping[str, Batch]) -> Batch:
    """Both streams as one; ``forgotten`` (rows,) tells them apart."""
    both = joined(streams[FORGET], streams[RETAIN])
    flags = torch.zeros(len(both), dtype=torch.bool, device=both.device)
    flags[: len(streams[FORGET])] = True
    return both.with_columns(forgotten=flags)


def losses(work: Work, batch: Batch) -> Tensor:
    """Cross-entropy of each row under the moving model, (rows,)."""
    return work.task.losses(work.model, work.params, batch)


class Mixable(dict[str, Batch]):
    """Streams of both kinds, and the mixed one, which copies every row, from when it is first asked for."""

    def __missing__(self, role: str) -> Batch:
        if role != MIXED:
            raise KeyError(role)
        self[MIXED] = mixed_stream(self)
        return self[MIXED]


@dataclass(frozen=True)
class Ascent:
    """Forget: ``-forget_weight × CE``. Retain: ``retain_weight × CE``. GA, fine-tuning and NegGrad+ are its corners."""

    forget_weight: float = 1.0
    retain_weight: float = 1.0

    def prepare(self, work: Work) -> Prepared:
        """Nothing is computed ahead."""

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            mean = losses(work, batch).mean()
            return -self.forget_weight * mean if role == FORGET else self.retain_weight * mean

        return Prepared(both_streams(work), loss)


@dataclass(frozen=True)
class Sparse:
    """Retain: ``CE + alpha_t ||theta||_1``, alpha_t = ``alpha`` (1 - epoch / ``epochs``) (Jia et al. 2023, released code)."""

    alpha: float
    epochs: int

    def prepare(self, work: Work) -> Prepared:
        """Nothing is computed ahead."""
        names = trainable(work.model)

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            params = work.params
            length = torch.stack([params[name].abs().sum() for name in names]).sum()
            return losses(work, batch).mean() + self.alpha * (1 - turn.epoch / self.epochs) * length

        return Prepared({RETAIN: work.task.batch(work.deletion.after)}, loss)


def random_labels(labels: Tensor, classes: int, generator: torch.Generator, exclude_true: bool = False) -> Tensor:
    """Labels drawn uniformly over all classes, or over all but the true one.

    Shapes:
        labels (b,) → (b,).
    """
    count = classes - 1 if exclude_true else classes
    drawn = torch.randint(count, labels.shape, generator=generator).to(labels.device)
    return drawn + (drawn >= labels).to(drawn.dtype) if exclude_true else drawn


@dataclass(frozen=True)
class RandomLabels:
    """Forget: CE towards labels drawn anew for every batch. Retain: CE (RL, arXiv 2010.10981; SalUn, arXiv 2310.12508).

    Attributes:
        exclude_true: never draw the true label. The published code draws over all classes.
    """

    exclude_true: bool = False

    def prepare(self, work: Work) -> Prepared:
        """Both streams, and the mixed one."""
        streams = Mixable(both_streams(work))
        classes = _classes(work, streams[FORGET])

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            if role != RETAIN:
                drawn = random_labels(batch["y"], classes, work.draw("labels", turn.step), self.exclude_true)
                wrong = drawn if role == FORGET else torch.where(batch["forgotten"], drawn, batch["y"])
                batch = batch.with_columns(y=wrong)
            return losses(work, batch).mean()

        return Prepared(streams, loss)


def _classes(work: Work, batch: Batch) -> int:
    """How many classes the model tells apart."""
    with torch.no_grad(), evaluating(work.model):
        classes = work.task.outputs(work.model, work.params, batch.take(slice(1))).logits.shape[-1]
    if classes < 2:
        raise InputError("Random labels need a model with at least two classes; this one has a single output.")
    return classes


def easy_first(row_losses: Tensor, power: float) -> Tensor:
    """SFRon's weights of a batch: ``CE_i^-power / sum_j CE_j^-power``, detached; small losses weigh most.

    A loss below the type's resolution is taken as that: cross-entropy cannot tell it from zero, and one row of weight
    infinity, whose gradient is zero, would silence its whole batch.

    Shapes:
        (b,) → (b,), summing to 1.
    """
    log = -power * row_losses.detach().clamp_min(torch.finfo(row_losses.dtype).eps).log()
    return torch.softmax(log, 0)


@dataclass(frozen=True)
class AdaptiveAscent:
    """SFRon's forget loss ``-alpha c(t) sum_i w_i CE_i`` with c(t) = (1 + cos(pi t)) / 2; retain: CE (arXiv 2409.19732).

    Attributes:
        alpha: strength; meaningless under a scale-free forget optimizer except through clipping.
        power: lambda, how strongly small losses are preferred.
    """

    alpha: float
    power: float = 0.5

    def prepare(self, work: Work) -> Prepared:
        """Nothing is computed ahead."""

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            rows = losses(work, batch)
            if role == RETAIN:
                return rows.mean()
            fade = (1 + math.cos(math.pi * turn.progress)) / 2
            return -self.alpha * fade * (easy_first(rows, self.power) * rows).sum()

        return Prepared(both_streams(work), loss)
