from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from expunge.core.errors import InputError
from expunge.metrics.membership import (
    auc,
    lira_scores,
    log_odds,
    logit_confidence,
    tpr_at_fpr,
)


def test_auc_agrees_with_scikit_learn_on_ties():
    generator = np.random.default_rng(0)
    for _ in range(20):
        above, below = generator.integers(0, 8, 11), generator.integers(0, 8, 30)
        expected = roc_auc_score(np.repeat([1, 0], [11, 30]), np.concatenate([above, below]))
        assert auc(above, below) == pytest.approx(expected)


def test_tpr_at_fpr_lets_no_more_negatives_pass_than_allowed():
    below = np.arange(100.0)
    above = np.array([98.5, 99.5, 200.0, 5.0])
    assert tpr_at_fpr(above, below, 0.0) == 0.5
    assert tpr_at_fpr(above, below, 0.01) == 0.75
    assert tpr_at_fpr(above, below, 0.009) == 0.5  # less than one negative may pass: none does
    assert tpr_at_fpr(above, below, 1.0) == 1.0
    assert tpr_at_fpr(np.ones(5), np.ones(5), 0.2) == 0.0  # all tied: no threshold separates


def test_logit_confidence_is_exact_where_the_naive_form_is_not():
    p = np.array([1e-12, 0.1, 0.5, 0.9])
    assert logit_confidence(-np.log(p)) == pytest.approx(np.log(p / (1 - p)), rel=1e-10)
    assert logit_confidence(np.array([1e-12])) == pytest.approx(np.log(1e12), rel=1e-10)
    assert logit_confidence(np.zeros(1)) == pytest.approx(36.04, abs=0.01)
    assert logit_confidence(np.zeros(1, np.float32)) == pytest.approx(15.94, abs=0.01)
    assert logit_confidence(np.array([800.0])) == pytest.approx(-800)


def test_log_odds_equals_logit_confidence_and_stacks():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(3, 7, 4)), generator.integers(0, 4, 7)
    found = log_odds(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    own = p[:, np.arange(7), labels]
    assert found.shape == (3, 7)
    assert found == pytest.approx(np.log(own / (1 - own)))
    assert log_odds(np.array([[500.0, 0.0]]), np.array([0])) == pytest.approx([500.0])


@pytest.fixture
def references():
    generator = np.random.default_rng(2)
    members = generator.permuted(np.repeat([[True], [False]], 20, axis=0) * np.ones(30, bool), axis=0)
    scores = generator.normal(generator.normal(0, 2, 30) + members * 1.5, 1.0)
    return generator.normal(size=30), scores, members


@pytest.mark.parametrize("variance", ["own", "shared"])
def test_lira_is_the_normal_log_likelihood_ratio_record_by_record(references, variance):
    target, scores, members = references
    groups = [(scores[members[:, i], i], scores[~members[:, i], i]) for i in range(30)]
    if variance == "own":
        spreads = [(a.std(ddof=1), b.std(ddof=1)) for a, b in groups]
    else:
        pooled = [np.sqrt(sum(((g[k] - g[k].mean()) ** 2).sum() for g in groups) / (30 * 19)) for k in (0, 1)]
        spreads = [tuple(pooled)] * 30
    online = [
        stats.norm.logpdf(t, a.mean(), s) - stats.norm.logpdf(t, b.mean(), r)
        for t, (a, b), (s, r) in zip(target, groups, spreads, strict=True)
    ]
    offline = [(t - b.mean()) / r for t, (_, b), (_, r) in zip(target, groups, spreads, strict=True)]
    assert lira_scores(target, scores, members, variance=variance) == pytest.approx(online)
    assert lira_scores(target, scores, members, variance=variance, online=False) == pytest.approx(offline)


def test_lira_variance_is_shared_below_64_references_and_own_from_there_on(references):
    target, scores, members = references
    assert lira_scores(target, scores, members) == pytest.approx(
        lira_scores(target, scores, members, variance="shared")
    )
    twice = np.concatenate([scores, scores + 0.1]), np.concatenate([members, members])
    assert lira_scores(target, *twice) == pytest.approx(lira_scores(target, *twice, variance="own"))


def test_lira_stays_finite_when_all_references_agree():
    members = np.tile([[True], [False]], (4, 5))
    assert np.isfinite(lira_scores(np.ones(5), np.zeros((8, 5)), members)).all()
    assert np.isfinite(lira_scores(np.ones(5), np.zeros((8, 5)), members, variance="own")).all()


def test_lira_finds_members_better_than_the_raw_score():
    generator = np.random.default_rng(3)
    hardness = generator.normal(0, 4, 400)  # records differ far more than membership moves them
    members = generator.permuted(np.tile([[True], [False]], (16, 400)), axis=0)
    scores = generator.normal(hardness + members, 1)
    inside = generator.random(400) < 0.5
    target = generator.normal(hardness + inside, 1)
    found = lira_scores(target, scores, members)
    assert auc(found[inside], found[~inside]) > 0.7 > 0.6 > auc(target[inside], target[~inside])
    offline = lira_scores(target, scores, members, online=False)
    assert auc(offline[inside], offline[~inside]) > 0.65


@pytest.mark.parametrize(
    "call",
    [
        lambda: tpr_at_fpr([1.0], [1.0], 2.0),
        lambda: logit_confidence([-1.0]),
        lambda: log_odds(np.zeros((2, 1)), np.zeros(2, int)),
        lambda: log_odds(np.zeros((2, 3)), np.array([0, 3])),
        lambda: lira_scores(np.zeros(2), np.zeros((4, 3)), np.zeros((4, 3), bool)),
        lambda: lira_scores(np.zeros(3), np.zeros((4, 3)), np.zeros((4, 3), bool)),
        lambda: lira_scores(np.zeros(3), np.zeros((4, 3)), np.zeros((4, 3))),
        lambda: lira_scores(np.full(3, np.inf), np.zeros((4, 3)), np.zeros((4, 3), bool)),
        lambda: lira_scores(np.zeros(3), np.zeros((4, 3)), np.zeros((4, 3), bool), variance="mine"),
    ],
)
def test_impossible_inputs_are_refused_in_words(call):
    with pytest.raises(InputError, match="Expected"):
        call()
