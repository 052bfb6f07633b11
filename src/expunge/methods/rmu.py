"""Representation misdirection: activations of forgotten answers towards one random direction.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context
from expunge.methods.by_language import LanguageMethod, language
from expunge.objectives import language as losses


@dataclass(frozen=True, kw_only=True)
class RMU(LanguageMethod):
    """``gamma × mean (h - c u)² + alpha × mean (h - h_ref)²`` at one layer, on answer tokens.

    Attributes:
        layer, c, alpha: 7, 2 and 1, all weights up to the layer move (OpenUnlearning; LLM spec 4). The constants of the
            original are not known to us.
    """

    name: ClassVar[str] = "rmu"
    capabilities: ClassVar[Capabilities] = language("RMU (Li et al. 2024, WMDP, arXiv 2403.03218)")
    layer: int = 7
    c: float = 2.0
    gamma: float = 1.0
    alpha: float = 1.0

    def objective(self, context: Context) -> losses.RMU:
        """The loss with its symbols."""
        return losses.RMU(layer=self.layer, c=self.c, gamma=self.gamma, alpha=self.alpha)
