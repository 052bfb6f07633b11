"""Slow-fast ascent: now and then one adaptive ascent step between many retain steps.

"SFRon" (Huang et al., NeurIPS 2024, "Unified gradient-based machine unlearning with remain geometry enhancement", arXiv
2409.19732) as DualOptim re-tuned it. Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.core.allowed import Count, NonNegative, Positive
from expunge.core.method import Capabilities, Context, Paper, Ranges, SmallScale
from expunge.descent.descend import Descend
from expunge.descent.parameters import FisherRatio
from expunge.descent.schedule import FORGET, RETAIN, Interleave
from expunge.methods.by_descent import GradientMethod, by_trainer, given
from expunge.objectives.supervised import AdaptiveAscent


@dataclass(frozen=True, kw_only=True)
class SFRon(GradientMethod):
    """One forget step before every ``inner``-th retain step.

    Attributes:
        steps: T_out, retain steps: 1500; inner: T_in, 5. All defaults: 10 % of CIFAR-10 (DualOptim, arXiv 2504.15827,
            Tables 7 to 11, and its released code).
        alpha: strength of the ascent; ``None``: 31 shared, 1 under ``dual``.
        power: lambda, how strongly small losses are preferred: 0.5.
        gamma: forget gradients pass where Fisher_forget >= gamma Fisher_retain: 1.
        clip: largest norm of a forget gradient: 7.0.
        augmented: whether the Fisher is that of augmented views, where the model was trained on such, as in the code of
            DualOptim; by default it is that of the images as they are.
        lr: of forget steps; ``None``: 0.01 shared, 1e-4 under ``dual``; retain_lr: 0.01. Both fall along a cosine over the
            retain steps.
        optimizer: ``adam`` for models that Adam trained, such as DDPM: 150 steps, inner 1, alpha 1, gamma 3, both rates 1e-4
            there (DualOptim, arXiv 2504.15827); ``sgd`` else.
        dual: DualOptim.
    """

    name: ClassVar[str] = "sfron"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=("classification", "diffusion"))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Unified gradient-based machine unlearning with remain geometry enhancement",
            "Huang et al., NeurIPS 2024",
            "2409.19732",
        ),
    )
    ranges: ClassVar[Ranges] = {"alpha": (1.0, 1000.0)}
    small: ClassVar[SmallScale] = SmallScale(quick={"steps": 5, "batch_size": 16}, visible={"batch_size": 8})
    steps: Count = 1500
    inner: Count = 5
    alpha: Positive | None = None
    power: NonNegative = 0.5
    gamma: NonNegative = 1.0
    clip: Positive = 7.0
    augmented: bool = False
    lr: Positive | None = None
    retain_lr: Positive = 0.01
    batch_size: Count = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    dual: bool = False

    def preparing(self, forget: int, retain: int) -> int:
        """The mask sees each row once."""
        return forget + retain

    def composition(self, context: Context) -> Descend:
        """With DualOptim the optimizer changes, and alpha, which a scale-free optimizer cancels."""
        alpha = given(self.alpha, 1.0 if self.dual else 31.0)
        lr = given(self.lr, 1e-4 if self.dual else 0.01)
        optimizer = by_trainer(self.optimizer, self.dual, lr, self.retain_lr)
        return Descend(
            AdaptiveAscent(alpha, self.power), Interleave(1, self.inner, self.steps, clock=RETAIN), optimizer,
            FisherRatio(self.gamma, self.batch_size, self.augmented), clip={FORGET: self.clip}, anneal="cosine",
        )  # fmt: skip
