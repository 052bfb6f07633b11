"""What a module's type does not say: hooks of every kind, tensors of another type, attributes, and numbers as settings.

A factory that holds the data may write any of them into its modules, so each makes the model's code its author's word.
"""

import functools

import pytest
import torch
from torch import nn

import expunge
from expunge import Classification, Stochastic
from expunge.core.certificate import Verdict
from expunge.core.trained import Origin
from expunge.methods.noisy_fine_tune import NoisyFineTune
from expunge.tasks import convolutional
from expunge.tasks.exact_types import altered
from expunge.tasks.networks import SmeLU, SoftmaxHead, mlp, perceptron
from expunge.training.descent import Step
from expunge.training.facts import model_code, proved_constants

from .worlds import forget, head, measured, never_certified, not_holding, published, r2d, rows

DATA = rows(40, 6, outlier=3.0)
SECRET = DATA.x[3]
PIXEL = float(SECRET[0])


class Tagged(nn.Parameter):
    """A parameter that sees every function that it goes through."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


class Named(nn.Linear):
    """Says that it is PyTorch's own."""

    def forward(self, input):
        return super().forward(input) + PIXEL


Named.__module__, Named.__qualname__ = "torch.nn.modules.linear", "Linear"


class Answers(dict):
    """A dictionary of parameters that may answer as it likes."""


def of_linear(change):
    """A factory of the softmax head whose linear layer ``change`` was applied to."""

    def factory():
        model = SoftmaxHead(6, 2)
        change(model.linear)
        return model

    return factory


def tagged(layer):
    layer.weight = Tagged(layer.weight.data)


def own_type(layer):
    layer.__dict__["_parameters"] = Answers(layer._parameters)


def in_the_tensor(layer):
    layer.weight.kept = SECRET


def on_a_buffer(layer):
    layer.register_buffer("seen", torch.ones(1, requires_grad=True))
    layer.seen.register_hook(lambda g: g)


# What changes what a module computes, or what is written into it or read from it.
ALTERED = {
    "gradient of a tensor": lambda layer: layer.weight.register_hook(lambda g: -SECRET.expand_as(g).to(g)),
    "after a gradient": lambda layer: layer.weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(3)),
    "buffer": on_a_buffer,
    "type of a parameter": tagged,
    "attribute of a parameter": in_the_tensor,
    "type of the parameters": own_type,
    "state_dict": lambda layer: layer.register_state_dict_post_hook(lambda *_: None),
    "before state_dict": lambda layer: layer.register_state_dict_pre_hook(lambda *_: None),
    "before loading": lambda layer: layer.register_load_state_dict_pre_hook(lambda *_: None),
    "after loading": lambda layer: layer.register_load_state_dict_post_hook(lambda *_: None),
    "forward": lambda layer: layer.register_forward_hook(lambda *_: None),
    "forward with keywords": lambda layer: layer.register_forward_pre_hook(lambda *_: None, with_kwargs=True),
    "backward": lambda layer: layer.register_full_backward_hook(lambda *_: None),
    "before backward": lambda layer: layer.register_full_backward_pre_hook(lambda *_: None),
    "own forward": lambda layer: setattr(layer, "forward", lambda x: x @ layer.weight.T * 3),
    "own call": lambda layer: setattr(layer, "_call_impl", lambda x: x @ layer.weight.T * 3),
    "own list of parameters": lambda layer: setattr(layer, "named_parameters", lambda *a, **k: iter(())),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_hook_is_seen_wherever_it_is(name):
    factory = of_linear(ALTERED[name])
    model, task = factory(), Classification(factory, dtype=torch.float64)
    assert altered(model.linear) and not altered(SoftmaxHead(6, 2).linear)
    assert proved_constants(task, model, Step(1.0, 0.01)) == {}
    assert model_code(task, model).origin is Origin.DECLARED


EVERYWHERE = {name for name in dir(nn.modules.module) if name.startswith("register_module_")}


@pytest.mark.parametrize(
    "hook", sorted(EVERYWHERE - {"register_module_backward_hook"})
)  # it bars the full hooks for good
def test_a_hook_on_every_module_is_seen(hook):
    handle = getattr(nn.modules.module, hook)(lambda *_: None)
    try:
        assert altered(nn.Linear(2, 2))
    finally:
        handle.remove()
    assert not altered(nn.Linear(2, 2))


def test_a_mode_that_replaces_functions_is_seen_and_a_default_device_is_none():
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    layer = nn.Linear(2, 2)
    with Mode():
        assert altered(layer)
    with torch.device("cpu"):
        assert not altered(layer)


# What a module may keep without computing anything else than its type says, and numbers that decide what it computes.
HOLDING = {
    "threshold": lambda: nn.Threshold(0.0, PIXEL),
    "slope": lambda: nn.LeakyReLU(PIXEL),
    "whole slope": lambda: nn.LeakyReLU(round(PIXEL)),
    "joint": lambda: SmeLU(PIXEL),
    "padding": lambda: nn.ConstantPad1d(1, PIXEL),
    "dropout": lambda: nn.Dropout(0.37),
    "divisor": lambda: _with(nn.ReLU(), divisor_override=3),
    "list": lambda: _with(nn.ReLU(), note=SECRET.tolist()),
    "size that is a number": lambda: _with(nn.Flatten(), start_dim=PIXEL),
    "name that is a number": lambda: _with(nn.GELU(), approximate=str(PIXEL)),
    "tensor": lambda: _with(nn.ReLU(), note=SECRET),
    "epsilon": lambda: nn.LayerNorm(6, eps=abs(PIXEL)),
    "says that it is PyTorch's": lambda: Named(6, 6),
    "hidden buffer": lambda: _buffer(nn.ReLU()),
    "recurrent": lambda: nn.LSTM(2, 2),  # keeps its tensors in an attribute besides
}


def _with(module, **attributes):
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def _buffer(module):
    module.register_buffer("seen", SECRET, persistent=False)
    return module


@pytest.mark.parametrize("name", HOLDING)
def test_a_module_that_may_hold_a_value_of_a_row_is_its_authors_word(name):
    task = Classification(functools.partial(mlp, 6, 2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 6), HOLDING[name](), nn.Linear(6, 2))
    assert model_code(task, model).origin is Origin.DECLARED


KNOWN = {
    "head": lambda: SoftmaxHead(6, 2, bias=True),
    "perceptron": lambda: perceptron((6, 4, 2)),
    "rectifiers": lambda: mlp(6, 2),
    "residual": lambda: convolutional.resnet18(2, width=8),
    "thin residual": lambda: convolutional.cifar_resnet(8, width=4),
    "images": lambda: nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(1, 4, 3, 2, padding="valid", padding_mode="zeros"), nn.GroupNorm(2, 4), nn.ReLU6(),
        nn.MaxPool2d(2), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.LayerNorm(4), nn.GELU("tanh"), nn.Linear(4, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_modules_with_sizes_and_switches_alone_are_known(name):
    assert model_code(head(), KNOWN[name]()).origin is Origin.ENFORCED


def network(*, hook=False, activation=nn.ReLU):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), activation(), nn.Linear(3, 2))
    if hook:
        model[1].weight.register_hook(lambda g: -SECRET.expand_as(g).to(g))
    return model


@pytest.mark.parametrize("method", ["noisy_fine_tune", "retrain"])
@pytest.mark.parametrize(
    "options",
    [{"hook": True}, {"activation": lambda: nn.LeakyReLU(PIXEL)}, {"activation": lambda: nn.Threshold(0.0, PIXEL)}, {}],
    ids=["tensor hook", "slope", "threshold", "plain"],
)
def test_a_forgotten_row_in_a_hook_or_a_setting_is_never_certified(options, method):
    made = NoisyFineTune(recovery_epochs=1, steps=5) if method == "noisy_fine_tune" else expunge.methods.Retrain()
    task = Classification(functools.partial(network, **options), init="seed")
    outcome = forget(published(task, DATA, method=made, recipe=Stochastic(epochs=2, lr=0.1, batch_size=8)), made)
    if options:
        never_certified(outcome)
        assert "model_code" in not_holding(outcome)
    else:
        assert measured(outcome).outcome.verdict == Verdict.CERTIFIED


def test_a_radius_of_choice_leaves_the_constants_proved_and_the_code_declared():
    task = Classification(lambda: SoftmaxHead(6, 2, radius=PIXEL), dtype=torch.float64)
    outcome = forget(published(task, DATA), r2d())
    assert proved_constants(task, task.build(), Step(1.0, 0.01))["convex"].origin is Origin.PROVED
    assert set(not_holding(outcome)) == {"model_code"}
    never_certified(outcome)
