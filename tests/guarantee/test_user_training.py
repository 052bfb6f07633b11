"""Training code of the user's own: what is promised rests on what the user vouches for, and nothing is assumed."""

import functools

import pytest
import torch

import expunge
from expunge import Classification, Request, Target, UserFit
from expunge.core.errors import InputError
from expunge.data.digits import digits
from expunge.methods.noisy_fine_tune import NoisyFineTune
from expunge.methods.retrain import Retrain
from expunge.tasks.networks import perceptron
from expunge.training.recipes import run_epochs

TASK = Classification(functools.partial(perceptron, (64, 8, 10)))
VOUCHED = {"start": "independent", "selection": "fixed", "augmentation": False}


def fit(data, seed):
    model = TASK.build(seed=seed)
    run_epochs(TASK, model, data, torch.optim.Adam(model.parameters(), 1e-2), epochs=1, batch_size=128, seed=seed)
    return model


@pytest.mark.parametrize("method", [Retrain(), NoisyFineTune(recovery_epochs=1)], ids=lambda method: method.name)
@pytest.mark.parametrize("declares, verdict", [({}, "void"), (VOUCHED, "certified-under-declared-constants")])
def test_the_verdict_follows_what_was_declared(method, declares, verdict):
    trained = expunge.train(TASK, digits()[0], UserFit(fit, declares=declares))
    outcome = expunge.plan(trained, Request("a", Target("user", {"person": 3})), method).run()
    assert outcome.verdict == verdict


def test_a_contrary_declaration_is_violated():
    trained = expunge.train(TASK, digits()[0], UserFit(fit, declares={**VOUCHED, "start": "pretrained on everybody"}))
    outcome = expunge.plan(trained, Request("a", Target("user", {"person": 3})), Retrain()).run()
    assert outcome.verdict == "void"


def test_an_unknown_declaration_is_refused():
    with pytest.raises(InputError, match="declarations among start"):
        UserFit(fit, declares={"unbiased": True})
