"""Negative preference optimisation: ascent that stops pushing what is unlikely already.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Context, Paper
from expunge.methods.by_language import Balanced
from expunge.objectives import language as losses


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
    beta: float = 0.1

    def loss(self, context: Context) -> losses.NPO:
        """The loss with its symbols."""
        return losses.NPO(**self.balance, beta=self.beta)
