"""A start is independent of the rows where expunge made it from a seed; what a factory made is its author's word."""

import functools

import pytest
import torch
from torch import nn

import expunge
from expunge import Classification, GradientDescent, Stochastic
from expunge.core.certificate import Status, Verdict
from expunge.core.data import Ids
from expunge.tasks import initial
from expunge.tasks.networks import SoftmaxHead, perceptron

from .worlds import forget, measured, never_certified, not_holding, published, r2d, realised, rows

DATA = rows(40, 6, outlier=3.0)
RECIPE = GradientDescent(steps=50, lr=0.05, l2=1e-2)


def warm_start(data):
    """Class means as first weights, as many people do it."""

    def factory():
        head = SoftmaxHead(6, 2)
        with torch.no_grad():
            for label in (0, 1):
                head.linear.weight[label] = data.x[data.y == label].mean(0).to(head.linear.weight.dtype)
        return head

    return Classification(factory, dtype=torch.float64)


@pytest.mark.parametrize("method", [r2d(), expunge.methods.Retrain()], ids=lambda method: method.name)
def test_class_means_as_a_start_are_never_certified(method):
    outcome = forget(published(warm_start(DATA), DATA, recipe=RECIPE), method)
    kept = DATA.without(Ids.rows([3]))
    honest = RECIPE.fit(warm_start(kept), kept, seed=0).artifact.tensors
    if method.name == "r2d":
        assert (
            realised(outcome, honest) > 2 * outcome.certificate.epsilon
        )  # the attack works: the claim must not be made
    never_certified(outcome)
    assert not_holding(outcome)["start"] is Status.UNCHECKED


def test_one_tensor_that_the_seed_did_not_make_is_enough():
    def factory():
        head = SoftmaxHead(6, 2, bias=True)
        with torch.no_grad():
            head.linear.bias.fill_(float(DATA.x[3, 0]))  # log-frequencies, say
        return head

    outcome = forget(published(Classification(factory, dtype=torch.float64), DATA, recipe=RECIPE), r2d())
    never_certified(outcome)
    assert not_holding(outcome)["start"] is Status.UNCHECKED


def test_a_checkpoint_that_a_factory_loads_is_never_certified():
    leak = SoftmaxHead(6, 2).state_dict()
    leak["linear.weight"][0] = DATA.x[3]

    def factory():
        head = SoftmaxHead(6, 2)
        head.load_state_dict(leak)
        return head

    outcome = forget(
        published(
            Classification(factory), DATA, method=expunge.methods.Retrain(), recipe=Stochastic(epochs=1, lr=0.01)
        ),
        expunge.methods.Retrain(),
    )
    never_certified(outcome)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seeded_start_is_what_the_seed_makes_whatever_the_factory_did(seed):
    def loaded():
        model = perceptron((6, 4, 2))
        for parameter in model.parameters():
            nn.init.constant_(parameter, float(DATA.x[3, 0]))
        return model

    plain, seeded = (
        Classification(factory, init="seed").build(seed=seed).state_dict()
        for factory in (functools.partial(perceptron, (6, 4, 2)), loaded)
    )
    assert all(torch.equal(plain[name], seeded[name]) for name in plain)
    other = Classification(loaded, init="seed").build(seed=seed + 1).state_dict()
    assert not torch.equal(plain["1.weight"], other["1.weight"])


def test_any_network_that_our_initialiser_filled_is_certified_by_retraining():
    task = Classification(functools.partial(perceptron, (6, 4, 2)), init="seed")
    recipe = Stochastic(epochs=2, lr=0.1, batch_size=8, momentum=0.9)
    outcome = forget(published(task, DATA, method=expunge.methods.Retrain(), recipe=recipe), expunge.methods.Retrain())
    assert measured(outcome).outcome.verdict == Verdict.CERTIFIED and outcome.certificate.epsilon == 0


class Own(nn.Module):
    """A parameter of somebody's own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class Hides(nn.Module):
    """A buffer that is not stored with the weights."""

    def __init__(self):
        super().__init__()
        self.register_buffer("secret", torch.ones(1), persistent=False)


@pytest.mark.parametrize(
    "factory",
    [
        Own, Hides, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), lambda: nn.LSTM(2, 2),
        lambda: type("Linear", (nn.Linear,), {})(2, 2),
    ],
)  # fmt: skip
def test_modules_that_the_initialiser_does_not_know_are_refused_by_name(factory):
    model = factory()
    assert not initial.fillable(model)
    with pytest.raises(expunge.core.errors.InputError, match="of type"):
        initial.fill(model, 0)
