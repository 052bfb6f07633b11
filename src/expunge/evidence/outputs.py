"""What one model says about each example of a set: losses of any model, logits of a classifier. One pass over each set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.tasks.exact_types import plain_classification
from expunge.tasks.passes import OUTPUTS, at_once


@dataclass(frozen=True, eq=False)
class ExampleOutputs:
    """What a classifier says about each example: everything that accuracy, loss and membership attacks need.

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


def example_outputs(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Any]) -> dict[str, ExampleOutputs]:
    """Run a classifier with weights ``tensors`` once over each of ``sets``: batched, without gradients, in evaluation mode.

    Raises:
        InputError: if ``tensors`` belong to another architecture, a set is empty, an output is not finite, or the task is
            not a classifier (logits of shape (examples, classes) and labels ``y``).
    """
    model = task.build(tensors).eval()
    params = dict(model.state_dict())
    return {name: _outputs(task, model, params, _some(name, examples)) for name, examples in sets.items()}


def example_losses(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The loss of each example of each of ``sets``, whatever kind of model it is; conditions as :func:`example_outputs`.

    Shapes:
        each (n,) float64.

    Raises:
        InputError: for a set without examples, or a loss that is not finite.
    """
    model, params, losses = task.build().eval(), dict(tensors), dict[str, np.ndarray]()
    for name, examples in sets.items():
        batch = task.batch(_some(name, examples))
        with torch.no_grad():
            parts = [task.losses(model, params, part) for part in batch.parts(at_once(batch, OUTPUTS))]
        losses[name] = np.concatenate([part.double().cpu().numpy() for part in parts])
        _must_be_finite(losses[name])
    return losses


def _some(name: str, examples: Any) -> Any:
    if not len(examples):
        raise InputError(f"Expected at least one example to measure on; the set {name} is empty.")
    return examples


def _outputs(task: Task, model: torch.nn.Module, params: Mapping[str, Tensor], examples: Any) -> ExampleOutputs:
    batch, plain = task.batch(examples), plain_classification(task)
    losses, logits = [], []
    with torch.no_grad():
        for part in batch.parts(at_once(batch, OUTPUTS)):
            out = task.outputs(model, params, part).logits
            if plain:  # its loss is known, so that the logits of one pass are enough
                each = torch.nn.functional.cross_entropy(out, part["y"], reduction="none")
            else:
                each = task.losses(model, params, part)
            losses.append(each.double().cpu().numpy())
            logits.append(out.double().cpu().numpy())
    result = ExampleOutputs(np.concatenate(losses), np.concatenate(logits), batch["y"].cpu().numpy())
    if result.logits.ndim != 2 or result.losses.shape != result.labels.shape:
        raise InputError(
            f"Expected a classifier: logits (examples, classes), one loss and one label each; got {result.logits.shape}, "
            f"{result.losses.shape} and {result.labels.shape}."
        )
    _must_be_finite(result.losses, result.logits)
    return result


def _must_be_finite(*arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(
            "Expected finite losses and logits; the model gives NaN or infinity. Its weights are not usable."
        )
