"""Up on what a model sees of a concept, where that matters more than for what stays; down on what stays.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import nn

from expunge.core.allowed import Count, Fraction, NonNegative, Positive
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale
from expunge.data.pictures import IMAGE
from expunge.descent.optimizer import Dual, Optimizers, Shared
from expunge.descent.parameters import Parameters, Selection, mean_squares
from expunge.descent.schedule import FORGET, Interleave, Schedule
from expunge.descent.work import Objective, Work
from expunge.methods.by_descent import given
from expunge.methods.by_language import LR, LanguageMethod
from expunge.methods.grad_diff import GradDiff
from expunge.tasks.model_parts import model_parts
from expunge.training.descent import trainable

PARTS = {"text": ("text", "other"), "vision": ("vision", "connector"), "both": ("text", "other", "vision", "connector")}
LEAST = 1e-15  # added to the divisor of the ratio, as in the released code


@dataclass(frozen=True)
class Salient:
    """The ascent moves a weight where its Fisher on forgotten records is at least that on retained ones.

    Attributes:
        part: ``text``, ``vision`` (with what connects it) or ``both``; weights of the other part never move. Retained records
            are all of them for ``text`` and ``both``, and those with pictures for ``vision``.
        batch_size: of the gradients that are squared.
    """

    part: str
    batch_size: int

    def select(self, work: Work) -> Selection:
        """The mask, from one pass over forgotten and retained records each; strict on steps of ascent."""
        names, retained = self.names(work.model), work.deletion.after
        if self.part == "vision":
            retained = retained.at([i for i, record in enumerate(retained.records) if IMAGE in record])
        forget, retain = work.task.batch(work.deletion.forget), work.task.batch(retained)
        forgotten, kept = (mean_squares(work, names, batch, self.batch_size) for batch in (forget, retain))
        masks = {name: forgotten[name] / (kept[name] + LEAST) >= 1 for name in names}
        return Selection(names, {FORGET: masks}, strict=True, gradient_evaluations=len(forget) + len(retain))

    def names(self, model: nn.Module) -> tuple[str, ...]:
        """Trainable tensors of the part.

        Raises:
            InputError: for a model whose parts cannot be told, or whose part is frozen.
        """
        parts = model_parts(model)
        chosen = () if parts is None else tuple(n for n in trainable(model) if parts.part_of(n) in PARTS[self.part])
        if not chosen:
            raise InputError(
                f"Expected a model that sees, with trainable weights in its part {self.part}; there are none. Set part to "
                f"another of {', '.join(PARTS)}."
            )
        return chosen


@dataclass(frozen=True, kw_only=True)
class MMUnlearner(LanguageMethod):
    """A step of ascent on forgotten records under a mask, then a step of descent on retained ones without it, over and over.

    Forgotten records are pictures of the concept with its right name (``concept: {material: recognition}``). The mask is
    strict: what it holds is put back after each step of ascent. In the released code decay and momentum of AdamW move it.

    Attributes:
        part: whose weights move; ``text``. The paper has masks for either part and for both; that weights of the other part
            rest is our reading.
        gamma, alpha: weights of both losses, 1 and 1.
        epochs, lr, batch_size, clip: 1, 1e-5, 4 and 1 in the released code; ``steps``: steps of ascent, instead of epochs.
        warmup, anneal: none; UNKNOWN.
        dual: DualOptim: an AdamW for each loss.
    """

    name: ClassVar[str] = "mmunlearner"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "concept"), tasks=("vision_language",), needs=("forgotten data", "retained data")
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "MMUnlearner: reformulating multimodal machine unlearning in the era of multimodal large language models",
            "Huo et al., Findings of ACL 2025",
            "2502.11051",
        ),
    )
    small: ClassVar[SmallScale] = SmallScale(
        quick={"steps": 2, "lr": 1e-3}, visible={"steps": 12, "lr": 1e-3, "batch_size": 6}
    )
    part: Literal["text", "vision", "both"] = "text"
    gamma: NonNegative = 1.0
    alpha: NonNegative = 1.0
    epochs: Count | None = 1
    lr: Positive | None = 1e-5
    batch_size: Count = 4
    warmup: Fraction | None = 0.0
    anneal: Literal["constant", "cosine", "linear"] = "constant"
    dual: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.lora is not None:
            raise InputError("The mask is over weights of the model, and an adapter has others. Leave lora out.")

    def objective(self, context: Context) -> Objective:
        """Up on forgotten answers, down on retained ones."""
        return GradDiff(gamma=self.gamma, alpha=self.alpha)

    def schedule(self) -> Schedule:
        """One step of each."""
        return Interleave(1, 1, self.steps, self._epochs)

    def optimizer(self) -> Optimizers:
        """One AdamW, or one for each loss."""
        lr = given(self.lr, LR)
        return Dual(self._adamw(lr), self._adamw(lr)) if self.dual else Shared(self._adamw(lr))

    def parameters(self) -> Parameters:
        """The weights of the part, under the mask."""
        return Salient(self.part, self.batch_size)

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses also a part without retained records to weigh it by, or without weights."""
        after: Any = context.deletion.after
        shows = after is not None and any(IMAGE in record for record in after.records)
        if after is None or not len(after) or (self.part == "vision" and not shows):
            weighed = "retained records with pictures" if self.part == "vision" else "retained records"
            return Refusal(
                f"The mask of {self.part} needs {weighed}, and there are none.",
                "Take ga, or give the training data.",
            )
        Salient(self.part, self.batch_size).names(context.task.build())
        found = super().check(context)
        if isinstance(found, Refusal):
            return found
        masking = len(context.deletion.forget) + len(after)  # each record once, fewer where pictures alone count
        return replace(found, gradient_evaluations=found.gradient_evaluations + masking)
