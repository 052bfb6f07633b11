"""A random network teaches the forgotten rows, the original one the retained ones.

Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023, arXiv 2205.08096. Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from expunge.core.allowed import Count, Positive, Share
from expunge.core.method import Capabilities, Context, Paper, Ranges, SmallScale
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Mixed, Passes
from expunge.methods.by_descent import GradientMethod, dual, given
from expunge.objectives.distillation import BadTeacher as Taught


@dataclass(frozen=True, kw_only=True)
class BadTeacher(GradientMethod):
    """One shuffled stream of forgotten and some retained rows, each row under its teacher.

    Attributes:
        epochs, retain_lr, batch_size, temperature, retain_share: 1, 1e-4 (Adam), 256, 1 and 0.3, as in the code released
            with the paper (arXiv 2205.08096; the temperature is not checked against it).
        lr: of forget steps under ``dual``; ``None``: 1e-4.
        augment: whether the student sees augmented views, where the model was trained on such; the released code shows it
            the images as they are.
        reduction: ``rows``; ``elements`` is torch's default in the released code: classes times weaker.
        dual: DualOptim, which splits the stream into two passes; its paper (arXiv 2504.15827) does not try this method.
    """

    name: ClassVar[str] = "bad_teacher"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=("classification",))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Can bad teaching induce forgetting? Unlearning in deep networks using an incompetent teacher",
            "Chundawat et al., AAAI 2023",
            "2205.08096",
        ),
    )
    ranges: ClassVar[Ranges] = {"retain_lr": (1e-5, 1e-2)}
    small: ClassVar[SmallScale] = GradientMethod.small.but(visible={"batch_size": 3, "lr": 1e-3, "retain_lr": 1e-3})
    epochs: Count = 1
    lr: Positive | None = None
    retain_lr: Positive = 1e-4
    batch_size: Count = 256
    temperature: Positive = 1.0
    retain_share: Share = 0.3
    augment: bool = False
    reduction: Literal["rows", "elements"] = "rows"
    dual: bool = False

    def views(self, context: Context) -> Any:
        """None, unless they are asked for."""
        return super().views(context) if self.augment else None

    def composition(self, context: Context) -> Descend:
        """One stream, or two passes."""
        objective = Taught(self.retain_share, self.temperature, self.reduction)
        if self.dual:
            return Descend(objective, Passes(self.epochs), dual(given(self.lr, 1e-4), self.retain_lr, retain="adamw"))
        return Descend(objective, Mixed(self.epochs), Shared(Member("adam", given(self.lr, self.retain_lr))))
