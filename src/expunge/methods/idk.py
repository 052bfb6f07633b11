"""Answer forgotten questions with a refusal.

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
class IDK(LanguageMethod):
    """Token-mean loss of a refusal on forgotten questions + alpha × retain loss.

    Attributes:
        gamma, alpha, retain: as for ``npo``.
        refusals: one is drawn for each question; the default is ours, TOFU comes with a hundred (``idontknow.jsonl``).
    """

    name: ClassVar[str] = "idk"
    capabilities: ClassVar[Capabilities] = language("IDK (Maini et al. 2024, TOFU, arXiv 2401.06121)")
    gamma: float = 1.0
    alpha: float = 1.0
    retain: str = "nll"
    refusals: tuple[str, ...] = REFUSALS

    def objective(self, context: Context) -> losses.Refusals:
        """The loss with its symbols."""
        return losses.Refusals(gamma=self.gamma, alpha=self.alpha, retain=self.retain, refusals=tuple(self.refusals))
