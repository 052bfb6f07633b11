"""Climb the loss of the forgotten rows.

Formal guarantee: none; it destroys the model when it goes on for long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Count, Positive
from expunge.core.method import Capabilities, Context, Paper, Ranges, SmallScale
from expunge.descent.descend import Descend
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Passes
from expunge.methods.by_descent import GradientMethod, sgd
from expunge.objectives.supervised import Ascent


@dataclass(frozen=True, kw_only=True)
class GradientAscent(GradientMethod):
    """Mini-batch SGD up the loss of the forgotten rows.

    Attributes:
        epochs, lr: 10 and 5e-4, for 10 % of CIFAR-10 (DualOptim, arXiv 2504.15827, Tables 7 to 11). One step of its
            grid more, and the model collapses.
        batch_size: 128, the text of DualOptim.
    """

    name: ClassVar[str] = "gradient_ascent"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class", "node", "edge", "feature"), needs=("forgotten data",)
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Unrolling SGD: understanding factors influencing machine unlearning",
            "Thudi et al., EuroS&P 2022",
            "2109.13398",
        ),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-5, 1e-2)}
    small: ClassVar[SmallScale] = GradientMethod.small.but(quick={"batch_size": 4}, visible={"lr": 2e-3})
    epochs: Count = 10
    lr: Positive = 5e-4
    batch_size: Count = 128

    def composition(self, context: Context) -> Descend:
        """Passes over what goes."""
        return Descend(Ascent(), Passes(self.epochs, retain=0), Shared(sgd(self.lr)))
