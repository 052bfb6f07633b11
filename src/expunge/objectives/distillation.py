"""Objectives that hold a model against frozen ones: SCRUB and Bad Teacher.

A frozen model says the same about the same row every time. So its outputs are computed once and travel with the rows;
only where inputs are redrawn at each step (augmentation) does it run beside the student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.descent.schedule import FORGET, MIXED, RETAIN, Turn
from expunge.descent.work import Prepared, Work
from expunge.objectives.supervised import Mixable, both_streams
from expunge.tasks.passes import ACTIVATIONS, in_passes


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0, reduction: str = "rows") -> Tensor:
    """T² KL(teacher ; student) of softened outputs, mean over rows; 0 where both agree.

    Args:
        reduction: ``rows`` divides by the number of rows; ``elements`` by rows × classes, torch's default, which some
            released code uses.

    Shapes:
        two (b, classes) → scalar.
    """
    log_p, log_q = log_softmax(teacher / temperature, -1), log_softmax(student / temperature, -1)
    total = kl_div(log_q, log_p, reduction="sum", log_target=True) * temperature**2
    return total / (len(student) if reduction == "rows" else student.numel())


def _warm(temperature: float) -> None:
    if not temperature > 0:
        raise InputError(f"Expected a temperature above 0; got {temperature}.")


class Frozen:
    """What a frozen model says about the rows of a run.

    Args:
        tensors: its weights.
        name: of the column that carries its logits.
        training: whether it stays in training mode, where BatchNorm takes the statistics of each batch: then nothing can be
            computed ahead.
    """

    def __init__(self, work: Work, tensors: Mapping[str, Tensor], name: str, training: bool = False):
        self.work, self.name, self.training = work, name, training
        self.model = work.task.build(tensors)
        work.lay_out(self.model)
        self.model.train(training)
        self.params = dict(self.model.named_parameters())

    def column(self, batch: Batch) -> Batch:
        """``batch`` with the logits of every row, or unchanged where inputs are redrawn at each step."""
        if self.work.augment is not None or self.training:
            return batch
        return batch.with_columns(**{self.name: self._logits(batch)})

    def logits(self, batch: Batch) -> Tensor:
        """The logits of a batch: carried with it, or computed now."""
        return batch[self.name] if self.name in batch else self._logits(batch)

    @torch.no_grad()
    def _logits(self, batch: Batch) -> Tensor:
        if self.training:
            return self.work.task.outputs(self.model, self.params, batch).logits
        return in_passes(lambda part: self.work.task.outputs(self.model, self.params, part).logits, batch, ACTIVATIONS)


@dataclass(frozen=True)
class Scrub:
    """Forget: ``-KL(original ; student)``. Retain: ``alpha KL + gamma CE`` (Kurmanji et al. 2023, arXiv 2302.09880).

    At the first forget step student and original agree, so that gradient is zero up to rounding (unless BatchNorm or
    dropout make the student differ in training mode): a dead start under SGD, which the retain steps end. A scale-free
    optimizer (Adam) makes a step in a direction of chance of it.

    Attributes:
        teacher: mode of the original: ``eval``, or ``train`` as in DualOptim's code, which never leaves that mode: then the
            start is dead under BatchNorm too.
    """

    alpha: float
    gamma: float
    temperature: float
    teacher: str = "eval"

    def __post_init__(self):
        _warm(self.temperature)
        if self.teacher not in ("eval", "train"):
            raise InputError(f"Expected a teacher in mode eval or train; got {self.teacher!r}.")

    def prepare(self, work: Work) -> Prepared:
        """The original's logits on every row, once; in training mode, of each batch."""
        original = Frozen(work, work.base, "original", self.teacher == "train")
        streams = {role: original.column(batch) for role, batch in both_streams(work).items()}

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            logits = work.task.outputs(work.model, work.params, batch).logits
            apart = divergence(original.logits(batch), logits, self.temperature)
            if role == FORGET:
                return -apart
            return self.alpha * apart + self.gamma * torch.nn.functional.cross_entropy(logits, batch["y"])

        return Prepared(streams, loss)


@dataclass(frozen=True)
class BadTeacher:
    """Forget: KL(random network ; student). Retain: KL(original ; student) (Chundawat et al. 2023, arXiv 2205.08096).

    Attributes:
        retain_share: share of the retained rows that is used.
        temperature: of both teachers and the student.
        reduction: see :func:`divergence`.
    """

    retain_share: float = 0.3
    temperature: float = 1.0
    reduction: str = "rows"

    def __post_init__(self):
        if not 0 < self.retain_share <= 1:
            raise InputError(f"Expected a share of retained rows above 0 and at most 1; got {self.retain_share}.")
        if self.reduction not in ("rows", "elements"):
            raise InputError(f"Expected reduction rows or elements; got {self.reduction!r}.")
        _warm(self.temperature)

    def prepare(self, work: Work) -> Prepared:
        """Each stream with its teacher's logits; the mixed one carries whichever teacher a row has."""
        teachers = {
            FORGET: Frozen(work, work.task.build(seed=work.seed + 1).state_dict(), "random"),
            RETAIN: Frozen(work, work.base, "original"),
        }
        streams = both_streams(work)
        rows = len(streams[RETAIN])
        some = torch.randperm(rows, generator=work.draw("retained share", 0))[: max(1, round(self.retain_share * rows))]
        streams[RETAIN] = streams[RETAIN].take(some)
        if work.augment is None:  # both teachers' logits in one column, which the mixed stream can mix
            named = {role: batch.with_columns(target=teachers[role].logits(batch)) for role, batch in streams.items()}
        else:
            named = streams

        def target(role: str, batch: Batch) -> Tensor:
            if "target" in batch:
                return batch["target"]
            if role != MIXED:
                return teachers[role].logits(batch)
            logits = {each: teacher.logits(batch) for each, teacher in teachers.items()}
            return torch.where(batch["forgotten"][:, None], logits[FORGET], logits[RETAIN])

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            logits = work.task.outputs(work.model, work.params, batch).logits
            return divergence(target(role, batch), logits, self.temperature, self.reduction)

        return Prepared(Mixable(named), loss)
