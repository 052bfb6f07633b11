"""A promise that promises nothing is refused, and noise that leaves nothing of a model is said beforehand."""

import logging
import math

import pytest

import expunge
from expunge import Budget, GradientDescent
from expunge.core.errors import InputError, RefusedError
from expunge.methods.noisy_fine_tune import NoisyFineTune
from expunge.planning.promises import cautions

from .worlds import forget, head, published, r2d, rows

RECIPE = GradientDescent(steps=20, lr=1.5, l2=1e-2)


@pytest.mark.parametrize("delta", [1 / 60, 0.5, 0.999999])
def test_a_delta_under_which_a_record_may_be_published_whole_is_refused(delta):
    trained = expunge.train(head(), rows(60), RECIPE)
    for sigma in (None, 0.1):
        with pytest.raises(InputError, match=r"below 1/n = 0\.0167 for 60 records"):
            expunge.publish(trained, Budget(1.0, delta, 1, sigma), method=r2d())
    assert expunge.publish(trained, Budget(1.0, 0.99 / 60, 1), method=r2d()).budget.sigma > 0


def test_so_is_the_delta_of_a_method_that_brings_its_own_noise():
    method = NoisyFineTune(delta=0.5, recovery_epochs=0, steps=5)
    trained = published(head(), rows(60), method=method, recipe=RECIPE)
    with pytest.raises(RefusedError, match="below 1/n"):
        forget(trained, method)


@pytest.mark.parametrize("epsilon", [38.0, 1e9, math.inf])
def test_an_epsilon_that_bounds_nothing_is_refused(epsilon):
    with pytest.raises(InputError, match="certain who was removed"):
        expunge.publish(expunge.train(head(), rows(), RECIPE), Budget(epsilon, 1e-5, 1), method=r2d())


@pytest.mark.parametrize(("sigma", "said"), [(30.0, True), (1e-3, False)])
def test_noise_that_is_longer_than_the_weights_is_said_when_publishing_and_planning(sigma, said, caplog):
    trained = expunge.train(head(), rows(outlier=3.0), RECIPE)
    weights = trained.secret["linear.weight"]
    assert (sigma * 4**0.5 > weights.norm()) == said
    with caplog.at_level(logging.WARNING):
        model = expunge.publish(trained, Budget(None, 1e-5, 1, sigma), method=r2d())
        expunge.plan(model, expunge.Request("subject", expunge.Target("samples", {"ids": [3]})), r2d())
    named = [line for line in caplog.messages if "longer than the weights" in line]
    assert len(named) == 2 * said
    assert all(f"norm {2 * sigma:.3g}" in line and f"(norm {weights.norm():.3g})" in line for line in named)


def test_a_weak_epsilon_is_said():
    model = expunge.publish(expunge.train(head(), rows(), RECIPE), Budget(20.0, 1e-5, 1), method=r2d())
    assert any("promises little" in line for line in cautions(model))
