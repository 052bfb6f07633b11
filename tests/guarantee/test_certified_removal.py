"""Guo et al.: the step, the residual with the perturbation in it, the budget over requests, and the verdict."""

import functools
import itertools

import pytest
import torch

import expunge
from cases import beside_ledger
from expunge import Classification, Request, Target
from expunge.core.errors import RefusedError
from expunge.data.digits import digits
from expunge.methods.certified_removal import CertifiedRemoval
from expunge.methods.retrain import Retrain
from expunge.privacy.again import differences, made_again
from expunge.privacy.noise import SeededNoise
from expunge.report.record import plain
from expunge.tasks.networks import SoftmaxHead
from expunge.training.flat import flat_loss, flatten
from expunge.training.perturbed import PERTURBATION, PerturbedMinimiser

TASK = Classification(functools.partial(SoftmaxHead, 64, 10), dtype=torch.float64)
ROWS = digits()[0].only(expunge.core.data.Ids.rows(range(400)))


def trained(l2=0.5, sigma=40.0, **settings):
    return expunge.train(TASK, ROWS, PerturbedMinimiser(l2=l2, sigma=sigma, **settings))


def remove(model, person):
    return expunge.plan(model, Request("a", Target("user", {"person": person})), CertifiedRemoval()).run()


@pytest.mark.parametrize("person", [0, 17, 39])
def test_the_residual_bound_dominates_the_measured_residual_of_the_sum_objective(person):
    before = trained()
    outcome = remove(before, person)
    after = outcome.deletion.after
    weights = outcome.releases[0].artifact.tensors
    b = before.secret[PERTURBATION] / len(after)
    loss = flat_loss(TASK, TASK.build(), weights, TASK.batch(after), 0.5, b)  # differentiated, not written out
    measured = len(after) * float(torch.func.grad(loss)(flatten(weights, ("linear.weight",))).norm())
    assert 0 < measured <= outcome.certificate.sensitivity
    assert outcome.certificate.epsilon <= 1
    assert outcome.verdict == "as-claimed"
    again = made_again(plain(outcome.certificate.to_json()), outcome.facts, outcome.before.budget, [], "model")
    assert differences(plain(outcome.certificate.to_json()), plain(again.to_json())) == []


def test_residuals_add_up_over_requests_and_nothing_else_composes():
    model, levels = trained(), []
    for person in (0, 17, 39):
        outcome = remove(model, person)
        levels.append(outcome.details["residual"])
        assert outcome.certificate.epsilon == pytest.approx(
            1.0
        )  # the promise, whatever of it was used: that is private
        assert outcome.certificate.sensitivity >= levels[-1]
        assert outcome.certificate.parameters["releases_before"] == 0
        model = outcome.after
    steps = [b - a for a, b in itertools.pairwise(levels)]
    assert all(step > 0 for step in steps)
    assert max(steps) < levels[0] * 20


def test_a_spent_budget_is_refused_and_retraining_is_named():
    with pytest.raises(RefusedError, match="Retrain: that draws a new perturbation"):
        remove(trained(l2=0.005, sigma=1.0), 17)


def test_a_seeded_perturbation_voids():
    assert remove(trained(noise=SeededNoise(0)), 17).verdict == "void"


def test_retraining_draws_a_new_perturbation_and_serves_again_only_where_it_is_kept():
    outcome = expunge.plan(beside_ledger(trained()), Request("a", Target("user", {"person": 3})), Retrain()).run()
    assert outcome.verdict == "certified"
    with pytest.raises(RefusedError, match="perturbation is gone"):
        remove(outcome.after, 17)
