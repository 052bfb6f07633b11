"""NPO without a reference model, on mean log-probabilities.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context
from expunge.methods.by_language import LanguageMethod, language
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class SimNPO(LanguageMethod):
    """``gamma × -(2/beta) log sigmoid(beta (N - delta)) + alpha × retain loss``.

    Attributes:
        beta, delta, gamma, alpha: 4.5, 0, 0.125 and 1 (OpenUnlearning; LLM spec 4).
        retain: ``nll``, or ``kl`` to the model before the run.
    """

    name: ClassVar[str] = "simnpo"
    capabilities: ClassVar[Capabilities] = language("SimNPO (Fan et al. 2024, arXiv 2410.07163)")
    beta: float = 4.5
    delta: float = 0.0
    gamma: float = 0.125
    alpha: float = 1.0
    retain: str = "nll"

    def objective(self, context: Context) -> losses.SimNPO:
        """The loss with its symbols."""
        return losses.SimNPO(beta=self.beta, delta=self.delta, gamma=self.gamma, alpha=self.alpha, retain=self.retain)
