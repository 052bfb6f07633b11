"""Which rows a model was trained on: recorded by every way of training, asked for by every plan (vision spec 6.1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import expunge
from cases import CASES, method, samples, softmax_head
from expunge import planning
from expunge.core.data import Ids
from expunge.core.errors import InputError, RefusedError
from expunge.core.trained import Origin
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.training.facts import TRAINING_IDS
from expunge.training.noisy import NoisyGradientDescent
from expunge.training.perturbed import PerturbedMinimiser
from expunge.training.recipes import GradientDescent, Stochastic, UserFit
from expunge.training.recorder import Recorder
from expunge.training.store import load_trained, save_trained

DESCENT = GradientDescent(steps=10, lr=0.5, l2=0.1)
HEAD = softmax_head(2, 3)


def own_code(data, seed):
    return HEAD.build(seed=seed)


RECIPES = [
    DESCENT,
    Stochastic(epochs=1, lr=0.1),
    NoisyGradientDescent(steps=2, lr=0.5, l2=0.1),
    PerturbedMinimiser(l2=0.5),
    UserFit(own_code),
]


def rows(n: int = 30, keep=slice(None)) -> Rows:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 2, generator=generator), torch.arange(n) % 3
    return Rows.of(x, y).only(Ids.rows(np.arange(n)[keep]))


def refused(trained, data, request=None) -> str:
    with pytest.raises(RefusedError, match="not the rows that this model was trained on") as refusal:
        planning.plan(replace(trained, data=data), request or samples(3), method("fine_tune"))
    return str(refusal.value)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_check_16_every_way_of_training_records_its_rows_and_other_rows_are_refused(recipe):
    data = rows(keep=slice(0, 20))
    trained = planning.train(HEAD, data, recipe)
    fact = trained.facts[TRAINING_IDS]
    assert (fact.value, fact.origin) == (Ids.rows(data.ids).digest, Origin.ENFORCED)
    planning.plan(trained, samples(3), method("fine_tune"))
    assert "At least 1 of its rows are missing" in refused(trained, rows(keep=slice(0, 19)))
    assert "At least 10 of the rows given it never saw" in refused(trained, rows())
    assert "at least one row given it never saw" in refused(trained, rows(keep=slice(1, 21)))
    assert "same split" in refused(trained, rows())


def test_check_16_a_recorded_loop_says_it_too():
    data = rows()
    recorder = Recorder(HEAD, data, DESCENT)
    model = HEAD.build()
    recorder.start(model)
    for _ in range(DESCENT.steps):
        model.zero_grad()
        penalty = sum(p.square().sum() for p in model.parameters())
        (nn.functional.cross_entropy(model(data.x.double()), data.y) + 0.05 * penalty).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad
        recorder.step(model)
    trained = recorder.finish(model)
    assert trained.facts[TRAINING_IDS].origin is Origin.ENFORCED
    refused(trained, rows(keep=slice(0, 29)))
    assert recorder.finish(model, replay=False).facts[TRAINING_IDS].origin is Origin.DECLARED


def test_check_16_the_same_ids_in_another_order_are_the_same_rows():
    data = rows()
    trained = planning.train(HEAD, data, DESCENT)
    turned = Rows(data.x.flip(0), data.y.flip(0), data.ids[::-1].copy())
    planning.plan(replace(trained, data=turned), samples(3), method("fine_tune"))


@pytest.mark.parametrize("name", ["fine_tune", "retrain", "r2d"])
def test_check_16_requests_follow_one_another_and_stay_checked(name, tmp_path):
    case = CASES["head"]
    trained = case.publish()
    first = planning.plan(trained, samples(3, 4), method(name)).run().after
    second = planning.plan(first, samples(5), method(name)).run().after
    third = planning.plan(second, samples(6), method(name)).run().after
    assert len(third.data) == 56
    if name == "retrain":  # it stands for what stayed, and for nothing that went before
        refused(second, case.data, samples(9))
    refused(second, second.data.without(Ids.rows([20])), samples(9))
    save_trained(tmp_path / "model", second)
    back = load_trained(tmp_path / "model", case.task, case.data if name != "retrain" else second.data)
    assert back.facts[TRAINING_IDS] == second.facts[TRAINING_IDS]
    planning.plan(back, samples(6), method("fine_tune"))
    refused(back, second.data.without(Ids.rows([20])), samples(9))


def test_check_16_material_is_no_way_around():
    trained = planning.train(HEAD, rows(), DESCENT)
    with pytest.raises(RefusedError, match="not the rows"):
        planning.plan(
            replace(trained, data=rows(keep=slice(0, 9))), samples(3), method("gradient_ascent"), material=rows(3)
        )


def test_check_16_an_adopted_model_has_no_record_to_hold_rows_against():
    adopted = expunge.adopt(HEAD, HEAD.build(), rows(keep=slice(0, 9)))
    assert TRAINING_IDS not in adopted.facts
    planning.plan(adopted, samples(3), method("fine_tune"))


def split(labels: np.ndarray, seed: int) -> np.ndarray:
    """Training positions after a tenth of each class went to validation, as a widely copied loader draws them."""
    generator = np.random.RandomState(seed)
    held = [
        generator.choice(np.flatnonzero(labels == label), int(0.1 * (labels == label).sum()), replace=False)
        for label in np.unique(labels)
    ]
    return np.setdiff1d(np.arange(len(labels)), np.concatenate(held))


def test_check_16_validation_splits_of_two_seeds_share_all_but_4488_rows_and_are_told_apart():
    labels = np.repeat(np.arange(10), 5000)
    first, second = split(labels, 1), split(labels, 2)
    assert len(first) == len(second) == 45_000 and len(np.setdiff1d(second, first)) == 4_488
    everything = Rows.of(torch.zeros(50_000, 2), labels)
    trained = planning.train(
        Classification(lambda: nn.Linear(2, 10)),
        everything.only(Ids.rows(first)),
        Stochastic(epochs=1, lr=0.1, batch_size=50_000),
    )
    request = samples(*np.intersect1d(first, second)[:5].tolist())
    planning.plan(trained, request, method("fine_tune"))
    refused(trained, everything.only(Ids.rows(second)), request)


# --- check 15: retraining -----------------------------------------------------------------------------------------------


class Spy(Classification):
    """Remembers every row that a batch held; each row's first number names it."""

    def losses(self, model, params, batch):
        SEEN.update(batch["x"].flatten(1)[:, 0].tolist())
        return super().losses(model, params, batch)


SEEN: set[float] = set()


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "recipe",
    [
        Stochastic(epochs=3, lr=0.1, batch_size=8, momentum=0.9),
        Stochastic(epochs=3, lr=0.01, batch_size=8, optimizer="adam"),
        GradientDescent(steps=5, lr=0.1),
    ],
    ids=["sgd", "adam", "descent"],
)
def test_check_15_retraining_builds_new_weights_and_no_batch_holds_a_forgotten_row(recipe, seed):
    task = Spy(network)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(30, 4, generator=generator)
    x[:, 0] = torch.arange(30)
    data = Rows.of(x, torch.randint(0, 3, (30,), generator=generator))
    SEEN.clear()
    trained = planning.train(task, data, recipe, seed=seed)
    assert set(range(30)) == SEEN, "the spy sees every row of the first training"
    SEEN.clear()
    outcome = planning.plan(trained, samples(3, 4, 25), method("retrain")).run()
    assert set(range(30)) - {3, 4, 25} == SEEN
    source, fresh = trained.artifact.tensors, outcome.releases[0].artifact.tensors
    for name, parameter in task.build().named_parameters():
        assert parameter.requires_grad and not torch.equal(source[name], fresh[name]), name
    again = recipe.fit(task, data.without(Ids.rows([3, 4, 25])), seed=seed).artifact
    assert again.digest == outcome.releases[0].artifact.digest


@pytest.mark.parametrize("function", [lambda: None, lambda data: None, lambda data, seed, other: None])
def test_a_training_function_that_cannot_be_called_with_data_and_seed_is_refused_before_it_is_called(function):
    with pytest.raises(InputError, match=r"fit\(data, seed\): the rows \(data.x, data.y\)"):
        UserFit(function)


def test_other_ways_to_write_a_training_function_are_taken():
    import functools

    class Loop:
        def __call__(self, rows, seed=0):
            raise AssertionError("nothing is called yet")

    for function in (Loop(), functools.partial(lambda lr, data, seed: None, 0.1), lambda *given: None):
        assert UserFit(function).describe()["recipe"] == "user"
