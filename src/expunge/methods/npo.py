"""Negative preference optimisation: ascent that stops pushing what is unlikely already.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context
from expunge.methods.by_language import LanguageMethod, language
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class NPO(LanguageMethod):
    """``gamma × -(2/beta) log sigmoid(beta (S - S_ref)) + alpha × retain loss``; S_ref is computed once.

    Attributes:
        beta, gamma, alpha: 0.1, 1 and 1 (OpenUnlearning; LLM spec 4). The SA/SU authors' sibling code has gamma 0.1375.
        retain: ``nll``, or ``kl`` to the model before the run.
    """

    name: ClassVar[str] = "npo"
    capabilities: ClassVar[Capabilities] = language("NPO (Zhang et al. 2024, arXiv 2404.05868)")
    beta: float = 0.1
    gamma: float = 1.0
    alpha: float = 1.0
    retain: str = "nll"

    def objective(self, context: Context) -> losses.NPO:
        """The loss with its symbols."""
        return losses.NPO(beta=self.beta, gamma=self.gamma, alpha=self.alpha, retain=self.retain)
