"""NPO without a reference model, on mean log-probabilities.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.allowed import Finite, NonNegative, Positive
from expunge.core.batch import Batch
from expunge.core.method import Paper
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base, simnpo


@dataclass(frozen=True, kw_only=True)
class SimNPO(Balanced):
    """``gamma × -(2/beta) log sigmoid(beta (N - delta)) + alpha × retain loss``.

    Attributes:
        beta, delta, gamma: 4.5, 0 and 0.125 (OpenUnlearning, arXiv 2506.12618).
    """

    name: ClassVar[str] = "simnpo"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Simplicity prevails: rethinking negative preference optimization for LLM unlearning",
            "Fan et al. 2024",
            "2410.07163",
        ),
    )
    beta: Positive = 4.5
    delta: Finite = 0.0
    gamma: NonNegative = 0.125

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """SimNPO on mean log-probabilities, mean over rows."""
        means = work.task.losses(work.model, work.params, batch)
        return work.processes.mean(simnpo(means, self.beta, self.delta))
