"""Noise covers trainable weights; whatever else leaves must owe nothing to the rows, or the word is not to be had."""

import functools

import pytest
import torch
from torch import nn

import expunge
from expunge import Classification, GradientDescent
from expunge.core.certificate import Verdict
from expunge.core.errors import InputError
from expunge.methods.noisy_fine_tune import NoisyFineTune

from .worlds import forget, measured, never_certified, not_holding, published, rows

NOISY = NoisyFineTune(recovery_epochs=1, steps=5)
DATA = rows(80, 20, outlier=1.0)


class Frozen(nn.Module):
    """A frozen layer in front of a trained one."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(20, 16), nn.Linear(16, 2)
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.backbone(x)))


class Standardised(nn.Module):
    """A buffer with the mean of the training rows, as an adapted normalisation layer has it."""

    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.head = nn.Linear(20, 2)

    def forward(self, x):
        return self.head(x - self.mean.to(x.dtype))


class Plain(nn.Module):
    """The same mean as a plain attribute, which no file of weights shows."""

    def __init__(self, mean):
        super().__init__()
        self.mean, self.head = mean, nn.Linear(20, 2)

    def forward(self, x):
        return self.head(x - self.mean.to(x.dtype))


def test_a_frozen_layer_that_holds_a_forgotten_row_voids():
    start = Frozen().state_dict()
    start["backbone.weight"] = DATA.x[:16].float().clone()
    recipe = GradientDescent(steps=10, lr=0.5, start=start, start_origin="unknown")
    outcome = forget(published(Classification(Frozen), DATA, method=NOISY, recipe=recipe), NOISY)
    assert torch.equal(outcome.releases[0].artifact.tensors["backbone.weight"][3], DATA.x[3].float())  # it does leave
    assert outcome.verdict == Verdict.VOID and "unnoised_tensors" in not_holding(outcome)


@pytest.mark.parametrize("method", [NOISY, expunge.methods.Retrain()], ids=lambda method: method.name)
def test_a_buffer_that_a_factory_filled_is_somebodys_word(method):
    task = Classification(functools.partial(Standardised, DATA.x.mean(0)))
    outcome = forget(published(task, DATA, method=method, recipe=GradientDescent(steps=10, lr=0.5)), method)
    released = outcome.releases[0].artifact.tensors["mean"].double()
    guessed = 80 * released - outcome.deletion.after.x.sum(0)
    assert torch.allclose(guessed, DATA.x[3], atol=1e-3)  # the row comes out of what was released
    never_certified(outcome)
    assert "unnoised_tensors" in not_holding(outcome)


@pytest.mark.parametrize("module", [Standardised, Plain])
def test_the_seeded_initialiser_refuses_what_it_cannot_fill(module):
    task = Classification(functools.partial(module, DATA.x.mean(0)), init="seed")
    with pytest.raises(InputError, match="mean"):
        expunge.train(task, DATA, GradientDescent(steps=2, lr=0.5))


def frozen_stack():
    """A frozen layer of PyTorch's own in front of a trained one: no code but PyTorch's computes anything."""
    model = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 2))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    return model


def test_code_of_somebody_elses_is_somebodys_word():
    mean = DATA.x.mean(0).tolist()

    class Hides(nn.Linear):
        def forward(self, x):
            return super().forward(x - torch.tensor(mean, dtype=x.dtype))

    for factory in (Frozen, lambda: nn.Sequential(Hides(20, 2))):
        task = Classification(factory)
        for method in (NOISY, expunge.methods.Retrain()):
            outcome = forget(published(task, DATA, method=method, recipe=GradientDescent(steps=5, lr=0.5)), method)
            never_certified(outcome)
            assert "model_code" in not_holding(outcome)


def test_a_frozen_layer_that_our_initialiser_made_is_certified():
    task = Classification(frozen_stack, init="seed")
    outcome = forget(published(task, DATA, method=NOISY, recipe=GradientDescent(steps=10, lr=0.5)), NOISY)
    assert measured(outcome).outcome.verdict == Verdict.CERTIFIED


def test_buffers_that_retraining_makes_anew_from_a_seeded_start_are_certified():
    task = Classification(lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), init="seed")
    recipe = expunge.Stochastic(epochs=1, lr=0.1, batch_size=20)
    outcome = forget(published(task, DATA, method=expunge.methods.Retrain(), recipe=recipe), expunge.methods.Retrain())
    assert outcome.verdict == Verdict.CERTIFIED
    value = {a.name: a.value for a in outcome.certificate.assumptions}["unnoised_tensors"]
    assert value == "recomputed"
