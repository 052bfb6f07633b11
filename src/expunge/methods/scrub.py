"""Away from the original model on forgotten rows, close to it on retained ones.

Kurmanji et al., "Towards unbounded machine unlearning" (SCRUB), NeurIPS 2023, arXiv 2302.09880. Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.core.method import Capabilities, Configurations, Context, Estimate, Paper, Ranges, Refusal
from expunge.descent.descend import Descend
from expunge.descent.guard import Guard
from expunge.descent.members import Member
from expunge.descent.optimizer import FORGET_DECAY, Shared
from expunge.descent.schedule import Passes
from expunge.descent.work import Work
from expunge.methods.by_descent import GradientMethod, dual, given
from expunge.objectives.distillation import Scrub as Distilled
from expunge.tasks.passes import ACTIVATIONS, evaluating, in_passes


@dataclass(frozen=True, kw_only=True)
class Scrub(GradientMethod):
    """Per epoch one pass that maximises KL(original ; student) on forgotten rows, one that minimises ``alpha KL + gamma CE``.

    Defaults are DualOptim's form of it (arXiv 2504.15827, Tables 7 to 11, and its released code), so that the pair with and
    without ``dual`` differs in the optimizer alone. SCRUB's own large-scale form: gamma 0.99, alpha 0.001, temperature 4,
    msteps 2, 3 epochs, SGD 5e-4.

    Attributes:
        alpha, gamma: 0.5 and 1; temperature: 1.
        epochs: 10; msteps: forget passes in the first so many epochs only; ``None``: in all.
        lr: of forget steps, ``None``: 1e-4 shared, 1.5e-4 under ``dual``; retain_lr: 1e-4. Adam's (AdamW, decay 0.05).
        rewind: SCRUB+R: end with the epoch whose forget error is closest to the error on the probe ``validation``, both of
            that epoch. SCRUB's released code takes the held-out error of the last epoch instead.
        dual: DualOptim (Adam and Adam).
    """

    name: ClassVar[str] = "scrub"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=("classification",))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Towards unbounded machine unlearning", "Kurmanji et al., NeurIPS 2023", "2302.09880"),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-5, 1e-2)}
    configurations: ClassVar[Configurations] = {"scrub_r": {"rewind": True}}
    alpha: float = 0.5
    gamma: float = 1.0
    temperature: float = 1.0
    epochs: int = 10
    msteps: int | None = None
    lr: float | None = None
    retain_lr: float = 1e-4
    batch_size: int = 128
    rewind: bool = False
    dual: bool = False

    def check(self, context: Context) -> Estimate | Refusal:
        """Rewinding needs held-out rows to know the error it aims at."""
        if self.rewind and "validation" not in context.deletion.probes:
            return Refusal(
                "SCRUB+R chooses the epoch by the error on held-out rows of the same distribution; there is no probe "
                "'validation'.",
                "Give probes={'validation': rows}, rows that no number is reported on, or leave out rewind.",
            )
        return super().check(context)

    def composition(self, context: Context) -> Descend:
        """Two passes an epoch."""
        if self.dual:
            optimizer = dual(given(self.lr, 1.5e-4), self.retain_lr, retain="adamw")
        else:
            optimizer = Shared(Member("adamw", self.retain_lr, weight_decay=FORGET_DECAY), given(self.lr, 1e-4))
        return Descend(
            Distilled(self.alpha, self.gamma, self.temperature),
            Passes(self.epochs, forget_until=self.msteps),
            optimizer,
            guard=Guard(_rewound) if self.rewind else None,
        )


def _rewound(work: Work) -> float:
    """Minus the distance between forget error and held-out error, of the same classes where a whole class goes."""
    validation = work.deletion.probes["validation"]
    return -abs(_error(work, work.deletion.forget) - _error(work, validation))


def _error(work: Work, rows) -> float:
    batch = work.task.batch(rows)
    with torch.no_grad(), evaluating(work.model):
        logits = in_passes(lambda part: work.task.outputs(work.model, work.params, part).logits, batch, ACTIVATIONS)
    return int((logits.argmax(-1) != batch["y"]).sum()) / len(rows)
