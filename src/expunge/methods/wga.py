"""Weighted gradient ascent: likely tokens climb most.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Context, Paper
from expunge.methods.by_language import Balanced
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class WGA(Balanced):
    """``gamma × mean over tokens of p^beta log p (weight detached) + alpha × retain loss``.

    Attributes:
        beta, epochs: 1 and 5 (OpenUnlearning, arXiv 2506.12618).
    """

    name: ClassVar[str] = "wga"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Rethinking LLM unlearning objectives: a gradient perspective and go beyond",
            "Wang et al., ICLR 2025",
            "2502.19301",
        ),
    )
    epochs: int = 5
    beta: float = 1.0

    def loss(self, context: Context) -> losses.WGA:
        """The loss with its symbols."""
        return losses.WGA(**self.balance, beta=self.beta)
