"""Self-distillation with the true token pushed down.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.allowed import NonNegative, Positive
from expunge.core.batch import Batch
from expunge.core.method import Paper, SmallScale
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base, self_distillation


@dataclass(frozen=True, kw_only=True)
class Undial(Balanced):
    """``gamma × cross-entropy towards softmax(z_ref - beta onehot(y)) on forgotten answers + alpha × retain loss``.

    Attributes:
        beta, lr, alpha: 10, 1e-4 and 0, no retain loss (OpenUnlearning, arXiv 2506.12618). UNDIAL's paper: LoRA r 8, alpha 16.
    """

    name: ClassVar[str] = "undial"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "UNDIAL: self-distillation with adjusted logits for robust unlearning in large language models",
            "Dong et al. 2024",
            "2402.10052",
        ),
    )
    # both need two objectives
    small: ClassVar[SmallScale] = Balanced.small.but(variants={name: {"alpha": 1.0} for name in ("dual", "alternate")})
    lr: Positive = 1e-4
    beta: Positive = 10.0
    alpha: NonNegative = 0.0

    @property
    def whole_weights(self) -> str:
        """Its target is what the model before the run says."""
        return "" if self.lora is not None else "Self-distillation asks the model before the run in each step"

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Distil the model of before with the true token pushed down."""
        logits, labels = work.language.answered(work.model, work.params, batch)
        return self_distillation(logits, base.logits(batch), labels, self.beta, work.processes)
