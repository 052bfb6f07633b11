"""Which weights a method may move, and how firmly the others are held.

A mask on gradients alone does not hold a weight: decay and momentum move it all the same. So a
strict mask also puts masked weights back after each step. ``strict=False`` is the published behaviour of methods that
only mask gradients.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import with_features
from expunge.descent.schedule import FORGET, JOINT, MIXED, RETAIN
from expunge.descent.work import Work
from expunge.tasks.half_precision import is_half
from expunge.tasks.passes import evaluating
from expunge.training.descent import trainable

Masks = Mapping[str, Tensor]  # name → bool, True where a weight may move


@dataclass(frozen=True)
class Selection:
    """What may move.

    Attributes:
        names: tensors that get gradients; the rest of the model is frozen.
        masks: role → name → bool tensor; a role without an entry is not masked.
        strict: whether masked weights are put back after the step of a masked role.
        gradient_evaluations: per-row gradients spent on choosing.
    """

    names: tuple[str, ...]
    masks: Mapping[str, Masks] = field(default_factory=dict)
    strict: bool = True
    gradient_evaluations: int = 0


class Parameters(Protocol):
    """A choice of weights."""

    def select(self, work: Work) -> Selection:
        """Look at the model and the rows, and choose."""
        ...


def _all(work: Work) -> tuple[str, ...]:
    names = trainable(work.model)
    if not names:
        raise InputError("The model has no trainable weight: it is frozen. Set requires_grad on what may change.")
    return names


@dataclass(frozen=True)
class All:
    """Every trainable weight."""

    def select(self, work: Work) -> Selection:
        """All names, no mask."""
        return Selection(_all(work))


@dataclass(frozen=True)
class Modules:
    """Only tensors whose name fits one of ``patterns`` (shell style, ``encoder.*``); ``!pattern`` leaves out."""

    patterns: tuple[str, ...]

    def select(self, work: Work) -> Selection:
        """The names that fit.

        Raises:
            InputError: if none does.
        """
        wanted = [p for p in self.patterns if not p.startswith("!")] or ["*"]
        left_out = [p[1:] for p in self.patterns if p.startswith("!")]
        names = tuple(
            name
            for name in _all(work)
            if any(fnmatch.fnmatchcase(name, p) for p in wanted)
            and not any(fnmatch.fnmatchcase(name, p) for p in left_out)
        )
        if not names:
            raise InputError(
                f"No trainable tensor fits {', '.join(self.patterns)}; the model has {', '.join(_all(work)[:6])}, …"
            )
        return Selection(names)


@dataclass(frozen=True)
class Saliency:
    """The ``density`` of weights with the largest saliency, globally over all weights. The mask acts on every role.

    Signed gradients are summed over batches first and the absolute value is taken last, in evaluation mode (Fan et al., ICLR
    2024, arXiv 2310.12508, released code).

    Attributes:
        of: ``forget``: SalUn's saliency, |sum of the forget loss's gradients|; ``difference``: that of DualOptim's code
            (arXiv 2504.15827), |mean forget gradient| - |mean retain gradient|.
        augmented: whether gradients are those of augmented views, as in that code, where a run has them.
        density: share of weights that may move; 0.5 in the paper.
        batch_size: forget rows per batch: batch means are summed, so the last, smaller batch counts a little more.
        strict: put masked weights back after each step (the authors do since February 2026; their earlier code did not).
    """

    density: float = 0.5
    batch_size: int = 128
    strict: bool = True
    of: str = "forget"
    augmented: bool = False

    def __post_init__(self):
        if self.of not in ("forget", "difference"):
            raise InputError(f"Expected a saliency of forget or difference; got {self.of!r}.")
        if not 0 < self.density <= 1:
            raise InputError(f"Expected a density above 0 and at most 1; got {self.density}.")

    def select(self, work: Work) -> Selection:
        """The mask, from one pass over the forgotten rows, and over the retained ones where it is of the difference."""
        names, rows = _all(work), [work.deletion.forget]
        if self.of == "difference":
            rows.append(work.deletion.after)
        batches = [work.task.batch(each) for each in rows]
        sizes = [-(-len(batch) // self.batch_size) for batch in batches]
        sums = [gradient_sums(work, names, batch, self.batch_size, 1, augmented=self.augmented) for batch in batches]
        scores = {name: tensor.abs() / sizes[0] for name, tensor in sums[0].items()}
        for total, count in zip(sums[1:], sizes[1:], strict=True):
            scores = {name: score - total[name].abs() / count for name, score in scores.items()}
        masks = largest_share(scores, self.density)
        roles: dict[str, Masks] = {role: masks for role in (FORGET, RETAIN, JOINT, MIXED)}
        return Selection(names, roles, self.strict, sum(map(len, batches)))


@dataclass(frozen=True)
class FisherRatio:
    """SFRon's mask: forget gradients pass where the forget Fisher is at least ``gamma`` times the retain Fisher.

    Diagonal Fisher as the mean over batches of squared batch gradients of the loss, in evaluation mode and with the method's
    own batch size, as in the released code (arXiv 2409.19732). A gradient mask on forget steps only, as published.

    Attributes:
        augmented: as for :class:`Saliency`.
    """

    gamma: float = 1.0
    batch_size: int = 128
    augmented: bool = False

    def select(self, work: Work) -> Selection:
        """The mask, from one pass over forgotten and retained rows each."""
        names = _all(work)
        forget, retain = (work.task.batch(rows) for rows in (work.deletion.forget, work.deletion.after))
        of_forget, of_retain = (
            mean_squares(work, names, batch, self.batch_size, augmented=self.augmented) for batch in (forget, retain)
        )
        masks = {name: of_forget[name] >= self.gamma * of_retain[name] for name in names}
        return Selection(names, {FORGET: masks}, strict=False, gradient_evaluations=len(forget) + len(retain))


def gradient_sums(
    work: Work, names: tuple[str, ...], batch: Batch, batch_size: int, power: int, losses: str = "task",
    augmented: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """Sum over batches of the mean loss's gradient to ``power`` 1 or 2, in evaluation mode.

    Args:
        augmented: of random views of the inputs, where the run has them.

    The mode of the model is put back, and running statistics stay as they are.

    Shapes:
        name → the parameter's; in single precision where the parameter is in half precision.
    """
    model, params = work.model, dict(work.model.named_parameters())
    leaves = [params[name] for name in names]
    total = [torch.zeros_like(leaf, dtype=torch.float32 if is_half(leaf) else None) for leaf in leaves]
    with evaluating(model):
        for number, part in enumerate(batch.parts(batch_size)):
            if augmented and work.augment is not None:
                part = part.with_columns(x=work.augment(part["x"], work.draw("augment-mask", number)))
            if losses == "task":
                loss = work.task.losses(model, params, part).mean()
            else:  # SSD's loss-free variant: the squared length of the outputs
                loss = work.task.outputs(model, params, part).logits.square().sum(1).mean()
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_.add_(gradient if power == 1 else gradient.to(sum_).square_())
    return dict(zip(names, total, strict=True))


def mean_squares(
    work: Work, names: tuple[str, ...], batch: Batch, batch_size: int, losses: str = "task", augmented: bool = False
) -> dict[str, Tensor]:
    """Mean over batches of the squared gradient of the batch's mean loss: the diagonal Fisher as SSD and SFRon take it."""
    count = -(-len(batch) // batch_size)
    sums = gradient_sums(work, names, batch, batch_size, 2, losses, augmented)
    return {name: total / count for name, total in sums.items()}


def largest_share(scores: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """True for the ``density`` of all entries with the largest scores: exactly floor(density × all), ties by position."""
    flat = torch.cat([tensor.reshape(-1) for tensor in scores.values()])
    chosen = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    order = torch.sort(flat, descending=True, stable=True).indices  # topk breaks ties as it likes
    chosen[order[: int(density * len(flat))]] = True
    parts = chosen.split([tensor.numel() for tensor in scores.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(scores.items(), parts, strict=True)}


@dataclass(frozen=True)
class Encoder:
    """Everything but the classifier head (ManiF-SMC): the head stays as it is, bit for bit."""

    def select(self, work: Work) -> Selection:
        """All names outside the task's head."""
        head = with_features(work.task).head_of(work.model)
        names = tuple(name for name in _all(work) if not name.startswith(f"{head}."))
        if not names:
            raise InputError(f"The model is nothing but its head {head!r}: there is no representation to change.")
        return Selection(names)
