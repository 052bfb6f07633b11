"""What all methods that are a :class:`~expunge.descent.descend.Descend` share: checking, running, and telling what was done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from expunge.core.allowed import UNRECORDED_IF_NONE, Count, must_be_allowed
from expunge.core.method import (
    Capabilities,
    Configurations,
    Context,
    Estimate,
    Paper,
    Ranges,
    Refusal,
    SmallScale,
    Unlearned,
)  # fmt: skip
from expunge.core.trained import Artifact
from expunge.descent.descend import Descend, Descended
from expunge.descent.keeping import Criterion, cannot_keep, guard_of
from expunge.descent.members import Member
from expunge.descent.optimizer import FORGET_DECAY, MOMENTUM, RETAIN_DECAY, Dual, Optimizers, Shared
from expunge.descent.schedule import FORGET, JOINT, MIXED, RETAIN
from expunge.descent.work import Work
from expunge.training.descent import trainable


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What every gradient method can be asked besides its paper's settings.

    Attributes:
        keep_best: end with the best of some twenty states of the run instead of the last one, by a criterion of
            :data:`expunge.descent.keeping.CRITERIA`; ``None``: the last one, as in the papers. On record where it is set.
    """

    keep_best: Criterion | None = field(default=None, metadata={UNRECORDED_IF_NONE: True})


class GradientMethod(Keeping, ABC):
    """A method whose whole content is :meth:`composition`; subclasses are frozen dataclasses with the paper's symbols.

    Formal guarantee: none. Nothing here bounds what the weights still hold.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    papers: ClassVar[tuple[Paper, ...]]
    # those of careful comparisons (CoUn, arXiv 2509.16391, and what SalUn's authors advise); where none is known, a decade or
    # two around the published value
    ranges: ClassVar[Ranges] = {}
    dual_ranges: ClassVar[Ranges] = {"lr": (1e-5, 1e-2)}  # under DualOptim, of the forget steps' adaptive optimizer
    configurations: ClassVar[Configurations] = {}
    small: ClassVar[SmallScale] = SmallScale(quick={"epochs": 1, "batch_size": 16}, visible={"batch_size": 8})
    batch_size: Count
    __post_init__ = must_be_allowed

    @abstractmethod
    def composition(self, context: Context) -> Descend:
        """The method as objective, schedule, parameters and optimizer."""

    def batch_sizes(self) -> dict[str, int]:
        """Rows per batch of each stream."""
        return dict.fromkeys((FORGET, RETAIN, MIXED), self.batch_size)

    def views(self, context: Context) -> Any:
        """How inputs are redrawn at each step; ``None``: they are fixed."""
        return augmentation(context)

    def preparing(self, forget: int, retain: int) -> int:
        """How many gradients are computed beside the steps, at most: masks, curves. Of so many forgotten and retained rows."""
        return 0

    def descend(self, context: Context, work: Work) -> Descended:
        """The run."""
        return self.kept_best(self.composition(context), work).run(work, context.journal, context.watch)

    def kept_best(self, method: Descend, work: Work) -> Descend:
        """``method``, which keeps its best state where that is asked for."""
        if self.keep_best is None:
            return method
        forget, after = (0 if rows is None else len(rows) for rows in (work.deletion.forget, work.deletion.after))
        sizes = {FORGET: forget, RETAIN: after, MIXED: forget + after}
        return replace(method, guard=guard_of(self.keep_best, method.schedule.length(sizes, work.batch_size)))

    def cannot_keep(self, context: Context) -> Refusal | None:
        """A refusal where the best state is asked for and cannot be told, or is chosen by a rule of the method's own."""
        if self.keep_best is None:
            return None
        if own := [name for name in ("guard", "rewind", "look_every") if getattr(self, name, None)]:
            return Refusal(
                f"{self.name} looks at its run by a rule of its own ({own[0]}).", "Leave that out, or keep_best."
            )
        return cannot_keep(self.keep_best, context)

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses a frozen model, and a request that takes a class away by the way. An estimate from above."""
        if not trainable(context.task.build()):
            return Refusal(
                "The model has no trainable weight: it is frozen.", "Set requires_grad on the weights that may change."
            )
        if (refusal := _class_lost(context)) is not None:
            return refusal
        if (refusal := self.cannot_keep(context)) is not None:
            return refusal
        schedule, batches = self.composition(context).schedule, self.batch_sizes()
        forget, after = (0 if rows is None else len(rows) for rows in (context.deletion.forget, context.deletion.after))
        if not forget and schedule.roles & {FORGET, JOINT, MIXED}:
            return Refusal(
                f"{self.name} learns from forgotten examples, and the request names none: nothing that it names has a label "
                "that was trained on.",
                "Use a method that needs no forgotten example: retrain, fine_tune.",
            )
        sizes = {FORGET: forget, RETAIN: after, MIXED: forget + after}
        rows = {role: min(batches[role], size) for role, size in sizes.items()}
        rows[JOINT] = rows[FORGET] + rows[RETAIN]
        steps = schedule.length(sizes, batches) * max(rows[role] for role in schedule.roles)
        return Estimate(steps + self.preparing(forget, after))

    def run(self, context: Context) -> Unlearned:
        """Descend from the model as it was released: from secret un-noised weights nothing here would hide them."""
        model = context.task.build(context.trained.artifact.tensors)
        work = Work(
            context.task, model, {name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
            context.deletion, self.batch_sizes(), context.generator_seed, self.views(context),
        )  # fmt: skip
        done = self.descend(context, work)
        names = context.trained.artifact.tensors  # tied weights are released once, as they were
        kept = self.told_of_kept(done)
        return told(context, done, Artifact(on_cpu({name: done.tensors[name] for name in names})), **kept)

    def told_of_kept(self, done: Descended) -> dict[str, Any]:
        """Which state was kept, and by which criterion; empty where the last one counts."""
        if self.keep_best is None:
            return {}
        step, score = max(done.scores[1:], key=lambda seen: seen[1])
        return {"kept": {"criterion": self.keep_best, "step": step, "of": sum(done.steps.values()), "score": score}}


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as they are released."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def told(context: Context, done: Descended, artifact: Artifact, **details: Any) -> Unlearned:
    """What a run hands back, and what it says about itself."""
    return Unlearned(
        views={"model": artifact},
        state=artifact.tensors,
        purged=("iterates of training, which hold the removed records",) if context.trained.trail else (),
        remains=("whatever the weights still hold of the removed records: this method bounds nothing",),
        gradient_evaluations=done.gradient_evaluations,
        details={
            "steps": dict(done.steps),
            "seconds": dict(done.seconds),
            "optimizer_bytes": done.state_bytes,
            "guard": [list(seen) for seen in done.scores],
            "stopped": done.stopped,
            **details,
        },
    )


def augmentation(context: Context) -> Any:
    """The random views that the model was trained with, which unlearning shows it too; ``None`` for fixed inputs."""
    if getattr(context.trained.recipe, "augment", "none") != "crop_flip":
        return None
    from expunge.data.augment import crop_flip

    return crop_flip


def _class_lost(context: Context) -> Refusal | None:
    """A refusal where rows of several classes go and one of these classes goes entirely: two requests in one."""
    forget, after = getattr(context.deletion.forget, "y", None), getattr(context.deletion.after, "y", None)
    if not isinstance(forget, torch.Tensor) or not isinstance(after, torch.Tensor):
        return None
    gone = sorted(set(forget.unique().tolist()) - set(after.unique().tolist()))
    if not gone or bool(torch.isin(forget, torch.tensor(gone, device=forget.device)).all()):
        return None
    return Refusal(
        f"The request takes away every row of class {', '.join(map(str, gone))} among rows of other classes: forgetting a "
        "class and forgetting rows of a class that stays are measured differently.",
        "File the class as a request of its own (kind class) and the other rows as another one.",
    )


def given(value: float | None, default: float) -> float:
    """``value``, or ``default`` for ``None``; a value of 0 is a value."""
    return default if value is None else value


def sgd(lr: float) -> Member:
    """SGD as in the image code of the SalUn family and DualOptim: momentum 0.9, coupled decay 5e-4.

    Args:
        lr: learning rate.
    """
    return Member("sgd", lr, momentum=MOMENTUM, weight_decay=RETAIN_DECAY)


def adam(lr: float) -> Member:
    """Adam without decay: what trained the DDPM of DualOptim (arXiv 2504.15827); that its decay is 0 is our reading.

    Args:
        lr: learning rate.
    """
    return Member("adam", lr)


def dual_adam(forget_lr: float, retain_lr: float) -> Dual:
    """DualOptim's pair for models that Adam trained, such as DDPM: two of them (the same)."""
    return Dual(adam(forget_lr), adam(retain_lr))


def by_trainer(optimizer: str, two: bool, forget_lr: float, retain_lr: float) -> Optimizers:
    """One optimizer or DualOptim's two, of the kind that trained the model.

    Args:
        optimizer: ``sgd`` or ``adam``.
        two: whether forget and retain steps have one each.
        forget_lr, retain_lr: learning rates.
    """
    if optimizer == "adam":
        return dual_adam(forget_lr, retain_lr) if two else Shared(adam(retain_lr), forget_lr)
    return dual(forget_lr, retain_lr) if two else Shared(sgd(retain_lr), forget_lr)


def dual(forget_lr: float, retain_lr: float, retain: str = "sgd") -> Dual:
    """DualOptim's pair: AdamW with decay 0.05 forgets; what trained the model retains (arXiv 2504.15827)."""
    keeper = sgd(retain_lr) if retain == "sgd" else Member(retain, retain_lr, weight_decay=FORGET_DECAY)
    return Dual(Member("adamw", forget_lr, weight_decay=FORGET_DECAY), keeper)
