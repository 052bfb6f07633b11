"""A budget for several releases: the promise lasts for as many requests as it was made for."""

import functools

import pytest
import torch

import expunge
from cases import beside_ledger
from expunge import Budget, Classification, GradientDescent, Request, Target
from expunge.core.errors import InputError, RefusedError
from expunge.data.digits import digits
from expunge.methods.r2d import R2D
from expunge.tasks.networks import SoftmaxHead


def published(releases: int) -> expunge.core.trained.Trained:
    task = Classification(functools.partial(SoftmaxHead, 64, 10), dtype=torch.float64)
    rows, _ = digits()
    trained = expunge.train(task, rows, GradientDescent(steps=40, lr=3.9, l2=3e-3, rewinds=(0.5,)))
    return expunge.publish(trained, Budget(1.0, 1e-5, 30, releases=releases), method=R2D(rewind=0.5))


def request(person: int) -> Request:
    return Request(f"person {person}", Target("user", {"person": person}))


def test_three_requests_that_use_the_capacity_up_stay_within_epsilon():
    trained = beside_ledger(published(releases=3))
    for person in (3, 50, 99):
        outcome = expunge.plan(trained, request(person), R2D(rewind=0.5)).run()
        assert outcome.verdict == "certified"
        assert outcome.certificate.epsilon <= 1.0
        trained = outcome.after
    assert len(trained.removed) == 30


def test_a_promise_for_one_release_refuses_before_the_capacity_is_used_up():
    trained = published(releases=1)
    with pytest.raises(RefusedError, match="above the published 1"):
        for person in (3, 50, 99):
            trained = expunge.plan(trained, request(person), R2D(rewind=0.5)).run().after


def test_noise_grows_with_the_root_of_the_releases():
    assert published(4).budget.sigma == pytest.approx(2 * published(1).budget.sigma)
    with pytest.raises(InputError, match="at least one release"):
        Budget(1.0, 1e-5, 10, releases=0)
