"""Spec checks 4, 5, 6, 16 and 17: both ends of rewinding, noise, publishing, and the edges of the domain."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import expunge
from cases import CASES, beside_ledger, blobs, method, points, samples, smooth_network
from expunge import planning
from expunge.core.certificate import Verdict
from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.core.trained import Budget
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.methods.r2d import R2D
from expunge.privacy.certify import parameters_of
from expunge.privacy.noise import SystemNoise, add_noise
from expunge.privacy.preconditions import RULES
from expunge.privacy.theorems import theorem
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.descent import trainable
from expunge.training.recipes import GradientDescent, rewind_step

REWINDING = ["head", "network", "clipped network", "convex quadratic", "concave quadratic"]


def ready(name: str, seed: int, **budget):
    """The case with the iterates of both ends stored."""
    case = CASES[name]
    case = replace(case, recipe=replace(case.recipe, rewinds=(0.0, 0.1, 0.5, 1.0)))
    return case, case.publish(seed, **budget)


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("name", REWINDING)
@pytest.mark.parametrize("seed", range(4))
def test_check_04_rewinding_everything_is_retraining_bit_for_bit(name, seed):
    case, trained = ready(name, seed)
    outcome = planning.plan(trained, case.request, method("r2d", rewind=1.0)).run()
    again = case.recipe.fit(case.task, outcome.deletion.after, seed=seed)
    assert equal(outcome.after.state, again.artifact.tensors)
    assert not equal(outcome.after.state, trained.state)
    assert outcome.certificate.sensitivity == 0 == outcome.certificate.epsilon


@pytest.mark.parametrize("name", REWINDING)
@pytest.mark.parametrize("seed", range(4))
def test_check_04_rewinding_nothing_leaves_the_trained_weights(name, seed):
    case, trained = ready(name, seed, epsilon=None, sigma=0.1)
    outcome = planning.plan(trained, case.request, method("r2d", rewind=0.0)).run()
    assert equal(outcome.after.state, trained.state)
    assert not equal(outcome.releases[0].artifact.tensors, trained.artifact.tensors)  # fresh noise: output perturbation


class Plus(SystemNoise):
    """Adds sigma itself, so that each coordinate shows how often it was reached."""

    def add(self, tensors, sigma):
        return {name: tensor + sigma for name, tensor in tensors.items()}, "float32"


class Frozen(nn.Sequential):
    """A perceptron whose first layer does not train and which carries a constant."""

    def __init__(self):
        super().__init__(*perceptron((2, 6, 3)))
        self[1].requires_grad_(False)
        self.register_buffer("constant", torch.ones(3))


@pytest.mark.parametrize("name", ["r2d", "retrain"])
@pytest.mark.parametrize("factory", [functools.partial(perceptron, (2, 6, 3)), Frozen])
def test_check_05_every_trainable_parameter_gets_noise_exactly_once_and_nothing_else_does(factory, name):
    task, sigma = Classification(factory), 0.5
    trained = planning.train(task, blobs(), GradientDescent(steps=10, lr=0.3, rewinds=(0.5, 1.0)))
    published = planning.publish(trained, Budget(None, 1e-5, 6, sigma), noise=Plus())
    chosen = method(name, **({"rewind": 0.5} if name == "r2d" else {}))
    outcome = planning.plan(published, samples(1, 2), chosen, noise=Plus()).run()
    names = trainable(task.build())
    assert 0 < len(names) <= len(published.artifact.tensors)
    for model in (published, outcome.after):
        plain, noisy = model.state, model.artifact.tensors
        for tensor in plain:
            wanted = plain[tensor] + sigma if tensor in names else plain[tensor]
            assert torch.equal(noisy[tensor], wanted)


@pytest.mark.parametrize("name", REWINDING)
def test_check_05_stored_iterates_stay_un_noised(name):
    case, trained = ready(name, 0)
    fresh = case.recipe.fit(case.task, case.data, seed=0)
    outcome = planning.plan(trained, case.request, method("r2d", rewind=0.5)).run()
    for trail in (trained.trail, outcome.after.trail):
        assert trail.steps and all(equal(trail.at(step), fresh.trail.at(step)) for step in trail.steps)
    assert max(outcome.after.trail.steps) == rewind_step(
        case.recipe.steps, 0.5
    )  # what the removed rows shaped later is gone
    assert equal(trained.secret, fresh.artifact.tensors)


WIDE = (64, 1500, 10)  # 112,510 weights


@pytest.fixture(scope="module")
def wide():
    rows = Rows.of(np.random.default_rng(0).standard_normal((12, 64)), np.arange(12) % 10)
    trained = planning.train(smooth_network(WIDE), rows, GradientDescent(steps=2, lr=0.1, rewinds=(0.5, 1.0)))
    return planning.publish(trained, Budget(None, 1e-5, 3, sigma=0.3))


def noise_of(plain, noisy) -> np.ndarray:
    return np.concatenate([(noisy[n].double() - plain[n].double()).ravel().numpy() for n in plain])


def test_check_05_noise_has_the_published_deviation_and_no_two_releases_share_it(wide):
    vectors = [noise_of(wide.state, wide.artifact.tensors)]
    trained = wide
    for ids in ((0,), (1,), (2,)):
        outcome = planning.plan(trained, samples(*ids), method("r2d", rewind=0.5)).run()
        vectors.append(noise_of(outcome.after.state, outcome.releases[0].artifact.tensors))
        trained = outcome.after
    assert min(vector.size for vector in vectors) >= 100_000
    for vector in vectors:
        assert vector.std() == pytest.approx(0.3, rel=0.01) and abs(vector.mean()) < 5 * 0.3 / vector.size**0.5
    correlation = np.corrcoef(vectors) - np.eye(4)
    assert abs(correlation).max() < 6 / vectors[0].size ** 0.5


@pytest.mark.parametrize("name", ["head", "network", "concave quadratic"])
def test_check_06_publishing_without_noise_needs_the_explicit_wish(name):
    case = CASES[name]
    with pytest.raises(InputError, match="unnoised=True"):
        planning.publish(case.train(), Budget(None, 1e-5, 6, sigma=0.0), method=method("r2d"))
    with pytest.raises(InputError, match="neither"):
        Budget(None, 1e-5, 6)
    trained = case.publish()
    assert not equal(trained.artifact.tensors, trained.state)
    with pytest.raises(InputError, match="published already"):
        planning.publish(trained, Budget(None, 1e-5, 6, sigma=0.0, unnoised=True))


@pytest.mark.parametrize("rewind", [0.5, 1.0])
@pytest.mark.parametrize("name", ["head", "network", "concave quadratic"])
def test_check_06_the_explicit_wish_voids_every_certificate(name, rewind):
    case, trained = ready(name, 0, epsilon=None, sigma=0.0, unnoised=True)
    assert equal(trained.artifact.tensors, trained.state)
    outcome = planning.plan(trained, case.request, method("r2d", rewind=rewind)).run()
    assert outcome.verdict == Verdict.VOID
    assert outcome.certificate.sigma == 0


@pytest.mark.parametrize("name", ["descent_to_delete", "newton"])
def test_check_06_holds_for_other_methods_too(name):
    case, trained = ready("convex quadratic", 0, epsilon=None, sigma=0.0, unnoised=True)
    outcome = planning.plan(trained, case.request, method(name)).run()
    assert outcome.verdict == Verdict.VOID


def test_check_16_bfloat16_weights_get_their_noise_in_single_precision():
    weights = {"w": torch.full((4096,), 2.0, dtype=torch.bfloat16)}  # spacing 0.0156 around 2
    draws = np.random.default_rng(0).standard_normal(4096)
    noisy, precision = add_noise(weights, 0.01, lambda count: draws[:count])
    wide = torch.full((4096,), 2.0) + torch.from_numpy(draws * 0.01).float()
    assert precision == "float32" and noisy["w"].dtype == torch.bfloat16
    assert torch.equal(noisy["w"], wide.bfloat16())


@pytest.mark.parametrize("seed", [0, 1])
def test_check_16_a_bfloat16_model_is_published_and_unlearned_with_single_precision_noise(seed):
    task = smooth_network(dtype=torch.bfloat16)
    recipe = GradientDescent(steps=10, lr=0.3, constants={"smoothness": 1.0, "gradient_bound": 5.0}, rewinds=(0.5, 1.0))
    trained = planning.publish(planning.train(task, blobs(), recipe, seed=seed), Budget(None, 1e-5, 6, 0.05))
    outcome = planning.plan(trained, samples(1), method("r2d", rewind=0.5)).run()
    held = {a.name: a for a in outcome.certificate.assumptions}["noise_precision"]
    assert held.value == "float32" and held.status == "holds"
    assert outcome.releases[0].artifact.tensors["1.weight"].dtype == torch.bfloat16
    assert not RULES["noise_precision"].holds("bfloat16")


@pytest.mark.parametrize(("steps", "lr"), [(4000, 1e-3), (1000, 4e-3)])
def test_check_16_an_exponent_of_ten_thousand_is_infinite_and_refused(steps, lr):
    recipe = GradientDescent(steps=steps, lr=lr, constants={"smoothness": 2500.0, "gradient_difference": 2.0})
    assert recipe.lr * 2500 * recipe.steps == pytest.approx(1e4)
    case = replace(CASES["convex quadratic"], recipe=recipe)  # declared far less smooth than it is
    trained = case.train()
    with pytest.raises(InputError, match=r"infinite for eta L T = 1e\+04"):
        planning.publish(trained, Budget(1.0, 1e-5, 5), method=method("r2d"))
    by_hand = planning.publish(trained, Budget(None, 1e-5, 5, sigma=1.0), method=method("r2d"))
    outcome = planning.plan(by_hand, samples(0, 1), method("r2d")).run()
    assert outcome.certificate.sensitivity == np.inf == outcome.certificate.epsilon
    assert outcome.verdict == Verdict.VOID and outcome.certificate.to_json()["epsilon"] is None


def test_check_17_nothing_forgotten_has_no_sensitivity():
    for case in ("head", "network", "concave quadratic"):
        trained = CASES[case].publish()
        r2d, chosen = method("r2d"), theorem("rewind-to-delete")
        values = [chosen.evaluate(parameters_of(chosen, r2d.parameters(trained, m), trained.facts)) for m in (0, 1)]
        assert values[0].sensitivity == 0 == values[0].mu(1.0) < values[1].sensitivity


@pytest.mark.parametrize("name", ["r2d", "descent_to_delete", "newton"])
@pytest.mark.parametrize("m", [40, 41, 1000])
def test_check_17_forgetting_everything_is_rejected(name, m):
    case = CASES["convex quadratic"]
    with pytest.raises(InputError):
        planning.publish(case.train(), Budget(1.0, 1e-5, m), method=method(name))
    with pytest.raises(InputError, match=r"matches everything|Nothing was forgotten"):
        planning.plan(case.publish(), samples(*range(m)), method(name))
    assert len(points()) == 40 and len(points().without(Ids.rows(range(40)))) == 0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_check_17_epsilon_outside_its_domain_is_rejected(epsilon):
    with pytest.raises(InputError, match="epsilon > 0"):
        Budget(epsilon, 1e-5, 1)
    with pytest.raises(InputError):
        method("noisy_fine_tune", epsilon=epsilon)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, float("nan")])
def test_check_17_delta_outside_its_domain_is_rejected(delta):
    with pytest.raises(InputError, match="delta strictly between"):
        Budget(1.0, delta, 1)
    with pytest.raises(InputError):
        method("noisy_fine_tune", delta=delta)


def test_check_17_an_infinite_epsilon_derives_no_noise():
    with pytest.raises(InputError):
        planning.publish(CASES["head"].train(), Budget(float("inf"), 1e-5, 3), method=method("r2d"))


@pytest.mark.parametrize("dtype, least", [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=str)
def test_derived_noise_never_drowns_in_rounding(dtype, least):
    """A bound of 1e-30 is turned into noise that exists; sigma does not depend on the rows."""
    task = Classification(functools.partial(SoftmaxHead, 64, 10), dtype=dtype)
    trained = expunge.train(task, digits()[0], GradientDescent(steps=300, lr=1.2, l2=0.5, rewinds=(0.75, 1.0)))
    for rewind in (0.75, 1.0):
        published = beside_ledger(expunge.publish(trained, Budget(1.0, 1e-5, 10), method=R2D(rewind=rewind)))
        assert published.budget.sigma == least
        outcome = expunge.plan(published, Request("a", Target("user", {"person": 3})), R2D(rewind=rewind)).run()
        assert outcome.verdict == "certified"
        assert outcome.certificate.epsilon < 1e-6


@pytest.mark.parametrize("sigma, status", [(1e-12, "violated"), (1e-3, "holds")])
def test_hand_picked_noise_below_the_spacing_of_weights_voids(sigma, status):
    task = Classification(functools.partial(SoftmaxHead, 64, 10), dtype=torch.float32)
    trained = expunge.train(task, digits()[0], GradientDescent(steps=40, lr=1.5, l2=0.1, rewinds=(0.5,)))
    published = expunge.publish(trained, Budget(None, 1e-5, 10, sigma=sigma), method=R2D(rewind=0.5))
    outcome = expunge.plan(published, Request("a", Target("user", {"person": 3})), R2D(rewind=0.5)).run()
    (found,) = [item for item in outcome.certificate.assumptions if item.name == "noise_resolved"]
    assert found.status == status
    assert outcome.verdict == ("void" if status == "violated" else "heuristic-noise")
