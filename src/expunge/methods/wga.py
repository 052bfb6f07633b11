"""Weighted gradient ascent: likely tokens climb most.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.allowed import Count, NonNegative
from expunge.core.batch import Batch
from expunge.core.method import Paper
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base, weighted_ascent


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
    epochs: Count = 5
    beta: NonNegative = 1.0

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Ascent with a weight for each token."""
        values, mask = work.language.token_losses(work.model, work.params, batch)
        return weighted_ascent(values, mask, self.beta, work.processes)
