"""Up on forgotten answers, down on retained ones; with ``retain='kl'`` TOFU's KL minimisation.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Context, Paper
from expunge.methods.by_language import Balanced
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class GradDiff(Balanced):
    """``-gamma N + alpha × retain loss``; every symbol is one of :class:`~expunge.methods.by_language.Balanced`."""

    name: ClassVar[str] = "grad_diff"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("TOFU: a task of fictitious unlearning for LLMs", "Maini et al., COLM 2024", "2401.06121"),
    )

    def loss(self, context: Context) -> losses.GradDiff:
        """The loss with its symbols."""
        return losses.GradDiff(**self.balance)
