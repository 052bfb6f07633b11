"""Gradient ascent that weighs each token by how well it is known and by how little of it is.

Yang et al., "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning" (SatImp), ICML 2025, arXiv 2505.11953.

Formal guarantee: none. A token that the model knows by heart (p = 1) has no weight at all: a model that memorised the forget
set needs ``beta2`` near 0, which leaves WGA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.allowed import Count, NonNegative
from expunge.core.batch import Batch
from expunge.core.method import Paper, SmallScale
from expunge.descent.processes import ALONE, Processes
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base


def satimp(token_losses: Tensor, mask: Tensor, beta1: float, beta2: float, together: Processes = ALONE) -> Tensor:
    """Mean over tokens of p^beta1 (1 - p)^beta2 log p, the weight detached.

    Shapes:
        (b, t), (b, t) bool → scalar.
    """
    known = (-token_losses.detach()).exp()
    unknown = -(-token_losses.detach()).expm1()  # 1 - p, exact also where p is close to 1
    return -together.mean((known**beta1 * unknown**beta2 * token_losses)[mask])


@dataclass(frozen=True, kw_only=True)
class SatImp(Balanced):
    """``gamma × mean over tokens of p^beta1 (1 - p)^beta2 log p (weight detached) + alpha × retain loss``.

    ``beta2 = 0`` is WGA with ``beta = beta1``; both 0 is GradDiff.

    Attributes:
        beta1, beta2, epochs: 5, 1 and 5, which OpenUnlearning (arXiv 2506.12618) ships; its code for the method came from the
            authors. The example in their own repository (tmlr-group/SatImp) runs with 0.3 and 0.3 instead.
        gamma, alpha: 1 and 0.1: the class in OpenUnlearning, and the place of the weight in the authors' code; the YAML file
            of OpenUnlearning has them the other way round.
    """

    name: ClassVar[str] = "satimp"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Exploring criteria of loss reweighting to enhance LLM unlearning", "Yang et al., ICML 2025", "2505.11953"
        ),
    )
    # a model of a few facts knows each token by heart, where the default weight is zero up to rounding
    small: ClassVar[SmallScale] = Balanced.small.but(visible={"beta2": 0.1})
    epochs: Count = 5
    alpha: NonNegative = 0.1
    beta1: NonNegative = 5.0
    beta2: NonNegative = 1.0

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Ascent with a weight for each token."""
        values, mask = work.language.token_losses(work.model, work.params, batch)
        return satimp(values, mask, self.beta1, self.beta2, work.processes)
