"""Full-batch gradient descent: the one loop that training, rewinding and retraining share, step for step.

Equal start, rows, step size and number of steps give equal bits on one machine with one number of threads: that is what
makes ``K = T`` the retrained model itself, and a replay a proof of what was run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.tasks.closed_forms import ClosedForm, closed_form
from expunge.tasks.passes import EXAMPLE_GRADIENTS, MEAN_GRADIENT


@dataclass(frozen=True)
class Step:
    """What one descent step minimises and how far it goes.

    Attributes:
        lr: step size eta, constant.
        l2: lambda of the regulariser (lambda / 2) ||theta||² inside the loss, over trainable weights.
        clip: C, the norm to which each row's gradient is clipped before the mean; ``None`` for no clipping.
    """

    lr: float
    l2: float = 0.0
    clip: float | None = None

    def __post_init__(self):
        if not self.lr > 0:
            raise InputError(f"Expected a step size lr > 0; got {self.lr}.")
        if self.l2 < 0:
            raise InputError(f"Expected l2 >= 0; got {self.l2}.")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"Expected a clipping norm > 0 (or none at all); got {self.clip}.")


def trainable(model: nn.Module) -> tuple[str, ...]:
    """Names of the tensors that training moves and noise must cover."""
    return tuple(name for name, tensor in model.named_parameters() if tensor.requires_grad)


def split(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """``tensors`` as (trainable, everything else), cloned.

    Raises:
        InputError: for a module with tied weights.
    """
    names = set(trainable(model))
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)} - {
        name for name, _ in model.named_parameters()
    }
    if aliases:
        raise InputError(
            f"Expected weights of their own under each name; {', '.join(sorted(aliases))} share(s) another's. Tied weights "
            "are not served by full-batch descent: untie them."
        )
    moved = {name: tensor.detach().clone() for name, tensor in tensors.items() if name in names}
    fixed = {name: tensor.detach().clone() for name, tensor in tensors.items() if name not in names}
    return moved, fixed


@dataclass(frozen=True)
class MeanGradient:
    """Gradient of the mean loss over all rows of a batch plus the regulariser, chunked over rows.

    By the closed form where the network has one (``tasks.closed_forms``), with what no step changes computed once for a batch;
    otherwise by autograd.

    Formal guarantee: with ``step.clip`` each row contributes a gradient of norm at most C before the mean, so
    replacing or removing m of n rows moves the mean by at most 2 m C / n (derived here; see ``privacy.sensitivity``).

    Attributes:
        fixed: tensors of the model that do not move.
        form: decided once, because a network does not change its kind between two steps.
    """

    task: Task
    model: nn.Module
    fixed: Mapping[str, Tensor]
    step: Step
    form: ClosedForm | None

    @classmethod
    def of(cls, task: Task, model: nn.Module, fixed: Mapping[str, Tensor], step: Step) -> MeanGradient:
        """The gradient of ``model``'s loss under ``task``."""
        return cls(task, model, fixed, step, closed_form(task, model))

    def on(self, batch: Batch) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
        """The gradient on ``batch`` as a function of the moved weights."""
        form, step = self.form, self.step
        if form is None:
            return lambda moved: differentiated(self.task, self.model, moved, self.fixed, batch, step)
        parts = [form.examples(part) for part in batch.parts(MEAN_GRADIENT)]
        shares = [part.features.new_full((1, len(part)), 1 / len(batch)) for part in parts]

        @torch.no_grad()
        def gradient(moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
            params, total = {**moved, **self.fixed}, None
            for part, share in zip(parts, shares, strict=True):
                found = form.gradient(params, moved.keys(), part, share, step.clip)
                total = found if total is None else {name: total[name].add_(found[name]) for name in moved}
            assert total is not None
            return {name: total[name].add_(moved[name], alpha=step.l2) for name in moved} if step.l2 else total

        return gradient


def differentiated(
    task: Task, model: nn.Module, moved: Mapping[str, Tensor], fixed: Mapping[str, Tensor], batch: Batch, step: Step
) -> dict[str, Tensor]:
    """The same gradient by autograd: of any network."""
    rows = len(batch)
    if step.clip is not None:
        total = _clipped_sum(task, model, moved, fixed, batch, step.clip)
        return {name: total[name] / rows + step.l2 * moved[name] for name in moved}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in moved.items()}
    names = list(leaves)
    sums: list[Tensor] | None = None
    for part in batch.parts(MEAN_GRADIENT):
        losses = task.losses(model, {**leaves, **fixed}, part)
        found = torch.autograd.grad(losses.sum() / rows, [leaves[name] for name in names], materialize_grads=True)
        sums = list(found) if sums is None else [a.add_(b) for a, b in zip(sums, found, strict=True)]
    assert sums is not None
    if step.l2:
        for name, total in zip(names, sums, strict=True):
            total.add_(moved[name], alpha=step.l2)
    return dict(zip(names, sums, strict=True))


def row_gradients(
    task: Task, model: nn.Module, moved: Mapping[str, Tensor], fixed: Mapping[str, Tensor], batch: Batch
) -> dict[str, Tensor]:
    """Gradient of each row's loss: name → (rows, *shape). Without the regulariser, which no row changes."""

    def one(params: dict[str, Tensor], row: dict[str, Tensor]) -> Tensor:
        single = Batch({name: entry.unsqueeze(0) for name, entry in row.items()}, batch.shared)
        return task.losses(model, {**params, **fixed}, single)[0]

    return vmap(grad(one), in_dims=(None, 0))(dict(moved), batch.tensors())  # type: ignore[return-value]


def _clipped_sum(
    task: Task, model: nn.Module, moved: Mapping[str, Tensor], fixed: Mapping[str, Tensor], batch: Batch, clip: float
) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(tensor) for name, tensor in moved.items()}
    for part in batch.parts(EXAMPLE_GRADIENTS):
        each = row_gradients(task, model, moved, fixed, part)
        norms = torch.stack([g.flatten(1).square().sum(1) for g in each.values()]).sum(0).sqrt()  # (rows,)
        scale = (clip / norms.clamp_min(clip)).to(norms.dtype)
        for name, gradients in each.items():
            total[name] += torch.tensordot(scale, gradients, dims=1)
    return total


def descend(
    task: Task,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    batch: Batch,
    step: Step,
    steps: int,
    *,
    keep: Collection[int] = (),
    watch: Any = None,
    stage: str = "descent",
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """``steps`` times ``theta <- theta - lr * gradient`` on all rows of ``batch`` (R2D Algorithms 1 and 2, steps 1-2).

    Returns:
        The last iterate, and the iterates after the step counts in ``keep`` (0 is the start).

    Raises:
        InputError: if a weight stops being finite, naming the step.
    """
    model.train()
    moved, fixed = split(model, tensors)
    kept: dict[int, dict[str, Tensor]] = {}
    stride = max(1, steps // 100)

    def snapshot() -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in {**moved, **fixed}.items()}

    if 0 in keep:
        kept[0] = snapshot()
    gradient = MeanGradient.of(task, model, fixed, step).on(batch)
    for done in range(1, steps + 1):
        change = gradient(moved)
        with torch.no_grad():
            for name, tensor in change.items():
                moved[name].add_(tensor, alpha=-step.lr)
        if done in keep:
            kept[done] = snapshot()
        if done % stride == 0 or done == steps:
            if not all(torch.isfinite(tensor).all() for tensor in moved.values()):
                raise InputError(
                    f"Descent diverged: a weight was not finite at step {done} of {steps}. "
                    f"Take a smaller step size than lr={step.lr}, or check the inputs."
                )
            if watch:
                watch(stage, done, steps)
    return snapshot(), kept
