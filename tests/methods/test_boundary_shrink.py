"""Boundary Shrink against linear models, whose nearest class is known exactly."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cases import CASES, blobs, samples
from expunge import planning
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.core.trained import Trained
from expunge.data.rows import Rows
from expunge.descent.work import Work
from expunge.methods.boundary_shrink import BoundaryShrink
from expunge.tasks.classification import Classification

WEIGHT = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]], dtype=torch.float64)  # a class a row


def linear(rows: Rows) -> Trained:
    """A model whose logits are ``x @ WEIGHT.T``."""
    task = Classification(functools.partial(nn.Linear, 2, 3, bias=False), dtype=torch.float64)
    return planning.adopt(task, task.build({"weight": WEIGHT}), rows)


def relabelled(trained: Trained, method: BoundaryShrink, *ids: int) -> Tensor:
    model = trained.task.build(trained.artifact.tensors)
    deletion = Deletion.of(trained.data, samples(*ids))
    work = Work(trained.task, model, dict(model.state_dict()), deletion, {"forget": 8})
    return method.prepare(work).streams["forget"]["y"]


def by_hand(x: Tensor, y: Tensor, eps: float, exclude_true: bool) -> Tensor:
    """Softmax regression has grad_x CE = (softmax(z) - onehot(y)) W."""
    logits = x @ WEIGHT.T
    slope = (logits.softmax(1) - nn.functional.one_hot(y, 3)) @ WEIGHT
    pushed = (x + eps * slope.sign()) @ WEIGHT.T
    if exclude_true:
        pushed[torch.arange(len(y)), y] = float("-inf")
    return pushed.argmax(1)


@pytest.mark.parametrize("exclude_true", [True, False])
@pytest.mark.parametrize("eps", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_are_those_of_the_step_across_the_boundary(eps, exclude_true, seed):
    rows = blobs(40, seed=seed)
    labels = relabelled(linear(rows), BoundaryShrink(eps=eps, exclude_true=exclude_true), *range(20))
    assert torch.equal(labels, by_hand(rows.x[:20].double(), rows.y[:20], eps, exclude_true))


@pytest.mark.parametrize("eps", [1e-6, 0.1, 2.0])
def test_an_example_never_keeps_its_label_unless_that_is_asked_for(eps):
    rows = blobs()
    trained, every = linear(rows), range(30)
    assert not (relabelled(trained, BoundaryShrink(eps=eps), *every) == rows.y[:30]).any()
    as_released = relabelled(trained, BoundaryShrink(eps=eps, exclude_true=False), *every)
    assert eps > 1 or (as_released == rows.y[:30]).any(), "a step too short to cross leaves the true label"


def test_the_nearest_class_is_the_one_across_the_boundary_that_is_crossed_first():
    """(2, 1) is of class 0; class 1 lies above it and class 2 below."""
    rows = Rows.of(np.array([[2.0, 1.0], [2.0, -1.0], [0.0, 0.0]]), np.array([0, 0, 1]))
    assert relabelled(linear(rows), BoundaryShrink(), 0, 1).tolist() == [1, 2]


def test_one_full_batch_step_is_gradient_descent_on_the_new_labels():
    case = CASES["head"]
    trained = planning.adopt(case.task, case.train().artifact.tensors, case.data)
    outcome = planning.plan(trained, samples(3, 4, 5), BoundaryShrink(epochs=1, lr=0.3, batch_size=8)).run()
    model = trained.task.build(trained.artifact.tensors)
    rows = outcome.deletion.forget
    labels = relabelled(trained, BoundaryShrink(), 3, 4, 5)
    loss = nn.functional.cross_entropy(model(rows.x.double()), labels)
    for (name, weight), gradient in zip(
        model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        assert torch.allclose(
            outcome.releases[0].artifact.tensors[name], (weight - 0.3 * gradient).detach(), rtol=1e-12
        )
    assert outcome.details["steps"] == {"forget": 1}


def test_retained_rows_are_not_read():
    case, made = CASES["network"], BoundaryShrink(epochs=2, lr=0.1)
    weights = case.train().artifact.tensors
    outcomes: list[Any] = [
        planning.plan(planning.adopt(case.task, weights, data), samples(0, 7), made, seed=1).run()
        for data in (case.data, case.data.only(Ids.rows(range(20))))
    ]
    assert outcomes[0].releases[0].artifact.digest == outcomes[1].releases[0].artifact.digest


def test_what_has_no_other_class_or_no_step_is_refused():
    with pytest.raises(InputError, match="above 0 as eps"):
        BoundaryShrink(eps=0.0)
    task = Classification(lambda: nn.Sequential(nn.Flatten(), nn.Linear(2, 1)))
    rows = Rows.of(np.zeros((4, 2)), np.zeros(4, dtype=int))
    with pytest.raises(InputError, match="at least two"):
        planning.plan(planning.adopt(task, task.build(), rows), samples(0), BoundaryShrink()).run()
