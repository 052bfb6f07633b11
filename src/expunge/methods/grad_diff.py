"""Up on forgotten answers, down on retained ones; with ``retain='kl'`` TOFU's KL minimisation.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context
from expunge.methods.by_language import LanguageMethod, language
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class GradDiff(LanguageMethod):
    """``-gamma N + alpha × retain loss``.

    Attributes:
        gamma, alpha: 1 and 1 (OpenUnlearning; LLM spec 4).
        retain: ``nll``, or ``kl`` to the model before the run.
    """

    name: ClassVar[str] = "grad_diff"
    capabilities: ClassVar[Capabilities] = language(
        "GradDiff and KL minimisation (Maini et al. 2024, TOFU, arXiv 2401.06121)"
    )
    gamma: float = 1.0
    alpha: float = 1.0
    retain: str = "nll"

    def objective(self, context: Context) -> losses.GradDiff:
        """The loss with its symbols."""
        return losses.GradDiff(gamma=self.gamma, alpha=self.alpha, retain=self.retain)
