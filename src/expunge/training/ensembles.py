"""Two loops that train an ensemble, each member from its own seed on its own part of the rows: one by one, and stacked.

Member r starts from ``task.build(seed=seeds[r])`` and trains on the rows where ``membership[r]`` holds. Both loops lead
to the same weights up to float rounding; ``training.shadow_models`` chooses between them.
"""

# torch._foreach_* is what torch.optim itself is built on.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.tasks.closed_forms import closed_form, laid_out
from expunge.tasks.passes import STACKED
from expunge.tasks.seeds import seed_global
from expunge.training.batches import epoch_order
from expunge.training.descent import MeanGradient, Step, descend, split, trainable

Watch = Callable[[str, int, int], Any]
Parts = Sequence[tuple[Any, Tensor]]  # chunks of one step, each with the weight of its rows for each model
Layout = Callable[[Mapping[str, Tensor]], Any]  # how a chunk's columns are handed to the gradient
STAGE = "models"


@dataclass(frozen=True)
class EnsembleSettings:
    """How every model of an ensemble is trained.

    Attributes:
        step: step size, regulariser, clipping; see :class:`~expunge.training.descent.Step`.
        steps, epochs: how long; exactly one of the two. A full batch makes an epoch one step.
        batch_size: rows per step in a seeded order over the reference's own rows; ``None`` for all of them.
        momentum: of velocities v <- momentum v + gradient; theta <- theta - lr v.
    """

    step: Step
    steps: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    momentum: float = 0.0

    def __post_init__(self):
        given = [count for count in (self.steps, self.epochs) if count is not None]
        if len(given) != 1 or given[0] < 1:
            raise InputError(
                f"Expected either steps or epochs, at least 1; got steps={self.steps}, epochs={self.epochs}."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"Expected batch_size of at least 1, or None for all rows; got {self.batch_size}.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"Expected momentum in [0, 1); got {self.momentum}.")

    def length(self, rows: int) -> int:
        """Steps that a reference with ``rows`` rows makes."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * (1 if self.batch_size is None else -(-rows // self.batch_size))

    def describe(self) -> dict[str, Any]:
        """JSON-like settings."""
        return asdict(self)


def checked_membership(membership: Any, rows: int, seeds: Sequence[int]) -> np.ndarray:
    """``membership`` as a boolean matrix (R, rows).

    Raises:
        InputError: if its shape does not fit rows and seeds, a member has no rows, or a seed is negative.
    """
    matrix = np.asarray(membership)
    if matrix.dtype != np.bool_ or matrix.shape != (len(seeds), rows) or not len(seeds):
        raise InputError(
            f"Expected a boolean membership matrix of {len(seeds)} seeds (at least one) by {rows} rows; "
            f"got {matrix.dtype} of shape {matrix.shape}."
        )
    if not matrix.any(1).all():
        raise InputError(f"Expected rows for every reference; reference {int((~matrix.any(1)).argmax())} has none.")
    if min(seeds) < 0:
        raise InputError(f"Expected seeds of 0 or more; got {min(seeds)}.")
    return matrix


def why_not_stackable(task: Task, rows: Any, settings: EnsembleSettings) -> str | None:
    """What keeps models of ``task`` from being stacked, in words; ``None`` where nothing does."""
    if settings.step.clip is not None:
        return "gradients clipped row by row are not stacked"
    model = task.build().train()
    if closed_form(task, model) is not None:
        return None
    moved, fixed = _stack([model, task.build()])
    before = {name: tensor.clone() for name, tensor in fixed.items()}
    batch = task.batch(rows)
    two, one = batch.take(slice(2)), batch.take(slice(1))
    try:
        together, alone = (
            vmap(lambda p, f, part=part: task.losses(model, {**p, **f}, part))(moved, fixed) for part in (two, one)
        )
        torch.autograd.grad(together.sum(), list(moved.values()))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return f"torch.func.vmap does not take this model: {str(error).splitlines()[0]}"
    if any(not torch.equal(tensor, before[name]) for name, tensor in fixed.items()):
        return "the model changes its buffers while training"
    if not torch.allclose(together[:, :1], alone, rtol=1e-3, atol=1e-5):
        return "the loss of a row depends on the other rows of its batch"
    return None


def train_one_by_one(
    task: Task,
    rows: Any,
    membership: np.ndarray,
    settings: EnsembleSettings,
    seeds: Sequence[int],
    *,
    watch: Watch | None = None,
) -> dict[str, Tensor]:
    """One reference after another; full batches without momentum go through :func:`~expunge.training.descent.descend`.

    Such a reference therefore equals a retraining with the same seed bit for bit. Shapes, guarantee and errors as
    ``train_shadow_models``.
    """
    membership = checked_membership(membership, len(rows), seeds)
    batch = task.batch(rows)
    done = []
    for members, seed in zip(membership, seeds, strict=True):
        done.append(_one(task, batch, np.flatnonzero(members), settings, int(seed)))
        if watch:
            watch(STAGE, len(done), len(seeds))
    return {name: torch.stack([tensors[name] for tensors in done]) for name in done[0]}


def _one(task: Task, batch: Batch, members: np.ndarray, settings: EnsembleSettings, seed: int) -> dict[str, Tensor]:
    model = task.build(seed=seed)
    length = settings.length(len(members))
    with torch.random.fork_rng(devices=[]):
        seed_global(seed, batch.device)  # random layers draw from the global state
        if settings.batch_size is None and not settings.momentum:
            own = batch.take(torch.from_numpy(members))
            return descend(task, model, model.state_dict(), own, settings.step, length)[0]
        moved, fixed = split(model.train(), model.state_dict())
        velocity: list[Tensor] | None = None
        mean = MeanGradient.of(task, model, fixed, settings.step)
        for index, _ in zip(_batches(members, settings.batch_size, seed), range(length), strict=False):
            gradient = list(mean.on(batch.take(torch.from_numpy(index)))(moved).values())
            velocity = _momentum(velocity, gradient, settings.momentum)
            torch._foreach_add_(list(moved.values()), velocity, alpha=-settings.step.lr)
    _check_finite(moved, settings, [seed])
    return {**moved, **fixed}


def _batches(members: np.ndarray, size: int | None, seed: int) -> Iterator[np.ndarray]:
    """Positions of the rows of each step, epoch after epoch without end; the last batch of an epoch may be smaller.

    The order is that of ``training.stochastic.run_epochs``: a reference is what a ``Stochastic`` recipe makes.
    """
    for epoch in itertools.count(1):
        if size is None:
            yield members
            continue
        order = members[epoch_order(len(members), seed, epoch).numpy()]
        for start in range(0, len(order), size):
            yield order[start : start + size]


def _momentum(velocity: list[Tensor] | None, gradient: list[Tensor], momentum: float) -> list[Tensor]:
    if velocity is None or not momentum:
        return gradient
    torch._foreach_mul_(velocity, momentum)
    torch._foreach_add_(velocity, gradient)
    return velocity


def train_stacked(
    task: Task,
    rows: Any,
    membership: np.ndarray,
    settings: EnsembleSettings,
    seeds: Sequence[int],
    *,
    watch: Watch | None = None,
) -> dict[str, Tensor]:
    """All models at once: equal to :func:`train_one_by_one` up to float rounding.

    Full batches share the rows and give each reference its own row weights; mini-batches are gathered, each reference
    in its own order. A reference that has fewer steps than others rests once it is done. Shapes and guarantee as
    ``train_shadow_models``.

    Raises:
        InputError: where the model or the settings cannot be stacked, with the reason.
    """
    membership = checked_membership(membership, len(rows), seeds)
    reason = why_not_stackable(task, rows, settings)
    if reason:
        raise InputError(f"Expected models that can be stacked; {reason}. Use train_one_by_one.")
    batch = task.batch(rows)
    models = [task.build(seed=int(seed)).train() for seed in seeds]
    moved, fixed = _stack(models)
    weights = list(moved.values())
    form = closed_form(task, models[0])
    layout = laid_out if form else dict
    if form:
        batch = form.projected(batch)
    losses = vmap(
        lambda p, f, columns: task.losses(models[0], {**p, **f}, Batch(columns, batch.shared)),
        in_dims=(0, 0, None if settings.batch_size is None else 0),
    )

    def gradient_of(examples: Any, share: Tensor) -> list[Tensor]:
        if form:
            with torch.no_grad():
                found = form.gradient({**moved, **fixed}, moved.keys(), examples, share.unsqueeze(-2))
            return list(found.values())
        loss = (losses(moved, fixed, examples) * share).sum()  # models do not mix: each gets its own gradient
        return list(torch.autograd.grad(loss, weights))

    lengths = np.array([settings.length(int(members.sum())) for members in membership])
    total = int(lengths.max())
    device = weights[0].device
    dtype = weights[0].dtype
    parts: Iterator[Parts]
    if settings.batch_size is None:
        parts = _shared(batch, membership, layout, device, dtype)
    else:
        parts = _gathered(batch, membership, settings.batch_size, seeds, layout, device, dtype)
    velocity: list[Tensor] | None = None
    stride = max(1, total // 100)
    for done, step_parts in zip(range(1, total + 1), parts, strict=False):
        gradient: list[Tensor] | None = None
        for examples, share in step_parts:
            new = gradient_of(examples, share)
            gradient = new if gradient is None else list(torch._foreach_add(gradient, new))
        assert gradient is not None
        with torch.no_grad():
            if settings.step.l2:
                torch._foreach_add_(gradient, weights, alpha=settings.step.l2)
            velocity = _momentum(velocity, gradient, settings.momentum)
            change = velocity
            if done > lengths.min():
                active = torch.from_numpy(lengths >= done).to(device, dtype)
                change = [v * active.view(-1, *[1] * (v.ndim - 1)) for v in velocity]
            torch._foreach_add_(weights, change, alpha=-settings.step.lr)
        if watch and (done % stride == 0 or done == total):
            watch(STAGE, done, total)
    result = {name: tensor.detach() for name, tensor in {**moved, **fixed}.items() if name in models[0].state_dict()}
    _check_finite(result, settings, seeds)
    return result


def _stack(models: list[nn.Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Stacked tensors as (trainable leaves, everything else), in the order of the modules."""
    params, buffers = stack_module_state(models)
    names = set(trainable(models[0]))
    moved = {name: tensor.detach().clone().requires_grad_() for name, tensor in params.items() if name in names}
    fixed = {name: tensor.detach() for name, tensor in {**params, **buffers}.items() if name not in names}
    return moved, fixed


def _shared(
    batch: Batch, membership: np.ndarray, layout: Layout, device: torch.device, dtype: torch.dtype
) -> Iterator[Parts]:
    """The same chunks of rows at every step, with each reference's weights (R, rows); rows nobody uses are left out."""
    used = torch.from_numpy(np.flatnonzero(membership.any(0)))
    share = torch.from_numpy(membership / membership.sum(1, keepdims=True)).to(device, dtype)[:, used.to(device)]
    size = max(1, STACKED // len(membership))
    chunks = batch.take(used).parts(size)
    parts = [(layout(chunk.tensors()), weights) for chunk, weights in zip(chunks, share.split(size, 1), strict=True)]
    while True:
        yield parts


def _gathered(
    batch: Batch, membership: np.ndarray, size: int, seeds: Sequence[int], layout: Layout, device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Parts]:  # fmt: skip
    """Each reference's next batch, (R, size, ...); a smaller one is filled up with rows of weight 0."""
    own = [np.flatnonzero(members) for members in membership]
    orders = [_batches(members, size, int(seed)) for members, seed in zip(own, seeds, strict=True)]
    width = min(size, max(len(members) for members in own))
    while True:
        index = np.zeros((len(own), width), dtype=np.int64)
        share = np.zeros((len(own), width))
        for r, order in enumerate(orders):
            rows = next(order)
            index[r, : len(rows)] = rows
            index[r, len(rows) :] = rows[0]
            share[r, : len(rows)] = 1 / len(rows)
        drawn = batch.take(torch.from_numpy(index.ravel()))
        columns = {name: column.unflatten(0, index.shape) for name, column in drawn.tensors().items()}
        yield [(layout(columns), torch.from_numpy(share).to(device, dtype))]


def _check_finite(tensors: Mapping[str, Tensor], settings: EnsembleSettings, seeds: Sequence[int]) -> None:
    for name, tensor in tensors.items():
        fine = torch.isfinite(tensor)
        if not fine.all():
            at = 0 if len(seeds) == 1 else int((~fine).flatten(1).any(1).nonzero()[0])
            raise InputError(
                f"The reference with seed {seeds[at]} diverged: {name} is not finite. "
                f"Take a smaller step size than lr={settings.step.lr}."
            )
