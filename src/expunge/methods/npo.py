"""Negative preference optimisation: ascent that stops pushing what is unlikely already.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.allowed import Positive
from expunge.core.batch import Batch
from expunge.core.method import Paper
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base, npo


@dataclass(frozen=True, kw_only=True)
class NPO(Balanced):
    """``gamma × -(2/beta) log sigmoid(beta (S - S_ref)) + alpha × retain loss``; S_ref is computed once.

    Attributes:
        beta: 0.1 (OpenUnlearning, arXiv 2506.12618). Other code of the authors of SU (renjie3/GRUN) has it with gamma 0.1375.
    """

    name: ClassVar[str] = "npo"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Negative preference optimization: from catastrophic collapse to effective unlearning",
            "Zhang et al., COLM 2024",
            "2404.05868",
        ),
    )
    beta: Positive = 0.1

    def columns(self, work: Work, base: Base) -> Batch:
        """S_ref of every row."""
        batch = work.task.batch(work.deletion.forget)
        return batch.with_columns(base=base.sums(batch))

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """NPO on summed log-probabilities, mean over rows."""
        values, _ = work.language.token_losses(work.model, work.params, batch)
        return work.processes.mean(npo(values.sum(1), batch["base"], self.beta))
