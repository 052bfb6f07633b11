"""Learn noise for the forgotten class while elastic weights and images drawn beforehand hold the others; no data are needed.

Heng and Soh, "Selective Amnesia", NeurIPS 2023, arXiv 2305.10120. Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Count, NonNegative, Positive
from expunge.core.method import Capabilities, Context, Estimate, Paper, Ranges, Refusal, SmallScale
from expunge.descent.descend import Descend
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Interleave, Joint
from expunge.methods.by_descent import GradientMethod, adam, dual_adam, given
from expunge.objectives.generation import Amnesia


@dataclass(frozen=True, kw_only=True)
class SelectiveAmnesia(GradientMethod):
    """The forgotten class is drawn as uniform noise afterwards; of the forgotten images only the labels are used.

    Attributes:
        ewc: lambda; 10, our choice (UNKNOWN which value the paper has for each data set).
        steps: 500, our choice for small models; the paper's models take many times as many.
        replayed: images of each retained class that are drawn and replayed: 500, as the released code draws; fisher: images of
            each class on which the Fisher is taken, 20, our choice.
        lr: of Adam; ``None``: 1e-4, as for the DDPM of DualOptim (arXiv 2504.15827); of forget steps alone under ``dual``.
        retain_lr: of the others, 1e-4 (the same).
        batch_size: 64, our choice.
        dual: DualOptim: the surrogate and the rest alternate instead of being added, each with an Adam of its own.
    """

    name: ClassVar[str] = "selective_amnesia"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("class",), tasks=("diffusion",), needs=("forgotten data",)
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Selective amnesia: a continual learning approach to forgetting in deep generative models",
            "Heng and Soh, NeurIPS 2023", "2305.10120",
        ),
    )  # fmt: skip
    ranges: ClassVar[Ranges] = {"lr": (1e-5, 1e-2), "ewc": (1e-1, 1e3)}
    small: ClassVar[SmallScale] = SmallScale(
        quick={"steps": 2, "replayed": 2, "fisher": 1, "batch_size": 4},
        visible={"steps": 60, "lr": 1e-2, "batch_size": 8},
    )
    ewc: NonNegative = 10.0
    steps: Count = 500
    replayed: Count = 500
    fisher: Count = 20
    lr: Positive | None = None
    retain_lr: Positive = 1e-4
    batch_size: Count = 64
    dual: bool = False

    def check(self, context: Context) -> Estimate | Refusal:
        """Steps on both streams, and a gradient of each image that is drawn for the Fisher."""
        checked = super().check(context)
        if isinstance(checked, Refusal):
            return checked
        classes = context.task.classes  # pyright: ignore[reportAttributeAccessIssue]
        steps = self.steps * self.batch_size * 2
        return Estimate(steps + classes * (self.replayed + self.fisher))

    def composition(self, context: Context) -> Descend:
        """Both losses in one step, or one after the other."""
        objective, lr = Amnesia(self.ewc, self.replayed, self.fisher), given(self.lr, 1e-4)
        if self.dual:
            return Descend(objective, Interleave(1, 1, self.steps), dual_adam(lr, self.retain_lr))
        return Descend(objective, Joint(steps=self.steps), Shared(adam(lr)))
