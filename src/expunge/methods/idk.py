"""Answer forgotten questions with a refusal.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.method import Context, Estimate, Paper, Refusal
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced, without_questions
from expunge.objectives.language import REFUSALS, Base, refused, token_mean


@dataclass(frozen=True, kw_only=True)
class IDK(Balanced):
    """``gamma × token-mean loss of a refusal on forgotten questions + alpha × retain loss``.

    Attributes:
        refusals: one is drawn for each question; the default is ours, TOFU comes with a hundred (``idontknow.jsonl``).
    """

    name: ClassVar[str] = "idk"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("TOFU: a task of fictitious unlearning for LLMs", "Maini et al., COLM 2024", "2401.06121"),
    )
    refusals: tuple[str, ...] = REFUSALS

    def columns(self, work: Work, base: Base) -> Batch:
        """The prompts with a refusal each, drawn once."""
        return work.task.batch(refused(work, self.refusals))

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Learn the refusal."""
        return token_mean(*work.language.token_losses(work.model, work.params, batch), together=work.processes)

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses plain texts."""
        return without_questions(context) or super().check(context)
