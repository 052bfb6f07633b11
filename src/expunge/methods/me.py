"""Make every next token of forgotten questions and answers equally likely: the largest entropy.

Formal guarantee: none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import NonNegative
from expunge.core.batch import Batch
from expunge.core.method import Paper, SmallScale
from expunge.descent.processes import ALONE, Processes
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base
from expunge.tasks.prompts import NO_LABEL


def from_uniform(logits: Tensor, mask: Tensor, together: Processes = ALONE) -> Tensor:
    """KL(uniform ; p), mean over the places of ``mask``: 0 where all tokens are equally likely.

    Shapes:
        (b, t, vocabulary), (b, t) bool → scalar.
    """
    logs = torch.log_softmax(logits[mask], -1)
    return together.mean(-logs.mean(-1) - math.log(logs.shape[-1]))


@dataclass(frozen=True, kw_only=True)
class ME(Balanced):
    """``gamma × mean over tokens of KL(uniform ; p) + alpha × retain loss``; with ``nll`` it is ME+GD.

    Attributes:
        gamma: 0.1, as DualOptim's code has it for one optimizer (arXiv 2504.15827); 1 for ``dual``.
        questions: whether tokens of the question count too, as in DualOptim's released configuration; without them, those
            of the answer alone.
    """

    name: ClassVar[str] = "me"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("A closer look at machine unlearning for large language models", "Yuan et al., ICLR 2025", "2410.08109"),
    )
    small: ClassVar[SmallScale] = Balanced.small.but(variants={"dual": {"gamma": 1.0}})
    gamma: NonNegative = 0.1
    questions: bool = True

    def columns(self, work: Work, base: Base) -> Batch:
        """The forgotten rows; where questions count, every token but the first has a label."""
        batch = work.task.batch(work.deletion.forget)
        if not self.questions:
            return batch
        ids = batch["input_ids"]
        place = torch.arange(ids.shape[1], device=ids.device)
        inside = (place > 0) & (place < batch["lengths"][:, None])
        return batch.with_columns(labels=torch.where(inside, ids, NO_LABEL))

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Towards the uniform distribution."""
        logits, labels = work.language.answered(work.model, work.params, batch)
        return from_uniform(logits, labels != NO_LABEL, work.processes)
