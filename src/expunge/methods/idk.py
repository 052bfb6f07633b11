"""Answer forgotten questions with a refusal.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Context, Estimate, Paper, Refusal
from expunge.methods.by_language import Balanced, without_questions
from expunge.objectives import language as losses
from expunge.objectives.language import REFUSALS


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

    def loss(self, context: Context) -> losses.Refusals:
        """The loss with its symbols."""
        return losses.Refusals(**self.balance, refusals=self.refusals)

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses plain texts."""
        return without_questions(context) or super().check(context)
