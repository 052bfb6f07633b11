"""Climb the loss of the forgotten rows while descending that of the retained ones.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Count, Positive, Probability
from expunge.core.method import Capabilities, Context, Paper, Ranges
from expunge.descent.descend import Descend
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Interleave, Joint
from expunge.descent.streams import batches_per_pass
from expunge.methods.by_descent import GradientMethod, dual, given, sgd
from expunge.objectives.supervised import Ascent


@dataclass(frozen=True, kw_only=True)
class NegGradPlus(GradientMethod):
    """``a CE_retain - (1 - a) CE_forget`` in every step; with ``dual`` the two terms alternate instead.

    Attributes:
        a: weight of the retained rows; careful comparisons search 0.95 to 0.9999 (CoUn, arXiv 2509.16391); 0.95 moves most.
        epochs: passes over the retained rows; 10 as its companions have (UNKNOWN for a single published setting).
        lr, retain_lr: 0.01 as its companions; ``lr`` (the forget steps' under ``dual``) ``None``: 0.01 shared, and
            1e-4 under ``dual``, SFRon's value in DualOptim (arXiv 2504.15827, Tables 7 to 11), which does not try this
            method. A scale-free optimizer cancels the 1 - a of the forget steps.
        dual: DualOptim.
    """

    name: ClassVar[str] = "neg_grad_plus"
    capabilities: ClassVar[Capabilities] = Capabilities()
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Towards unbounded machine unlearning", "Kurmanji et al., NeurIPS 2023; the baseline NegGrad+", "2302.09880"
        ),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-3, 1e-1), "a": (0.9, 0.9999)}
    a: Probability = 0.95
    epochs: Count = 10
    lr: Positive | None = None
    retain_lr: Positive = 0.01
    batch_size: Count = 128
    dual: bool = False

    def composition(self, context: Context) -> Descend:
        """Both terms at once, or one after the other."""
        objective = Ascent(forget_weight=1 - self.a, retain_weight=self.a)
        if not self.dual:
            return Descend(objective, Joint(self.epochs), Shared(sgd(given(self.lr, self.retain_lr))))
        steps = self.epochs * batches_per_pass(len(context.deletion.after), self.batch_size)
        return Descend(objective, Interleave(1, 1, retain_steps=steps), dual(given(self.lr, 1e-4), self.retain_lr))
