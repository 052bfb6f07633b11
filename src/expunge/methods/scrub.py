"""Away from the original model on forgotten rows, close to it on retained ones.

Kurmanji et al., "Towards unbounded machine unlearning" (SCRUB), NeurIPS 2023, arXiv 2302.09880. Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.core.allowed import Count, NonNegative, Positive
from expunge.core.errors import InputError
from expunge.core.method import (
    Capabilities,
    Configurations,
    Context,
    Estimate,
    Once,
    Paper,
    Ranges,
    Refusal,
    Watch,
    silent,
)
from expunge.descent.descend import Descend, Descended
from expunge.descent.guard import Guard
from expunge.descent.members import Member
from expunge.descent.optimizer import FORGET_DECAY, Shared
from expunge.descent.schedule import FORGET, Passes
from expunge.descent.work import Work
from expunge.methods.by_descent import GradientMethod, dual, given, sgd
from expunge.methods.trajectory import Remembering, remember
from expunge.objectives.distillation import Scrub as Distilled
from expunge.tasks.passes import ACTIVATIONS, evaluating, in_passes

OWN = {
    "alpha": 0.001, "gamma": 0.99, "temperature": 4.0, "epochs": 3, "msteps": 2, "optimizer": "sgd", "lr": 5e-4,
    "retain_lr": 5e-4, "forget_batch": 32, "decay_at": (3, 5, 9),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scrub(GradientMethod):
    """Per epoch one pass that maximises KL(original ; student) on forgotten rows, one that minimises ``alpha KL + gamma CE``.

    Defaults are DualOptim's form of it (arXiv 2504.15827, Tables 7 to 11, and its released code), so that the pair with and
    without ``dual`` differs in the optimizer alone. The row ``scrub_own`` has SCRUB's own large-scale form.

    Attributes:
        alpha, gamma: 0.5 and 1; temperature: 1.
        epochs: 10; msteps: forget passes in the first so many epochs only; ``None``: in all.
        lr: of forget steps, ``None``: 1e-4 shared, 1.5e-4 under ``dual``; retain_lr: 1e-4.
        optimizer: ``adamw`` (decay 0.05), or ``sgd`` (momentum 0.9, decay 5e-4).
        forget_batch: rows of a forget step; ``None``: as many as of a retain step, ``batch_size``.
        decay_at: rates are a tenth from the epochs after these on, which are counted from 1.
        teacher: mode of the original, see :class:`~expunge.objectives.distillation.Scrub`.
        rewind: SCRUB+R: end with the epoch whose forget error is closest to the error of the *last* epoch on the probe
            ``validation``, as the released code has it.
        dual: DualOptim (Adam and Adam).
    """

    name: ClassVar[str] = "scrub"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=("classification",))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Towards unbounded machine unlearning", "Kurmanji et al., NeurIPS 2023", "2302.09880"),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-5, 1e-2)}
    configurations: ClassVar[Configurations] = {"scrub_r": {"rewind": True}, "scrub_own": OWN}
    alpha: NonNegative = 0.5
    gamma: NonNegative = 1.0
    temperature: Positive = 1.0
    epochs: Count = 10
    msteps: Count | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive | None = None
    retain_lr: Positive = 1e-4
    batch_size: Count = 128
    forget_batch: Count | None = None
    decay_at: tuple[Count, ...] = ()
    teacher: Literal["eval", "train"] = "eval"
    rewind: bool = False
    dual: bool = False

    def __post_init__(self):
        object.__setattr__(self, "decay_at", tuple(self.decay_at))  # settings on record are lists
        super().__post_init__()
        if self.dual and self.optimizer != "adamw":
            raise InputError("DualOptim's SCRUB has two AdamW; leave optimizer out, or dual.")

    def batch_sizes(self) -> dict[str, int]:
        """Forget steps may have a size of their own."""
        sizes = super().batch_sizes()
        return sizes if self.forget_batch is None else {**sizes, FORGET: self.forget_batch}

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
        elif self.optimizer == "sgd":
            optimizer = Shared(sgd(self.retain_lr), self.lr)
        else:
            optimizer = Shared(Member("adamw", self.retain_lr, weight_decay=FORGET_DECAY), given(self.lr, 1e-4))
        return Descend(
            Distilled(self.alpha, self.gamma, self.temperature, self.teacher),
            Passes(self.epochs, forget_until=self.msteps),
            optimizer,
            milestones=self.decay_at,
        )

    def descend(self, context: Context, work: Work) -> Descended:
        """With SCRUB+R every epoch is kept until the last one has said what error to aim at."""
        if not self.rewind:
            return super().descend(context, work)
        return self.rewound(self.composition(context), work, context.journal, context.watch)

    def rewound(self, method: Descend, work: Work, journal: Once, watch: Watch = silent) -> Descended:
        """The run of ``method``, ended with the epoch that its last one chooses."""
        seen = Epochs({})
        watched = replace(method, objective=Remembering(method.objective, seen.kept), guard=Guard(seen, keep=False))
        done = watched.run(work, journal, watch)
        return replace(done, tensors=seen.best(done.tensors))


@dataclass(frozen=True)
class Epochs:
    """The model after each epoch, with its errors on forgotten and held-out rows: a guard that looks and chooses nothing.

    Attributes:
        kept: ``look/name`` → tensor, and ``looks`` (n, 2); stored with the run.
    """

    kept: dict[str, Tensor]

    def __call__(self, work: Work) -> float:
        """Look, keep, and give minus the distance between both errors."""
        errors = [_error(work, work.deletion.forget), _error(work, work.deletion.probes["validation"])]
        number = len(self.kept["looks"]) if "looks" in self.kept else 0
        if number:  # the first look is before the first step
            state = work.model.state_dict().items()
            self.kept.update({f"{number}/{name}": tensor.detach().clone() for name, tensor in state})
        remember(self.kept, errors)
        return -abs(errors[0] - errors[1])

    def best(self, last: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model of the epoch whose forget error is closest to the last one's error on held-out rows; the first such."""
        forget, held_out = self.kept["looks"].T
        number = int((forget[1:] - held_out[-1]).abs().argmin()) + 1
        return {name: self.kept[f"{number}/{name}"].to(tensor) for name, tensor in last.items()}


def _error(work: Work, rows) -> float:
    batch = work.task.batch(rows)
    with torch.no_grad(), evaluating(work.model):
        logits = in_passes(lambda part: work.task.outputs(work.model, work.params, part).logits, batch, ACTIVATIONS)
    return int((logits.argmax(-1) != batch["y"]).sum()) / len(rows)
