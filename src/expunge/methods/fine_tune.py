"""Train on with the retained rows only and hope that the rest fades.

Formal guarantee: none. Fine-tuning a deep network is not descent-to-delete, whose loss is strongly convex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Count, Positive
from expunge.core.method import Capabilities, Context, Paper, Ranges
from expunge.descent.descend import Descend
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Passes
from expunge.methods.by_descent import GradientMethod, sgd
from expunge.objectives.supervised import Ascent


@dataclass(frozen=True, kw_only=True)
class FineTune(GradientMethod):
    """Mini-batch SGD on the retained rows, started from the model.

    Attributes:
        epochs, lr: 10 and 0.01, for 10 % of CIFAR-10 (DualOptim, arXiv 2504.15827, Tables 7 to 11); the baseline in R2D's
            experiments (arXiv 2409.09778) has the same.
        batch_size: 128, the text of DualOptim.
    """

    name: ClassVar[str] = "fine_tune"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class", "node", "edge", "feature"), needs=("retained data",)
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Eternal sunshine of the spotless net: selective forgetting in deep networks",
            "Golatkar et al., CVPR 2020",
            "1911.04933",
        ),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-3, 1e-1)}
    epochs: Count = 10
    lr: Positive = 0.01
    batch_size: Count = 128

    def composition(self, context: Context) -> Descend:
        """Passes over what stays."""
        return Descend(Ascent(), Passes(self.epochs, forget=0), Shared(sgd(self.lr)))
