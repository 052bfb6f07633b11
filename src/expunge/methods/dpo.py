"""Prefer a refusal over the forgotten answer.

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
class DPO(Balanced):
    """``gamma × DPO loss (refusal over answer) + alpha × retain loss``; both references are computed once.

    Attributes:
        beta: 0.1 (OpenUnlearning, arXiv 2506.12618).
        refusals: as for ``idk``.
    """

    name: ClassVar[str] = "dpo"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Direct preference optimization: your language model is secretly a reward model",
            "Rafailov et al., NeurIPS 2023",
            "2305.18290",
        ),
        Paper("TOFU: a task of fictitious unlearning for LLMs", "Maini et al., COLM 2024; IdkDPO", "2401.06121"),
    )
    beta: float = 0.1
    refusals: tuple[str, ...] = REFUSALS

    def loss(self, context: Context) -> losses.Preference:
        """The loss with its symbols."""
        return losses.Preference(**self.balance, beta=self.beta, refusals=self.refusals)

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses plain texts."""
        return without_questions(context) or super().check(context)
