"""Self-distillation with the true token pushed down.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context
from expunge.methods.by_language import LanguageMethod, language
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class Undial(LanguageMethod):
    """Cross-entropy towards softmax(z_ref - beta onehot(y)) on forgotten answers.

    Attributes:
        beta: 10; lr: 1e-4; alpha: 0, no retain loss (OpenUnlearning; LLM spec 4). The paper: LoRA r 8, alpha 16.
        gamma, retain: as for ``npo``.
    """

    name: ClassVar[str] = "undial"
    capabilities: ClassVar[Capabilities] = language("UNDIAL (Dong et al. 2024, arXiv 2402.10052)")
    lr: float = 1e-4
    beta: float = 10.0
    gamma: float = 1.0
    alpha: float = 0.0
    retain: str = "nll"

    def objective(self, context: Context) -> losses.Undial:
        """The loss with its symbols."""
        return losses.Undial(beta=self.beta, gamma=self.gamma, alpha=self.alpha, retain=self.retain)
