from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.evidence.membership import (
    ReferenceScores,
    confidence_attack,
    difference_test,
    lira_attack,
    loss_attack,
    reference_membership,
    reference_scores,
)
from expunge.evidence.utility import row_outputs, utility
from expunge.metrics.membership import log_odds
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
def references(splits):
    """LiRA references of the first two splits, and what they say about the pool."""
    found = []
    for seed, (retained, forget, holdout) in enumerate(splits[:2]):
        membership = reference_membership(RETAINED, FORGOTTEN + HELD_OUT, 16, np.random.default_rng(seed))
        pool = joined(retained, forget, holdout)
        tensors = train_shadow_models(TASK, pool, membership, SETTINGS, range(100, 116))
        found.append(reference_scores(TASK, tensors, membership, forget, holdout))
    return found


@pytest.mark.parametrize("attack", [loss_attack, confidence_attack])
def test_check_15_attacks_find_nothing_in_retrained_models(splits, models, attack):
    areas = []
    for (_, forget, holdout), (_, retrained) in zip(splits, models, strict=True):
        found = attack(TASK, retrained, forget, holdout)
        assert abs(found.auc.value - 0.5) <= 3 * found.null_error
        areas.append((found.auc.value - 0.5) / found.null_error)
    assert abs(np.mean(areas)) <= 3 / SEEDS**0.5  # nor on average


def test_check_15_lira_finds_nothing_in_retrained_models(splits, models, references):
    for (_, forget, holdout), (_, retrained), scores in zip(splits, models, references, strict=False):
        for online in (True, False):
            found = lira_attack(TASK, retrained, forget, holdout, scores, online=online)
            assert abs(found.auc.value - 0.5) <= 3 * found.null_error


def test_attacks_do_find_members_in_the_original_models(splits, models, references):
    z = [
        (found.auc.value - 0.5) / found.null_error
        for (_, forget, holdout), (original, _) in zip(splits, models, strict=True)
        for found in [loss_attack(TASK, original, forget, holdout)]
    ]
    assert np.mean(z) > 3 / SEEDS**0.5
    (_, forget, holdout), (original, retrained) = splits[0], models[0]
    lira = [lira_attack(TASK, tensors, forget, holdout, references[0]) for tensors in (original, retrained)]
    assert lira[0].auc.value - 0.5 > 3 * lira[0].null_error  # the negative control of check 15
    difference = difference_test(*lira)
    assert difference.p < 0.01 and difference.interval.low > 0


def test_loss_attack_is_blind_to_nothing_but_order(splits, models):
    (_, forget, holdout), (original, _) = splits[0], models[0]
    found = loss_attack(TASK, original, forget, holdout)
    assert found.n == (FORGOTTEN, HELD_OUT)
    assert found.auc.covers(found.auc.value) and found.auc.pair is not None
    swapped = loss_attack(TASK, original, holdout, forget)
    assert swapped.auc.value == pytest.approx(1 - found.auc.value)
    assert difference_test(found, found).p == 1


def test_confidence_orders_rows_as_the_largest_probability(splits, models):
    (_, forget, holdout), (original, _) = splits[0], models[0]
    found = confidence_attack(TASK, original, forget, holdout)
    model = TASK.build(original)
    with torch.no_grad():
        largest = model(forget.x).double().softmax(-1).max(-1).values.numpy()
    assert (np.argsort(found.forgotten) == np.argsort(largest)).all()


def test_reference_scores_are_each_references_own(splits):
    _, forget, holdout = splits[0]
    members = [TASK.build(seed=seed) for seed in (0, 1)]
    stacked = {name: torch.stack([m.state_dict()[name] for m in members]) for name in members[0].state_dict()}
    membership = reference_membership(3, len(forget) + len(holdout), 2, np.random.default_rng(0))
    found = reference_scores(TASK, stacked, membership, forget, holdout)
    assert (found.members == membership[:, 3:]).all()
    for r, model in enumerate(members):
        with torch.no_grad():
            expected = log_odds(model(holdout.x).numpy(), holdout.y.numpy())
        assert found.scores[r, len(forget) :] == pytest.approx(expected, abs=1e-5)


def test_reference_membership_puts_each_pool_row_in_half_of_the_references():
    matrix = reference_membership(5, 40, 8, np.random.default_rng(0))
    assert matrix.shape == (8, 45) and matrix[:, :5].all()
    assert (matrix[:, 5:].sum(0) == 4).all()
    assert len({tuple(column) for column in matrix[:, 5:].T}) > 20  # rows draw on their own
    assert (matrix == reference_membership(5, 40, 8, np.random.default_rng(0))).all()


def test_utility_counts_and_averages(splits, models):
    (retained, forget, _), (_, retrained) = splits[0], models[0]
    found = utility(TASK, retrained, {"retained": retained, "forgotten": forget})
    model = TASK.build(retrained).eval()
    with torch.no_grad():
        logits = model(forget.x)
    right = int((logits.argmax(1) == forget.y).sum())
    assert found["forgotten"].accuracy.value == right / FORGOTTEN and found["forgotten"].rows == FORGOTTEN
    expected = nn.functional.cross_entropy(logits, forget.y)
    assert found["forgotten"].loss.value == pytest.approx(float(expected), rel=1e-5)
    assert found["retained"].accuracy.value > 0.95
    single = utility(TASK, retrained, {"one": only(forget, forget.ids[:1])})["one"]
    assert single.loss.pair is None and single.accuracy.pair is not None


def test_measuring_runs_in_evaluation_mode_in_batches_and_changes_nothing(splits, monkeypatch):
    task = Classification(
        lambda: nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))
    )
    tensors = dict(task.build().state_dict())
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    state = torch.get_rng_state()
    whole = row_outputs(task, tensors, splits[0][1])
    monkeypatch.setattr("expunge.evidence.utility.OUTPUTS", 7)
    parts = row_outputs(task, tensors, splits[0][1])
    assert parts.losses == pytest.approx(whole.losses, abs=1e-6) and (parts.correct == whole.correct).all()
    assert all(torch.equal(tensors[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)


def test_impossible_inputs_are_refused_in_words(splits, models):
    (_, forget, holdout), (original, _) = splits[0], models[0]
    empty = only(forget, np.empty(0, np.int64))
    broken = {name: tensor * torch.nan for name, tensor in original.items()}
    stacked = {name: tensor[None] for name, tensor in original.items()}
    found = loss_attack(TASK, original, forget, holdout)
    odd = ReferenceScores(np.zeros((2, 3)), np.zeros((2, 3), bool))
    for call in (
        lambda: utility(TASK, original, {"none": empty}),
        lambda: utility(TASK, broken, {"forgotten": forget}),
        lambda: loss_attack(TASK, {"w": torch.zeros(1)}, forget, holdout),
        lambda: lira_attack(TASK, original, forget, holdout, odd),
        lambda: reference_membership(1, 2, 3, np.random.default_rng(0)),
        lambda: reference_scores(TASK, stacked, np.ones((1, 4), bool), forget, holdout),
        lambda: difference_test(found, confidence_attack(TASK, original, forget, holdout)),
        lambda: difference_test(found, loss_attack(TASK, original, forget, forget)),
    ):
        with pytest.raises(InputError, match=r"Expected|another architecture"):
            call()
