from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from expunge.core.errors import InputError
from expunge.metrics.intervals import (
    auc_interval,
    bootstrap,
    mean_interval,
    null_error,
    placements,
    wilson,
)


@pytest.mark.parametrize("successes, trials", [(0, 10), (3, 10), (10, 10), (1, 1), (250, 1000)])
def test_proportions_agree_with_scipy(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.9, "wilson")
    found = wilson(successes, trials, 0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.value == successes / trials and found.covers(found.value)


def test_mean_interval_is_students_and_has_no_bounds_for_one_value():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values).pair == pytest.approx((expected.low, expected.high))
    assert mean_interval([3.0]).pair is None and mean_interval([3.0]).value == 3.0
    assert mean_interval([3.0, np.inf]).pair is None


def test_bootstrap_follows_its_generator_and_keeps_pairs_together():
    values = np.random.default_rng(0).normal(size=(80, 2))
    values[:, 1] += values[:, 0] * 5  # the difference of paired columns is what varies
    first, second = (
        bootstrap(lambda v: v[:, 1].mean(), values, generator=np.random.default_rng(1), resamples=500) for _ in range(2)
    )
    assert first == second
    assert first.error == pytest.approx(values[:, 1].std(ddof=1) / 80**0.5, rel=0.15)
    two = bootstrap(lambda a, b: a.mean() - b.mean(), values[:, 0], values[:40, 0], generator=np.random.default_rng(2))
    assert two.low < two.value < two.high


def test_placements_average_to_the_area_and_delong_matches_its_definition():
    generator = np.random.default_rng(3)
    above, below = generator.integers(0, 6, 12).astype(float), generator.integers(0, 5, 9).astype(float)
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    p, n = placements(above, below)
    assert p == pytest.approx(wins.mean(1)) and n == pytest.approx(wins.mean(0))
    found = auc_interval(above, below, method="delong")
    assert found.value == pytest.approx(wins.mean())
    assert found.error == pytest.approx((wins.mean(1).var(ddof=1) / 12 + wins.mean(0).var(ddof=1) / 9) ** 0.5)


def test_null_error_is_mann_whitneys_with_and_without_ties():
    generator = np.random.default_rng(4)
    above, below = generator.normal(size=10), generator.normal(size=17)
    assert null_error(above, below) == pytest.approx((28 / (12 * 170)) ** 0.5)
    above, below = np.round(above), np.round(below)
    p = stats.mannwhitneyu(above, below, use_continuity=False, method="asymptotic").pvalue
    z = (auc_interval(above, below).value - 0.5) / null_error(above, below)
    assert 2 * stats.norm.sf(abs(z)) == pytest.approx(p)
    assert null_error([1, 1], [1, 1, 1]) == 0


def test_score_interval_holds_one_half_just_where_mann_whitney_does_not_reject():
    generator = np.random.default_rng(5)
    for _ in range(200):
        above, below = generator.normal(0.7, 1, 10), generator.normal(size=25)
        p = stats.mannwhitneyu(above, below, use_continuity=False, method="asymptotic").pvalue
        assert auc_interval(above, below).covers(0.5) == (p > 0.05)


def test_score_interval_never_collapses_with_ten_positives_or_ties():
    perfect = auc_interval(np.arange(10) + 100, np.arange(30))
    assert perfect.value == perfect.high == 1 and 0.7 < perfect.low < 0.95 and perfect.error == 0
    assert auc_interval(np.arange(10), np.arange(30) + 100).low == 0
    constant = auc_interval(np.zeros(10), np.zeros(10))
    assert constant.value == 0.5 and constant.low < 0.3 and constant.high > 0.7
    single = auc_interval([1.0], [0.0, 2.0])
    assert single.error is None and single.low < 0.5 < single.high
    assert auc_interval([np.inf, 1.0], [0.0, -np.inf]).value == 1


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_score_interval_covers_the_true_area_with_ten_positives(shift):
    generator = np.random.default_rng(6)
    truth = stats.norm.cdf(shift / 2**0.5)
    covered = [
        auc_interval(generator.normal(shift, 1, 10), generator.normal(size=40)).covers(truth) for _ in range(400)
    ]
    assert np.mean(covered) > 0.92


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(3, 2),
        lambda: wilson(1, 2, 1.0),
        lambda: auc_interval([], [1.0]),
        lambda: auc_interval([np.nan], [1.0]),
        lambda: auc_interval([1.0], [1.0], method="delong"),
        lambda: auc_interval([1.0], [1.0], method="wald"),
        lambda: bootstrap(np.mean, generator=np.random.default_rng(0)),
        lambda: bootstrap(np.mean, [1.0], generator=np.random.default_rng(0), resamples=1),
    ],
)
def test_impossible_inputs_are_refused_in_words(call):
    with pytest.raises(InputError, match="Expected"):
        call()
