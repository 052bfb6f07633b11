from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from expunge.core.errors import InputError
from expunge.metrics.membership import tpr_at_fpr
from expunge.metrics.ulira import ulira, ulira_scores


def by_loop(u, r, variance):
    """Each model at each example, with fresh fits that leave out model j of both groups."""
    models, n = u.shape
    scores = np.empty((2, models, n))
    for j in range(models):
        rest = [np.delete(group, j, axis=0) for group in (u, r)]
        shared = [np.mean(group.var(0, ddof=1)) for group in rest]
        for i in range(n):
            logs = []
            for group, pooled in zip(rest, shared, strict=True):
                own = max(group[:, i].var(ddof=1), 0.01 * pooled)
                logs.append(stats.norm(group[:, i].mean(), np.sqrt(own if variance == "own" else pooled)))
            for side, group in enumerate((u, r)):
                scores[side, j, i] = logs[0].logpdf(group[j, i]) - logs[1].logpdf(group[j, i])
    return scores


@pytest.mark.parametrize("variance", ["own", "shared"])
def test_scores_equal_a_loop_that_refits_without_the_scored_model(variance):
    generator = np.random.default_rng(0)
    u, r = generator.normal(3, 1, (6, 5)), generator.normal(0, generator.uniform(0.1, 3, 5), (6, 5))
    u[:, 2] = 1.0 + 1e-9 * u[:, 2]  # the floor holds
    assert np.stack(ulira_scores(u, r, variance=variance)) == pytest.approx(by_loop(u, r, variance), rel=1e-5)


@pytest.mark.parametrize("variance", ["own", "shared"])
@pytest.mark.parametrize("models", [3, 6])
def test_without_difference_the_expected_accuracy_is_one_half(variance, models):
    generator = np.random.default_rng(1)
    found = [
        ulira(
            generator.normal(size=(models, 30)), generator.normal(size=(models, 30)), variance=variance
        ).accuracy.value
        for _ in range(500)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / np.sqrt(500))


def test_interval_covers_one_half_under_the_null_even_where_models_shift_all_examples_together():
    generator = np.random.default_rng(2)
    covered = []
    for _ in range(200):
        u, r = (generator.normal(size=(24, 40)) + generator.normal(size=(24, 1)) for _ in range(2))
        covered.append(ulira(u, r).accuracy.covers(0.5))
    # All models enter each other's fits, so Student's interval over models is not exact; over examples alone it would
    # cover far less.
    assert np.mean(covered) >= 0.75


def test_accuracy_nears_the_best_possible_one():
    generator = np.random.default_rng(3)
    u, r = generator.normal(2, 1, (64, 500)), generator.normal(0, 1, (64, 500))
    found = ulira(u, r, generator=generator)
    assert found.accuracy.value == pytest.approx(stats.norm.cdf(1), abs=0.01) and found.fit_for_headline
    assert found.tpr.value == pytest.approx(stats.norm.sf(stats.norm.isf(0.01) - 2), abs=0.03)
    assert found.tpr.covers(found.tpr.value) and found.tpr.high - found.tpr.low < 0.1
    assert found.area == pytest.approx(stats.norm.cdf(2 / np.sqrt(2)), abs=0.01)
    assert found.examples.shape == (500,) and found.examples.mean() == pytest.approx(found.accuracy.value)


def test_rate_is_the_one_of_all_pairs_and_its_interval_follows_the_generator():
    generator = np.random.default_rng(4)
    u, r = generator.normal(1, 1, (10, 50)), generator.normal(0, 1, (10, 50))
    above, below = ulira_scores(u, r)
    first, second = (ulira(u, r, generator=np.random.default_rng(5)) for _ in range(2))
    assert first.tpr == second.tpr and first.tpr.value == tpr_at_fpr(above.ravel(), below.ravel(), 0.01)
    assert ulira(u, r).tpr.pair is None and not first.fit_for_headline


def test_leaving_the_scored_model_in_would_find_what_is_not_there():
    """The negative control: plain likelihood ratios on the models that were fitted."""
    generator = np.random.default_rng(6)
    plain = []
    for _ in range(50):
        u, r = generator.normal(size=(6, 40)), generator.normal(size=(6, 40))
        logs = [stats.norm(group.mean(0), group.std(0, ddof=1)) for group in (u, r)]
        plain += [(logs[0].logpdf(u) > logs[1].logpdf(u)).mean(), (logs[1].logpdf(r) > logs[0].logpdf(r)).mean()]
    assert np.mean(plain) > 0.6


def test_unfit_matrices_are_refused():
    good = np.random.default_rng(7).normal(size=(5, 3))
    for u, r in ((good, good[:4]), (good[:2], good[:2]), (np.full((5, 3), np.inf), good)):
        with pytest.raises(InputError):
            ulira(u, r)
    with pytest.raises(InputError, match="own or shared"):
        ulira(good, good, variance="both")
    with pytest.raises(InputError, match="resamples"):
        ulira(good, good, resamples=1)
