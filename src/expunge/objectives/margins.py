"""How far from its neighbours each erased row should come to lie: ManiF-SMC's margins.

The margin of an erased row and a neighbour is the gap between their distances to the neighbours' centre, measured on a
surrogate that is meant to look like the local manifold after forgetting: the middle of a curve from the model being
changed to the original, whose bend alone is trained, on the neighbours alone. The equations of the paper (arXiv 2605.22871)
were not readable to us: this is our reconstruction from its abstract, its rebuttals and its released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import HasFeatures
from expunge.tasks.passes import ACTIVATIONS, evaluating, in_passes
from expunge.training.connectivity import Bezier, refreshed_statistics
from expunge.training.descent import trainable
from expunge.training.optimizers import Adam

DISTANCES = ("sq_l2", "l2", "cosine")
LARGEST = {"sq_l2": 4.0, "l2": 2.0, "cosine": 2.0}  # between unit vectors: no margin above it can be met


def distance(first: Tensor, second: Tensor, kind: str = "sq_l2") -> Tensor:
    """Distance of unit vectors along the last axis: squared Euclidean, Euclidean or 1 - cosine."""
    squared = (first - second).square().sum(-1)
    if kind == "sq_l2":
        return squared
    return squared / 2 if kind == "cosine" else squared.clamp_min(1e-12).sqrt()


def represented(task: HasFeatures, model: nn.Module, tensors: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Unit representations of all rows under ``tensors``, in evaluation mode and without gradients, (rows, d)."""
    with torch.no_grad(), evaluating(model):
        return in_passes(lambda part: _directions(task, model, tensors, part), batch, ACTIVATIONS)


def _directions(task: HasFeatures, model: nn.Module, tensors: Mapping[str, Tensor], batch: Batch) -> Tensor:
    return normalize(task.features(model, tensors, batch).flatten(1), dim=1)


@dataclass(frozen=True)
class Neighbourhood:
    """Each erased row's nearest retained rows under the original model.

    Shapes:
        near: (erased, k) positions in ``pool``, nearest first; rows: positions of the pool in the retained rows.
        pool: batch of the distinct neighbours; old_pool, old_erased: their unit representations under the original model.
        centre: (erased, d) unit vectors, the means of the neighbours' representations.
    """

    near: Tensor
    rows: Tensor
    pool: Batch
    old_pool: Tensor
    old_erased: Tensor

    @property
    def centre(self) -> Tensor:
        """Where the neighbours are."""
        return centre_of(self.old_pool, self.near)


def centre_of(pool: Tensor, near: Tensor) -> Tensor:
    """Normalised mean of each row's neighbours, (erased, d)."""
    return normalize(pool[near].mean(1), dim=1)


def neighbourhood(
    task: HasFeatures, model: nn.Module, base: Mapping[str, Tensor], erased: Batch, retained: Batch, k: int
) -> Neighbourhood:
    """The ``k`` retained rows of highest cosine similarity to each erased row. Labels are not read.

    Raises:
        InputError: if fewer than ``k`` rows are retained.
    """
    if k < 1 or len(retained) < k:
        raise InputError(
            f"Expected between 1 and {len(retained)} neighbours, the number of retained rows; got k={k}. Take a smaller k."
        )
    old_erased, old_retained = (represented(task, model, base, batch) for batch in (erased, retained))
    nearest = torch.cat([(part @ old_retained.T).topk(k, 1).indices for part in old_erased.split(ACTIVATIONS)])
    rows, near = torch.unique(nearest, return_inverse=True)
    return Neighbourhood(near, rows, retained.take(rows), old_retained[rows], old_erased)


def gaps(pool: Tensor, erased: Tensor, near: Tensor, kind: str = "sq_l2") -> Tensor:
    """Margins on given representations: ``max(0, d(erased, centre) - d(neighbour, centre))``, at most the largest distance.

    Shapes:
        (pool, d), (erased, d), (erased, k) → (erased, k)
    """
    centre = centre_of(pool, near)[:, None]
    gap = distance(erased[:, None], centre, kind) - distance(pool[near], centre, kind)
    return gap.clamp(0, LARGEST[kind])


@dataclass(frozen=True)
class SelfModeConnectivity:
    """Margins on the middle of a trained curve.

    Attributes:
        steps, lr: of Adam on the bend: 300 and 1e-2 for small networks, 1e-3 for large ones (our choice; the paper's
            are UNKNOWN).
        loss: ``rep`` keeps the neighbours' representations and reads no label; ``ce`` keeps their labels.
        start: the bend begins at a ``fresh`` initialisation, as in the paper, or at the ``original`` model. There ``rep``
            has nothing to do while the model is still the original: the curve is a point, and margins are present gaps.
        t: place on the curve; 0.5, "fixed" in the paper.
        batch_size: neighbours per step.
    """

    steps: int = 300
    lr: float = 1e-2
    loss: str = "rep"
    start: str = "fresh"
    t: float = 0.5
    batch_size: int = 128

    def __post_init__(self):
        if self.steps < 0 or not self.lr > 0:
            raise InputError(f"Expected curve steps >= 0 at a rate above 0; got {self.steps} at {self.lr}.")

    def surrogate(
        self, task: HasFeatures, model: nn.Module, now: Mapping[str, Tensor], base: Mapping[str, Tensor], around: Neighbourhood,
        generator: torch.Generator, seed: int,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The trained middle of the curve from ``now`` to ``base``, with statistics of its own."""
        now = {name: tensor.detach().clone() for name, tensor in now.items()}
        origin = base if self.start == "original" else task.build(seed=seed).state_dict()
        moving = {name: origin[name].detach().clone().requires_grad_() for name in trainable(model)}
        curve = Bezier(now, {**base, **moving}, base)
        optimizer = Adam(moving.values(), self.lr)
        rows = len(around.pool)
        mode = model.training
        model.train()
        # statistics that the passes below move are copies
        buffers = {name: now[name].clone() for name, _ in model.named_buffers()}
        for _ in range(self.steps):
            index = torch.randint(rows, (min(self.batch_size, rows),), generator=generator)
            part = around.pool.take(index)
            middle = {**curve.at(self.t), **buffers}
            if self.loss == "ce":
                objective = cross_entropy(task.outputs(model, middle, part).logits, part["y"])
            else:
                z = _directions(task, model, middle, part)
                objective = distance(z, around.old_pool[index.to(z.device)]).mean()
            leaves = list(moving.values())
            for leaf, gradient in zip(leaves, torch.autograd.grad(objective, leaves, allow_unused=True), strict=True):
                leaf.grad = gradient
            optimizer.step()
        model.train(mode)
        done = {name: tensor.detach() for name, tensor in curve.at(self.t).items()}
        return refreshed_statistics(task, model, done, around.pool, self.batch_size)
