"""Inversion of a correction: a peer that kept the model from before reads the forgotten record off the difference.

The difference of two models is the correction, curvature inverse times the change of the gradient. Multiplied by the curvature
of the attacker's own rows it is, up to scale, the gradient of what left; of one record under a linear head that is an outer
product of errors and inputs, whose factors are the record's label and direction. Certificates exclude holders of the model from
before: this says what such a holder sees.

The idea of FUIA, "Model Inversion Attack against Federated Unlearning" (arXiv 2502.14558), which inverts by optimisation; for a
linear head the inverse is written out here.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.curvature.weighted_head import WeightedHead
from expunge.data.rows import Rows
from expunge.tasks.closed_forms import closed_form
from expunge.training.descent import trainable
from expunge.training.flat import flatten


@dataclass(frozen=True, eq=False)
class Inverted:
    """What the attacker reads.

    Attributes:
        label: of the forgotten record.
        direction: of its inputs as the head sees them, at norm one, (d_x,).
        share: of the square of the recovered gradient that one record explains: 1 for one record, less for many or for noise.
    """

    label: int
    direction: Tensor
    share: float

    def nearest(self, candidates: Tensor) -> int:
        """Which of ``candidates`` (n, d_x), inputs as the head sees them, points most nearly where the record does."""
        unit = candidates / candidates.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return int((unit @ self.direction.to(unit)).argmax())


def inverted(task: Task, own: Rows, before: Mapping[str, Tensor], after: Mapping[str, Tensor], l2: float) -> Inverted:
    """Invert the difference of ``before`` and ``after``.

    Args:
        own: the attacker's rows, whose curvature stands in for the network's.
        before, after: what the attacker held and holds.
        l2: of every peer's objective.

    Raises:
        InputError: for a model that is no plain linear head, or two models without a difference.
    """
    model = task.build(before)
    form, names = closed_form(task, model), trainable(model)
    if form is None or len(form.layers) > 1:
        raise InputError("Expected a linear head under cross-entropy (SoftmaxHead): no other inverse is written out.")
    theta = flatten(before, names).double()
    step = theta - flatten(after, names).double()
    if not float(step.norm()) > 0:
        raise InputError("Expected two models that differ; nothing can be read off equal ones.")
    examples = form.examples(task.batch(own))
    features = examples.features.double()
    head = WeightedHead(
        form,
        type(examples)(features, examples.labels),
        torch.full((1, len(own)), 1 / len(own), dtype=torch.float64),
        l2,
    )
    # of what left, up to scale: the retained gradient changed the other way
    gradient = -head.gauss_newton(theta)(step)
    width, biased = features.shape[-2], any(layer.bias is not None for layer in form.layers)
    classes = len(theta) // (width + biased)
    left, sizes, right = torch.linalg.svd(gradient[: classes * width].reshape(classes, width), full_matrices=False)
    errors, direction = left[:, 0], right[0]
    # probabilities minus one at the label: the largest of all, and the only negative one
    label = int(errors.abs().argmax())
    direction = direction if float(errors[label]) < 0 else -direction
    return Inverted(label, direction, float(sizes[0] ** 2 / sizes.square().sum()))
