from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training import shadow_models
from expunge.training.descent import Step, descend
from expunge.training.ensembles import why_not_stackable
from expunge.training.shadow_models import (
    EnsembleSettings,
    describe_task,
    train_in_processes,
    train_one_by_one,
    train_shadow_models,
    train_stacked,
    unstacked,
    worth_stacking,
)

STEP = Step(lr=0.5, l2=0.01)
SEEDS = [3, 1, 4, 15]


def network() -> nn.Module:
    return perceptron([6, 5, 3])


def smooth() -> nn.Module:
    """A network without a closed form: autograd differentiates it."""
    return nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))


def with_statistics() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


class CentresBatch(nn.Sequential):
    def forward(self, x):
        return super().forward(x - x.mean(0))


def coupled() -> nn.Module:
    return CentresBatch(nn.Linear(6, 3))


def partly_frozen() -> nn.Module:
    model = perceptron([6, 5, 3])
    model[1].requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    return Rows.of(x, torch.randint(0, 3, (60,), generator=generator))


@pytest.fixture(scope="module")
def membership():
    generator = np.random.default_rng(1)
    matrix = generator.random((4, 60)) < np.array([[0.5], [0.9], [0.2], [0.5]])  # very different sizes
    matrix[:, 59] = False  # a row nobody uses
    return matrix


def in_double(factory) -> Classification:
    return Classification(factory, dtype=torch.float64)


def largest_gap(first, second) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_one_by_one_is_the_retraining_that_descend_makes_bit_for_bit(rows, membership):
    task = in_double(network)
    found = train_one_by_one(task, rows, membership, EnsembleSettings(STEP, steps=20), SEEDS)
    for r, seed in enumerate(SEEDS):
        own = task.batch(rows, torch.from_numpy(np.flatnonzero(membership[r])))
        alone, _ = descend(task, task.build(), task.build(seed=seed).state_dict(), own, STEP, 20)
        assert all(torch.equal(unstacked(found, r)[name], alone[name]) for name in alone)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("length", [{"steps": 25}, {"epochs": 5}])
@pytest.mark.parametrize("batch_size", [None, 8, 1000])
@pytest.mark.parametrize("factory", [network, partly_frozen, smooth])
def test_stacked_equals_training_each_reference_alone(rows, membership, factory, batch_size, length, momentum):
    task = in_double(factory)
    settings = EnsembleSettings(Step(0.1, 0.01), batch_size=batch_size, momentum=momentum, **length)
    alone = train_one_by_one(task, rows, membership, settings, SEEDS)
    together = train_stacked(task, rows, membership, settings, SEEDS)
    assert largest_gap(together, alone) < 1e-6
    assert largest_gap(together, {name: t + 1e-3 for name, t in alone.items()}) > 1e-6  # the comparison can fail


@pytest.mark.parametrize("factory", [network, smooth])
def test_full_batches_in_chunks_are_the_same(rows, membership, monkeypatch, factory):
    task, settings = in_double(factory), EnsembleSettings(STEP, steps=10)
    whole = train_stacked(task, rows, membership, settings, SEEDS)
    monkeypatch.setattr("expunge.training.ensembles.STACKED", 7)
    assert largest_gap(train_stacked(task, rows, membership, settings, SEEDS), whole) < 1e-12


def test_a_reference_does_not_depend_on_rows_it_was_not_given(rows, membership):
    task = in_double(network)
    other = Rows.of(rows.x.clone(), rows.y)
    other.x[~membership[0]] = 7.0
    for settings in (EnsembleSettings(STEP, steps=8), EnsembleSettings(STEP, epochs=2, batch_size=8)):
        found = [unstacked(train_stacked(task, data, membership, settings, SEEDS), 0) for data in (rows, other)]
        assert largest_gap(*found) < 1e-12


def test_a_batch_order_depends_on_its_seed_alone(rows, membership):
    task, settings = in_double(network), EnsembleSettings(STEP, epochs=2, batch_size=8)
    both = train_stacked(task, rows, membership, settings, SEEDS)
    last = train_stacked(task, rows, membership[2:], settings, SEEDS[2:])
    assert largest_gap(last, {name: tensor[2:] for name, tensor in both.items()}) < 1e-12
    same = train_stacked(task, rows, membership[[0, 0]], settings, [5, 6])
    assert largest_gap(unstacked(same, 0), unstacked(same, 1)) > 1e-3


def test_result_fits_the_task_and_training_leaves_random_state_alone(rows, membership):
    task = in_double(partly_frozen)
    state = torch.get_rng_state()
    for train in (train_stacked, train_one_by_one):
        found = train(task, rows, membership, EnsembleSettings(STEP, epochs=1, batch_size=16), SEEDS)
        assert all(not tensor.requires_grad and len(tensor) == 4 for tensor in found.values())
        task.build(unstacked(found, 1))
        frozen = task.build(seed=SEEDS[1]).state_dict()["1.weight"]
        assert torch.equal(found["1.weight"][1], frozen)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "factory, reason", [(with_dropout, "random"), (with_statistics, "more than 1 value"), (coupled, "other rows")]
)
def test_models_that_cannot_be_stacked_are_trained_one_by_one(rows, membership, factory, reason):
    task, settings = in_double(factory), EnsembleSettings(STEP, epochs=1, batch_size=16)
    assert not worth_stacking(task, rows, settings)
    with pytest.raises(InputError, match=f"(?i){reason}"):
        train_stacked(task, rows, membership, settings, SEEDS)
    found = train_shadow_models(task, rows, membership, settings, SEEDS)
    again = train_one_by_one(task, rows, membership, settings, SEEDS)
    assert largest_gap(found, again) == 0  # dropout follows the seed


def test_running_statistics_belong_to_the_result(rows, membership):
    found = train_one_by_one(in_double(with_statistics), rows, membership, EnsembleSettings(STEP, steps=3), SEEDS)
    assert found["1.running_mean"].abs().max() > 0 and (found["1.num_batches_tracked"] == 3).all()


def test_clipping_is_trained_one_by_one(rows, membership):
    task, settings = in_double(network), EnsembleSettings(Step(0.5, clip=0.1), steps=3)
    assert "clipped" in str(why_not_stackable(task, rows, settings))
    assert len(train_shadow_models(task, rows, membership, settings, SEEDS)["1.weight"]) == 4


@pytest.mark.parametrize(
    "factory, bound", [(smooth, "ROWS_TIMES_WEIGHTS"), (network, "ROWS_TIMES_WEIGHTS_IN_CLOSED_FORM")]
)
def test_the_rule_stacks_small_steps_only(rows, monkeypatch, factory, bound):
    task = in_double(factory)
    assert worth_stacking(task, rows, EnsembleSettings(STEP, steps=1))
    monkeypatch.setattr(shadow_models, bound, 16 * 53)  # the network has 53 weights
    assert worth_stacking(task, rows, EnsembleSettings(STEP, steps=1, batch_size=16))
    assert not worth_stacking(task, rows, EnsembleSettings(STEP, steps=1, batch_size=17))


@pytest.mark.slow
def test_processes_give_what_one_process_gives_and_report(rows, membership):
    task, settings = in_double(network), EnsembleSettings(STEP, steps=5)
    seen = []
    found = train_in_processes(
        task,
        rows,
        membership,
        settings,
        SEEDS,
        jobs=2,
        watch=lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert largest_gap(found, train_shadow_models(task, rows, membership, settings, SEEDS)) < 1e-12
    assert seen == [("models", 2, 4), ("models", 4, 4)]


def test_a_task_that_cannot_be_sent_is_refused_with_the_way_out(rows, membership):
    task = in_double(lambda: network())
    with pytest.raises(InputError, match="jobs=1"):
        train_shadow_models(task, rows, membership, EnsembleSettings(STEP, steps=1), SEEDS, jobs=2)


def test_progress_is_told(rows, membership):
    for train, total in ((train_stacked, 7), (train_one_by_one, 4)):
        seen = []
        train(
            in_double(network),
            rows,
            membership,
            EnsembleSettings(STEP, steps=7),
            SEEDS,
            watch=lambda *a, seen=seen: seen.append(a),
        )
        assert seen == [("models", i + 1, total) for i in range(total)]


def test_cache_returns_equal_content_and_is_purged_with_its_rows(rows, membership, tmp_path, monkeypatch):
    cache, task, settings = Cache(tmp_path), in_double(network), EnsembleSettings(STEP, steps=3)
    first = train_shadow_models(task, rows, membership, settings, SEEDS, cache=cache, tags=["audit"])
    monkeypatch.setattr(shadow_models, "train_stacked", lambda *a, **k: pytest.fail("computed twice"))
    again = train_shadow_models(task, rows, membership, settings, SEEDS, cache=cache, tags=["audit"])
    assert largest_gap(first, again) == 0
    assert cache.entries(tag="audit") == cache.entries(tag=rows.digest) and len(cache.purge(rows.digest)) == 1


def test_cache_key_sees_everything_that_decides_the_result(rows, membership, tmp_path):
    cache, settings = Cache(tmp_path), EnsembleSettings(STEP, steps=1)
    other_rows = Rows.of(rows.x + 1, rows.y)
    flipped = membership.copy()
    flipped[0, 0] = ~flipped[0, 0]
    for arguments in (
        (in_double(network), rows, membership, settings, SEEDS),
        (in_double(partial(perceptron, [6, 5, 3], beta=0.3)), rows, membership, settings, SEEDS),
        (in_double(network), other_rows, membership, settings, SEEDS),
        (in_double(network), rows, flipped, settings, SEEDS),
        (in_double(network), rows, membership, EnsembleSettings(STEP, steps=2), SEEDS),
        (in_double(network), rows, membership, settings, [3, 1, 4, 16]),
        (Classification(network), rows, membership, settings, SEEDS),
    ):
        before = len(cache.entries())
        train_shadow_models(*arguments, cache=cache)
        assert len(cache.entries()) == before + 1


def test_tasks_that_differ_only_in_a_constant_are_told_apart(rows):
    # same lambda name, same shapes, same (zero) start: only what they compute differs
    first, second = (in_double(lambda radius=radius: SoftmaxHead(6, 3, radius)) for radius in (1.0, 2.0))
    assert describe_task(first, rows, [0]) != describe_task(second, rows, [0])
    assert describe_task(first, rows, [0]) == describe_task(first, rows, [0])


def test_divergence_names_the_reference(rows, membership):
    settings = EnsembleSettings(Step(1e30, l2=1.0), steps=30)
    for train in (train_stacked, train_one_by_one):
        with pytest.raises(InputError, match=r"diverged.*smaller step size"):
            train(Classification(network), rows, membership, settings, SEEDS)


@pytest.mark.parametrize(
    "call",
    [
        lambda rows, m: EnsembleSettings(STEP),
        lambda rows, m: EnsembleSettings(STEP, steps=1, epochs=1),
        lambda rows, m: EnsembleSettings(STEP, steps=0),
        lambda rows, m: EnsembleSettings(STEP, steps=1, batch_size=0),
        lambda rows, m: EnsembleSettings(STEP, steps=1, momentum=1.0),
        lambda rows, m: train_shadow_models(in_double(network), rows, m[:, 1:], EnsembleSettings(STEP, steps=1), SEEDS),
        lambda rows, m: train_shadow_models(in_double(network), rows, m * 1, EnsembleSettings(STEP, steps=1), SEEDS),
        lambda rows, m: train_shadow_models(
            in_double(network), rows, m & False, EnsembleSettings(STEP, steps=1), SEEDS
        ),
        lambda rows, m: train_shadow_models(
            in_double(network), rows, m, EnsembleSettings(STEP, steps=1), [-1, 2, 3, 4]
        ),
        lambda rows, m: train_in_processes(in_double(network), rows, m, EnsembleSettings(STEP, steps=1), SEEDS, jobs=0),
    ],
)
def test_impossible_inputs_are_refused_in_words(rows, membership, call):
    with pytest.raises(InputError, match="Expected"):
        call(rows, membership)
