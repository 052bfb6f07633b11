"""How well a released model does its job on named sets of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.metrics.intervals import Interval, mean_interval, wilson
from expunge.tasks.passes import OUTPUTS


@dataclass(frozen=True, eq=False)
class RowOutputs:
    """What a model says about each row: everything utility and membership need, from one forward pass.

    Shapes:
        losses (n,) float64; logits (n, classes) float64; labels (n,) int64.
    """

    losses: np.ndarray
    logits: np.ndarray
    labels: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Where the largest logit is the label's, (n,) bool."""
        return self.logits.argmax(-1) == self.labels


@dataclass(frozen=True)
class Utility:
    """Accuracy (Wilson interval) and mean loss (Student interval) over ``rows`` rows."""

    accuracy: Interval
    loss: Interval
    rows: int


def row_outputs(task: Task, tensors: Mapping[str, Tensor], rows: Any) -> RowOutputs:
    """Run the model with weights ``tensors`` on ``rows``: batched, without gradients, in evaluation mode.

    Raises:
        InputError: if ``tensors`` belong to another architecture, there are no rows, an output is not finite, or the
            task is not a classifier (logits of shape (rows, classes) and labels ``y``).
    """
    model = task.build(tensors).eval()
    return _run(task, model, dict(model.state_dict()), rows)


def _run(task: Task, model: torch.nn.Module, tensors: Mapping[str, Tensor], rows: Any) -> RowOutputs:
    if not len(rows):
        raise InputError("Expected at least one row to measure on; the set is empty.")
    batch = task.batch(rows)
    losses, logits = [], []
    with torch.no_grad():
        for part in batch.parts(OUTPUTS):
            losses.append(task.losses(model, tensors, part).double().cpu().numpy())
            logits.append(task.outputs(model, tensors, part).logits.double().cpu().numpy())
    found = RowOutputs(np.concatenate(losses), np.concatenate(logits), batch["y"].cpu().numpy())
    if found.logits.ndim != 2 or found.losses.shape != found.labels.shape:
        raise InputError(
            f"Expected a classifier: logits (rows, classes), one loss and one label a row; got {found.logits.shape}, "
            f"{found.losses.shape} and {found.labels.shape}."
        )
    if not (np.isfinite(found.losses).all() and np.isfinite(found.logits).all()):
        raise InputError(
            "Expected finite losses and logits; the model gives NaN or infinity. Its weights are not usable."
        )
    return found


def utility(
    task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Any], level: float = 0.95
) -> dict[str, Utility]:
    """Accuracy and mean loss on each named set, for example ``{"retained": ..., "forgotten": ..., "test": ...}``.

    Formal guarantee: none. The intervals are about which rows were drawn, with the model held fixed; they say nothing
    about another training seed.

    Raises:
        InputError: as :func:`row_outputs`, or if the model cannot be built.
    """
    model = task.build(tensors).eval()
    params = dict(model.state_dict())
    found = {}
    for name, rows in sets.items():
        outputs = _run(task, model, params, rows)
        accuracy = wilson(int(outputs.correct.sum()), len(outputs.labels), level)
        found[name] = Utility(accuracy, mean_interval(outputs.losses, level), len(outputs.labels))
    return found
