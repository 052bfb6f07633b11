"""Teach the model to draw the forgotten class as its own opposite.

After Gandikota et al., "Erasing concepts from diffusion models" (ESD), ICCV 2023, arXiv 2303.07345. Formal guarantee: none.
Like it, not the same: the paper noises images that the model draws on the way, for texts; here the forgotten images are noised,
for classes, and steps on retained images stand between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Count, Positive
from expunge.core.method import Capabilities, Context, Estimate, Paper, Ranges, Refusal, SmallScale
from expunge.descent.descend import Descend
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Interleave
from expunge.methods.by_descent import GradientMethod, adam, dual_adam, given
from expunge.objectives.generation import NegativeGuidance as Steered


@dataclass(frozen=True, kw_only=True)
class NegativeGuidance(GradientMethod):
    """The forgotten class is drawn as what any class is, less what is particular to it.

    Attributes:
        eta: strength, 1 (ESD's default).
        steps: retain steps, with a forget step before each; 300, our choice for small models.
        lr: of forget steps; ``None``: 1e-4, our choice for models that are trained with some 1e-3 (1e-5 for ESD's
            Stable Diffusion). retain_lr: 1e-4, as for the DDPM of DualOptim (arXiv 2504.15827).
        batch_size: 64, our choice.
        dual: DualOptim.
    """

    name: ClassVar[str] = "negative_guidance"
    capabilities: ClassVar[Capabilities] = Capabilities(kinds=("class",), tasks=("diffusion",))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Erasing concepts from diffusion models", "Gandikota et al., ICCV 2023", "2303.07345"),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-5, 1e-2), "eta": (0.1, 10.0)}
    small: ClassVar[SmallScale] = SmallScale(
        quick={"steps": 2, "batch_size": 8}, visible={"steps": 60, "lr": 1e-2, "batch_size": 8}
    )
    eta: Positive = 1.0
    steps: Count = 300
    lr: Positive | None = None
    retain_lr: Positive = 1e-4
    batch_size: Count = 64
    dual: bool = False

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses a model that knows no condition "any class"."""
        if not getattr(context.task, "hidden", 0.0):
            return Refusal(
                "Negative guidance steers by what the model draws of any class, and this model never learnt that: no label was "
                "hidden in its training (hidden: 0).",
                "Use salun, sfron or selective_amnesia.",
            )
        return super().check(context)

    def composition(self, context: Context) -> Descend:
        """A forget step before each retain step."""
        lr = given(self.lr, 1e-4)
        optimizer = dual_adam(lr, self.retain_lr) if self.dual else Shared(adam(self.retain_lr), lr)
        return Descend(Steered(self.eta), Interleave(1, 1, self.steps), optimizer)
