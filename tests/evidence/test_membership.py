from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.evidence.membership import AttackResult, Shadows, attacked, shadow_members
from expunge.evidence.outputs import example_losses, example_outputs
from expunge.metrics.membership import lira_scores, log_odds
from expunge.modalities.classification.readings import ATTACKS, read, score
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron
from expunge.training.descent import Step
from expunge.training.shadow_models import EnsembleSettings, train_shadow_models, unstacked

TASK = Classification(lambda: perceptron([64, 16, 10]))
SETTINGS = EnsembleSettings(Step(lr=0.1), steps=300, batch_size=32, momentum=0.9)
RETAINED, FORGOTTEN, HELD_OUT = 100, 40, 60
SEEDS = 6


def only(rows: Rows, at) -> Rows:
    return rows.only(Ids.rows(np.asarray(at)))


@pytest.fixture(scope="module")
def splits():
    """Forgotten and held-out rows drawn at random from the same images, six times."""
    rows, _ = digits()
    orders = [np.random.default_rng(seed).permutation(len(rows)) for seed in range(SEEDS)]
    bounds = np.cumsum([RETAINED, FORGOTTEN, HELD_OUT])
    return [[only(rows, part) for part in np.split(order, bounds)[:3]] for order in orders]


def attack(name: str, tensors, forget: Rows, holdout: Rows, shadows: Shadows | None = None, **how) -> AttackResult:
    """One of the classifiers' attacks on a model that is read anew."""
    wanted = next(each for each in ATTACKS if each.name == name)
    return attacked(wanted, read(TASK, tensors, {"forget": forget, "test": holdout}), shadows, **how)


def joined(*parts: Rows) -> Rows:
    return Rows.of(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


@pytest.fixture(scope="module")
def models(splits):
    """For each split the original model (trained on retained and forgotten rows) and the retrained one."""
    membership = np.ones((2, RETAINED + FORGOTTEN), dtype=bool)
    membership[1, RETAINED:] = False
    stacked = [
        train_shadow_models(TASK, joined(retained, forget), membership, SETTINGS, [2 * i, 2 * i + 1])
        for i, (retained, forget, _) in enumerate(splits)
    ]
    return [(unstacked(tensors, 0), unstacked(tensors, 1)) for tensors in stacked]


@pytest.fixture(scope="module")
def shadows(splits):
    """Shadow models of the first two splits, as they read the pool."""
    found = []
    for seed, (retained, forget, holdout) in enumerate(splits[:2]):
        members = shadow_members(RETAINED, FORGOTTEN + HELD_OUT, 16, np.random.default_rng(seed))
        pool = joined(retained, forget, holdout)
        tensors = train_shadow_models(TASK, pool, members, SETTINGS, range(100, 116))
        sets = {"forget": forget, "test": holdout}
        readings = tuple(read(TASK, unstacked(tensors, i), sets) for i in range(16))
        found.append(Shadows(readings, members[:, RETAINED:], np.arange(HELD_OUT)))
    return found


@pytest.mark.parametrize("name", ["loss", "confidence"])
def test_check_15_attacks_find_nothing_in_retrained_models(splits, models, name):
    areas = []
    for (_, forget, holdout), (_, retrained) in zip(splits, models, strict=True):
        found = attack(name, retrained, forget, holdout)
        assert abs(found.auc.value - 0.5) <= 3 * found.null_error
        areas.append((found.auc.value - 0.5) / found.null_error)
    assert abs(np.mean(areas)) <= 3 / SEEDS**0.5  # nor on average


def test_check_15_lira_finds_nothing_in_retrained_models(splits, models, shadows):
    for (_, forget, holdout), (_, retrained), scores in zip(splits, models, shadows, strict=False):
        for online in (True, False):
            found = attack("lira", retrained, forget, holdout, scores, online=online)
            assert abs(found.auc.value - 0.5) <= 3 * found.null_error


def test_attacks_do_find_members_in_the_original_models(splits, models, shadows):
    z = [
        (found.auc.value - 0.5) / found.null_error
        for (_, forget, holdout), (original, _) in zip(splits, models, strict=True)
        for found in [attack("loss", original, forget, holdout)]
    ]
    assert np.mean(z) > 3 / SEEDS**0.5
    (_, forget, holdout), (original, retrained) = splits[0], models[0]
    lira = [attack("lira", tensors, forget, holdout, shadows[0]) for tensors in (original, retrained)]
    assert lira[0].auc.value - 0.5 > 3 * lira[0].null_error  # the negative control of check 15


def test_loss_attack_is_blind_to_nothing_but_order(splits, models):
    (_, forget, holdout), (original, _) = splits[0], models[0]
    found = attack("loss", original, forget, holdout)
    assert found.n == (FORGOTTEN, HELD_OUT)
    assert found.auc.covers(found.auc.value) and found.auc.pair is not None
    swapped = attack("loss", original, holdout, forget)
    assert swapped.auc.value == pytest.approx(1 - found.auc.value)


def test_confidence_orders_rows_as_the_largest_probability(splits, models):
    (_, forget, holdout), (original, _) = splits[0], models[0]
    found = attack("confidence", original, forget, holdout)
    model = TASK.build(original)
    with torch.no_grad():
        largest = model(forget.x).double().softmax(-1).max(-1).values.numpy()
    assert (np.argsort(found.forgotten) == np.argsort(largest)).all()


def test_the_likelihood_ratio_compares_each_example_with_shadow_models_own_log_odds(splits):
    _, forget, holdout = splits[0]
    members = shadow_members(3, len(forget) + len(holdout), 4, np.random.default_rng(0))[:, 3:]
    weights = [dict(TASK.build(seed=seed).state_dict()) for seed in range(5)]
    sets = {"forget": forget, "test": holdout}
    pool = np.arange(10, 50)  # not all held-out examples are attacked
    members = members[:, : len(forget) + len(pool)]
    readings = tuple(read(TASK, each, {**sets, "test": only(holdout, holdout.ids[pool])}) for each in weights[1:])
    found = attack("lira", weights[0], forget, holdout, Shadows(readings, members, pool))

    def odds(tensors) -> np.ndarray:
        model = TASK.build(tensors).eval()
        with torch.no_grad():
            parts = [log_odds(model(rows.x).double().numpy(), rows.y.numpy()) for rows in (forget, holdout)]
        return np.concatenate([parts[0], parts[1][pool]])

    expected = lira_scores(odds(weights[0]), np.stack([odds(each) for each in weights[1:]]), members)
    assert np.concatenate([found.forgotten, found.heldout]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_shadow_members_hold_each_example_of_the_pool_in_half_of_the_models():
    matrix = shadow_members(5, 40, 8, np.random.default_rng(0))
    assert matrix.shape == (8, 45) and matrix[:, :5].all()
    assert (matrix[:, 5:].sum(0) == 4).all()
    assert len({tuple(column) for column in matrix[:, 5:].T}) > 20  # examples draw on their own
    assert (matrix == shadow_members(5, 40, 8, np.random.default_rng(0))).all()


def test_scores_of_classifiers_count_and_average(splits, models):
    (retained, forget, _), (_, retrained) = splits[0], models[0]

    def scores(sets) -> dict:
        return {each.place: each for each in score(read(TASK, retrained, sets))}

    found = scores({"retain": retained, "forget": forget})
    model = TASK.build(retrained).eval()
    with torch.no_grad():
        logits = model(forget.x)
    right = int((logits.argmax(1) == forget.y).sum())
    assert found["accuracy", "forget"].value == right / FORGOTTEN and found["accuracy", "forget"].n == FORGOTTEN
    expected = nn.functional.cross_entropy(logits, forget.y)
    assert found["loss", "forget"].value == pytest.approx(float(expected), rel=1e-5)
    assert found["accuracy", "retain"].value > 0.95
    single = scores({"one": only(forget, forget.ids[:1])})
    assert single["loss", "one"].interval is None and single["accuracy", "one"].interval is not None
    losses = example_losses(TASK, retrained, {"forget": forget})["forget"]
    assert losses.mean() == found["loss", "forget"].value  # what tasks without a modality are measured by


def test_measuring_runs_in_evaluation_mode_in_batches_and_changes_nothing(splits, monkeypatch):
    task = Classification(
        lambda: nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))
    )
    tensors = dict(task.build().state_dict())
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    state = torch.get_rng_state()
    sets = {"forget": splits[0][1]}
    whole = example_outputs(task, tensors, sets)["forget"]
    monkeypatch.setattr("expunge.evidence.outputs.OUTPUTS", 7)
    parts = example_outputs(task, tensors, sets)["forget"]
    assert parts.losses == pytest.approx(whole.losses, abs=1e-6) and (parts.correct == whole.correct).all()
    assert all(torch.equal(tensors[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)


class Smoothed(Classification):
    """Another loss than its type's."""

    def losses(self, model, params, batch):
        return nn.functional.cross_entropy(
            self.outputs(model, params, batch).logits, batch["y"], reduction="none", label_smoothing=0.1
        )


def test_each_set_takes_one_pass_and_a_task_with_a_loss_of_its_own_is_measured_by_that(splits, models):
    forget, passes = splits[0][1], []

    def counted():
        model = TASK.factory()
        model.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
        return model

    example_outputs(Classification(counted), models[0][0], {"forget": forget})
    assert passes == [len(forget)]
    outputs = example_outputs(Smoothed(TASK.factory), models[0][0], {"forget": forget})["forget"]
    expected = nn.functional.cross_entropy(
        torch.from_numpy(outputs.logits), forget.y, reduction="none", label_smoothing=0.1
    )
    assert outputs.losses == pytest.approx(expected.numpy(), abs=1e-5)


def test_impossible_inputs_are_refused_in_words(splits, models):
    (_, forget, holdout), (original, _) = splits[0], models[0]
    empty = only(forget, np.empty(0, np.int64))
    broken = {name: tensor * torch.nan for name, tensor in original.items()}
    few = Shadows((read(TASK, original, {"forget": forget, "test": holdout}),), np.ones((1, 3), bool), np.arange(3))
    for call in (
        lambda: read(TASK, original, {"none": empty}),
        lambda: example_losses(TASK, original, {"none": empty}),
        lambda: read(TASK, broken, {"forgotten": forget}),
        lambda: example_losses(TASK, broken, {"forgotten": forget}),
        lambda: attack("loss", {"w": torch.zeros(1)}, forget, holdout),
        lambda: attack("lira", original, forget, holdout, few),
        lambda: attack("lira", original, forget, holdout),
        lambda: shadow_members(1, 2, 3, np.random.default_rng(0)),
    ):
        with pytest.raises(InputError, match=r"Expected|another architecture"):
            call()
