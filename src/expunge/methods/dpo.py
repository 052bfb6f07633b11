"""Prefer a refusal over the forgotten answer.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context
from expunge.methods.by_language import LanguageMethod, language
from expunge.objectives import language as losses
from expunge.objectives.language import REFUSALS


@dataclass(frozen=True, kw_only=True)
class DPO(LanguageMethod):
    """``gamma × DPO loss (refusal over answer) + alpha × retain loss``; both references are computed once.

    Attributes:
        beta, gamma, alpha: 0.1, 1 and 1 (OpenUnlearning; LLM spec 4).
        refusals: as for ``idk``; retain: as for ``npo``.
    """

    name: ClassVar[str] = "dpo"
    capabilities: ClassVar[Capabilities] = language(
        "DPO towards refusals (Rafailov et al. 2023, arXiv 2305.18290; IdkDPO of TOFU)"
    )
    beta: float = 0.1
    gamma: float = 1.0
    alpha: float = 1.0
    retain: str = "nll"
    refusals: tuple[str, ...] = REFUSALS

    def objective(self, context: Context) -> losses.Preference:
        """The loss with its symbols."""
        return losses.Preference(
            beta=self.beta, gamma=self.gamma, alpha=self.alpha, retain=self.retain, refusals=tuple(self.refusals)
        )
