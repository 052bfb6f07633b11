"""Constants are proved for our softmax head under our cross-entropy, by exact types; for anything else nothing is."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import expunge
from expunge import Budget, Classification, GradientDescent
from expunge.core.errors import InputError
from expunge.tasks.networks import SoftmaxHead
from expunge.training.descent import Step
from expunge.training.facts import proved_constants

from .worlds import head, r2d, rows


class Scaled(SoftmaxHead):
    """Without the projection, "which hurts accuracy"."""

    def forward(self, x):
        return self.linear(x.flatten(1) * 3)


class Deep(SoftmaxHead):
    """A hidden layer in front."""

    def __init__(self, features=8, classes=2):
        super().__init__(8, classes)
        self.hidden = nn.Linear(2, 8)

    def forward(self, x):
        return super().forward(torch.tanh(self.hidden(x.flatten(1))))


class Dropping(SoftmaxHead):
    """Functional dropout, which no tree of modules shows."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


class Centred(SoftmaxHead):
    """Looks across rows."""

    def forward(self, x):
        return super().forward((x - x.mean(0)) / (x.std(0) + 1e-6))


def hooked():
    model = SoftmaxHead(2, 2)
    model.register_forward_hook(lambda module, inputs, output: output * 5)
    return model


def hooked_inside():
    model = SoftmaxHead(2, 2)
    model.linear.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 5,))
    return model


def patched():
    model = SoftmaxHead(2, 2)
    model.forward = lambda x: model.linear(x * 5)
    return model


def parametrised():
    model = SoftmaxHead(2, 2)
    nn.utils.parametrizations.weight_norm(model.linear)
    return model


def replaced():
    model = SoftmaxHead(2, 2)
    model.linear = type("Linear", (nn.Linear,), {})(2, 2, bias=False)
    return model


@dataclass(frozen=True)
class OtherLoss(Classification):
    """Ten times the loss."""

    def losses(self, model, params, batch):
        return 10 * super().losses(model, params, batch)


def overridden():
    task = head()
    object.__setattr__(
        task, "losses", lambda model, params, batch: 10 * Classification.losses(task, model, params, batch)
    )
    return task


TASKS = {
    **{
        factory.__name__: Classification(factory, dtype=torch.float64)
        for factory in (Deep, hooked, hooked_inside, patched, parametrised, replaced)
    },
    **{
        kind.__name__: Classification(lambda kind=kind: kind(2, 2), dtype=torch.float64)
        for kind in (Scaled, Dropping, Centred)
    },
    "OtherLoss": OtherLoss(lambda: SoftmaxHead(2, 2), dtype=torch.float64),
    "overridden": overridden(),
}


@pytest.mark.parametrize("name", TASKS)
def test_nothing_is_proved_of_what_only_looks_like_the_head(name):
    task = TASKS[name]
    assert proved_constants(task, task.build(), Step(1.0, 0.01)) == {}
    if name == "parametrised":
        return  # zero weights have no direction: it cannot be trained at all
    trained = expunge.train(task, rows(outlier=1.0), GradientDescent(steps=5, lr=0.1, l2=1e-2))
    with pytest.raises(InputError, match="which nothing here proves"):
        expunge.publish(trained, Budget(1.0, 1e-5, 1), method=r2d())


def test_the_head_itself_is_proved():
    task = head()
    assert proved_constants(task, task.build(), Step(1.0, 0.01))["convex"].value is True


def test_a_hook_on_every_module_is_seen():
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        task = head()
        assert proved_constants(task, task.build(), Step(1.0, 0.01)) == {}
    finally:
        handle.remove()
