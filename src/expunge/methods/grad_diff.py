"""Up on forgotten answers, down on retained ones; with ``retain='kl'`` TOFU's KL minimisation.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.method import Paper
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base, token_mean


@dataclass(frozen=True, kw_only=True)
class GradDiff(Balanced):
    """``-gamma N + alpha × retain loss``; every symbol is one of :class:`~expunge.methods.by_language.Balanced`."""

    name: ClassVar[str] = "grad_diff"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("TOFU: a task of fictitious unlearning for LLMs", "Maini et al., COLM 2024", "2401.06121"),
    )

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """-N over the tokens of the batch."""
        return -token_mean(*work.language.token_losses(work.model, work.params, batch), together=work.processes)
