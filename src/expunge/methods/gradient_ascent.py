"""Climb the loss of the forgotten rows.

Formal guarantee: none; it destroys the model when it goes on for long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context, Estimate, Refusal, Unlearned
from expunge.methods.fine_tune import descended


@dataclass(frozen=True, kw_only=True)
class GradientAscent:
    """Mini-batch SGD up the loss of the forgotten rows.

    Attributes:
        epochs: 10; lr: 5e-4: the settings of the DualOptim tables on CIFAR-10 (vision spec, section 1: "GA (10 ep)").
        batch_size, momentum: 128 and 0: UNKNOWN there, chosen as in fine_tune.
    """

    name: ClassVar[str] = "gradient_ascent"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class"),
        tasks=("*",),
        needs=("forgotten data",),
        effect="weights",
        certified=False,
        paper="gradient ascent (baseline; Thudi et al. 2022, arXiv 2109.13398)",
    )
    epochs: int = 10
    lr: float = 5e-4
    batch_size: int = 128
    momentum: float = 0.0

    def check(self, context: Context) -> Estimate | Refusal:
        """Runs on any model that has the forgotten rows."""
        return Estimate(self.epochs * len(context.deletion.forget))

    def run(self, context: Context) -> Unlearned:
        """Epochs of ascent on what goes."""
        return descended(context, context.deletion.forget, self, sign=-1.0)
