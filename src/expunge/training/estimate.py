"""Sampled constants of a nonconvex loss: lower bounds on what a theorem needs, and recorded as no more than that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from expunge.core.task import Task
from expunge.core.trained import Fact, Origin
from expunge.curvature.hessian import spectral_norm
from expunge.data.rows import Rows
from expunge.tasks.passes import EXAMPLE_GRADIENTS
from expunge.training.descent import Step, row_gradients, split, trainable
from expunge.training.flat import flat_loss, flatten


def estimate_constants(
    task: Task, iterates: Iterable[Mapping[str, Tensor]], rows: Rows, step: Step, *, seed: int = 0
) -> dict[str, Fact]:
    """Largest row-gradient norm G and largest Hessian eigenvalue L seen at ``iterates``.

    Per-row norms and power iteration are sharper than the mini-batch norms and random probes of R2D's experiments (arXiv
    2409.09778), yet both stay lower bounds on suprema over all weights: any certificate that uses them is ``heuristic-noise``.

    Formal guarantee: none.
    """
    model = task.build()
    names = trainable(model)
    batch = task.batch(rows)
    generator = torch.Generator().manual_seed(seed)
    largest_gradient = largest_eigenvalue = 0.0
    for tensors in iterates:
        moved, fixed = split(model, tensors)
        for part in batch.parts(EXAMPLE_GRADIENTS):
            gradients = row_gradients(task, model, moved, fixed, part)
            squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0)
            largest_gradient = max(largest_gradient, float(squares.max().sqrt()))
        loss = flat_loss(task, model, tensors, batch, step.l2)
        largest_eigenvalue = max(largest_eigenvalue, spectral_norm(loss, flatten(tensors, names), generator))
    largest_gradient, largest_eigenvalue = _upwards(largest_gradient), _upwards(largest_eigenvalue)
    return {
        "gradient_bound": Fact(largest_gradient, Origin.ESTIMATED, "largest row gradient at stored iterates"),
        "smoothness": Fact(largest_eigenvalue, Origin.ESTIMATED, "power iteration at stored iterates"),
    }


def _upwards(value: float) -> float:
    """One significant digit, rounded up: sampled constants are published, and more digits would tell of the rows."""
    if not value > 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / unit * (1 - 1e-12)) * unit
