"""Weighted gradient ascent: likely tokens climb most.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context
from expunge.methods.by_language import LanguageMethod, language
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class WGA(LanguageMethod):
    """``gamma × mean over tokens of p^beta log p (weight detached) + alpha × retain loss``.

    Attributes:
        beta: 1; epochs: 5 (OpenUnlearning; LLM spec 4).
        gamma, alpha, retain: as for ``npo``.
    """

    name: ClassVar[str] = "wga"
    capabilities: ClassVar[Capabilities] = language("WGA (Wang et al. 2025, arXiv 2502.19301)")
    epochs: int = 5
    beta: float = 1.0
    gamma: float = 1.0
    alpha: float = 1.0
    retain: str = "nll"

    def objective(self, context: Context) -> losses.WGA:
        """The loss with its symbols."""
        return losses.WGA(beta=self.beta, gamma=self.gamma, alpha=self.alpha, retain=self.retain)
