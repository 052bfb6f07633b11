"""Audits: published numbers, false alarms on honest worlds, alarms on broken ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.privacy.audit import (
    clopper_pearson_epsilon,
    gaussian_auc,
    gaussian_two_world_power,
    largest_balanced_accuracy,
    largest_total_variation,
    two_world,
)
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.gaussian import delta_of, mu_of, sigma_of
from expunge.privacy.guessing import (
    forget_batch_audit,
    forget_batch_log_pvalue,
    halves_log_count,
    one_run_audit_epsilon,
    one_run_audit_pvalue,
)
from expunge.privacy.replay import noise_reuse_check, realised_epsilon, replay_check, retrain_check
from expunge.privacy.sensitivity import tight

from .worlds import concave_quadratic, descend, rewound_distance


@pytest.mark.parametrize(("trials", "ceiling"), [(100, 3.28), (1000, 5.60), (10_000, 7.90)])
def test_check_13_ceiling_of_perfect_trials(trials, ceiling):
    assert clopper_pearson_epsilon(trials, trials, 0, trials, 0.0) == pytest.approx(ceiling, abs=0.005)


def test_check_13_what_epsilon_delta_implies():
    assert largest_balanced_accuracy(1, 1e-5) == pytest.approx(0.731, abs=5e-4)
    assert largest_balanced_accuracy(2, 1e-5) == pytest.approx(0.881, abs=5e-4)
    assert largest_total_variation(1, 0.01) == pytest.approx((math.e - 1 + 0.02) / (math.e + 1))
    assert mu_of(1, 1e-5) == pytest.approx(0.268, abs=5e-4)
    assert gaussian_auc(mu_of(1, 1e-5)) == pytest.approx(0.575, abs=5e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.1))
def test_check_13_clopper_pearson_epsilon_is_cautious(n_pos, n_neg, a, b, delta):
    from scipy.stats import binomtest

    tp, fp = round(a * n_pos), round(b * n_neg)
    low = binomtest(tp, n_pos).proportion_ci(0.95, "exact").low
    high = binomtest(fp, n_neg).proportion_ci(0.95, "exact").high
    ratios = [(low - delta) / high, (1 - high - delta) / (1 - low)]
    assert clopper_pearson_epsilon(tp, n_pos, fp, n_neg, delta) == pytest.approx(
        max(0.0, *(math.log(ratio) if ratio > 0 else 0.0 for ratio in ratios)), abs=1e-9
    )
    with pytest.raises(InputError):
        clopper_pearson_epsilon(n_pos + 1, n_pos, fp, n_neg, delta)


def worlds_of_oracle_2(noise_scale, runs, seed, epsilon=1.0, delta=1e-5):
    """Scores (first coordinate) of noisy releases of O2, calibrated for (ε, δ), noise then scaled."""
    gradient, start = concave_quadratic(0.5, 1.0, 10, 3), np.zeros(3)
    everything, retained = np.arange(100), np.arange(10, 100)
    unlearned = descend(gradient, descend(gradient, start, everything, 0.05, 40), retained, 0.05, 40)
    retrained = descend(gradient, start, retained, 0.05, 80)
    run = GradientDescentRun(100, 10, 80, 40, 0.05, 0.5, None, gradient_difference=2.0)
    noise = (
        np.random.default_rng(seed).standard_normal((2, runs, 3)) * sigma_of(tight(run), epsilon, delta) * noise_scale
    )
    return (unlearned + noise[0])[:, 0], (retrained + noise[1])[:, 0]


def test_check_13_two_world_flags_a_tenth_of_the_noise_with_200_runs():
    results = [two_world(*worlds_of_oracle_2(0.1, 200, seed), 1.0, 1e-5) for seed in range(20)]
    assert all(result.refuted for result in results)
    assert "refuted at confidence" in results[0].statement
    assert (results[0].n_pos, results[0].n_neg) == (100, 100)


def test_check_13_two_world_does_not_flag_the_calibrated_noise():
    results = [two_world(*worlds_of_oracle_2(1.0, 200, seed), 1.0, 1e-5) for seed in range(60)]
    assert not any(result.refuted for result in results)
    assert all(result.epsilon_lower <= result.ceiling for result in results)
    assert results[0].statement.startswith("not refuted")


def test_check_13_two_world_false_alarms_stay_below_the_level_even_at_the_true_epsilon():
    # worlds that use up a large mu exactly; certified is the true curve's point
    rng, mu, delta = np.random.default_rng(0), 2.0, 0.05
    from expunge.privacy.gaussian import epsilon_of

    epsilon = epsilon_of(mu, delta)
    alarms = sum(
        two_world(rng.standard_normal(200) + mu, rng.standard_normal(200), epsilon, delta).refuted for _ in range(300)
    )
    assert alarms <= 0.05 * 300


def test_check_13_two_world_direction_and_impossible_power():
    rng = np.random.default_rng(1)
    low, high = rng.standard_normal(200), rng.standard_normal(200) + 3
    up, down = two_world(high, low, 1.0, 1e-5), two_world(low, high, 1.0, 1e-5)
    assert up.refuted and down.refuted and up.unlearned_scores_higher and not down.unlearned_scores_higher
    assert 0 < up.threshold < 3.5 and 0 < down.threshold < 3.5
    assert "cannot be refuted" in two_world(high, low, 4.0, 1e-5).statement
    assert two_world(np.zeros(50), np.zeros(50), 1.0, 1e-5).epsilon_lower == 0.0
    for bad in ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, math.nan]):
        with pytest.raises(InputError, match="at least 4"):
            two_world(bad, high, 1.0, 1e-5)


def test_check_13_power_of_the_two_world_test():
    mu = mu_of(1, 1e-5)
    assert gaussian_two_world_power(mu, 100, 1, 1e-5) < 0.001
    assert gaussian_two_world_power(10 * mu, 100, 1, 1e-5) > 0.99
    half = gaussian_two_world_power(6 * mu, 100, 1, 1e-5)
    rng, threshold_free = np.random.default_rng(0), []
    for _ in range(200):
        threshold_free.append(two_world(rng.normal(6 * mu, 1, 200), rng.standard_normal(200), 1, 1e-5).refuted)
    assert 0.1 < half < 0.99
    assert np.mean(threshold_free) <= half + 0.08  # the best fixed threshold is an upper limit


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "epsilon"),
    [
        (1000, 100, 75, 1e-4, 0.6730),
        (100, 100, 75, 0.0, 0.7022),
        (100, 100, 100, 0.0, 3.493),
        (1000, 1000, 1000, 0.0, 5.809),
    ],
)
def test_check_13_one_run_audit_epsilon(canaries, guesses, correct, delta, epsilon):
    audit = one_run_audit_epsilon(canaries, guesses, correct, delta)
    assert audit.mechanism_epsilon == pytest.approx(epsilon, abs=5e-4 if epsilon > 1 else 5e-5)
    assert audit.certificate_epsilon <= audit.mechanism_epsilon / 2 + 1e-9
    if delta == 0:
        assert audit.certificate_epsilon == pytest.approx(audit.mechanism_epsilon / 2, abs=1e-9)
    level = audit.certificate_epsilon
    shared = one_run_audit_pvalue(canaries, guesses, correct, 2 * level, (1 + math.exp(level)) * delta)
    assert shared == pytest.approx(0.05, rel=1e-6)
    assert audit.refutes(audit.certificate_epsilon * 0.99) and not audit.refutes(audit.certificate_epsilon)


def test_check_13_one_run_audit_pvalue():
    assert one_run_audit_pvalue(100, 100, 75, math.log(3), 0.0) == pytest.approx(0.5535, abs=5e-5)
    assert one_run_audit_pvalue(100, 100, 0, 0.0, 0.0) == 1.0
    assert one_run_audit_pvalue(100, 100, 100, 0.0, 0.0) == pytest.approx(2.0**-100)
    assert one_run_audit_epsilon(100, 100, 50, 0.0).mechanism_epsilon == 0.0
    with pytest.raises(InputError):
        one_run_audit_pvalue(100, 101, 75, 1.0, 0.0)


def test_check_13_one_run_audit_pvalue_is_the_literal_formula():
    from scipy.stats import binom

    canaries, guesses, correct, epsilon, delta = 60, 40, 30, 0.4, 1e-3
    q = 1 / (1 + math.exp(-epsilon))
    tail = lambda k: binom.sf(k - 1, guesses, q)  # noqa: E731
    slack = max((tail(correct - i) - tail(correct)) / i for i in range(1, correct + 1))
    expected = tail(correct) + 2 * canaries * delta * slack
    assert one_run_audit_pvalue(canaries, guesses, correct, epsilon, delta) == pytest.approx(expected, rel=1e-9)


def test_check_13_one_run_audit_of_randomised_response_rarely_overshoots():
    rng, epsilon = np.random.default_rng(0), 1.0
    correct = rng.binomial(200, 1 / (1 + math.exp(-epsilon)), 400)  # exactly epsilon between unlearned models
    over = np.mean([one_run_audit_epsilon(200, 200, int(v), 0.0).mechanism_epsilon > epsilon for v in correct])
    assert 0 < over <= 0.08


def test_check_13_forget_batch_guessing():
    assert forget_batch_log_pvalue(0.0, 2, 1, 1.0, 0.1) == pytest.approx(math.log(largest_balanced_accuracy(1.0, 0.1)))
    ways = [math.comb(4, j) ** 2 for j in range(5)]
    exact = math.log(sum(a * b for i, a in enumerate(ways) for j, b in enumerate(ways) if i + j >= 7))
    assert exact <= halves_log_count(8, 2, 7) <= exact + 1.5
    assert forget_batch_audit(8, 10, 20, 0.0).mechanism_epsilon == 0.0  # chance
    sure = forget_batch_audit(8, 10, 40, 0.0)
    assert sure.mechanism_epsilon == pytest.approx(math.log(69 * 0.05**0.1 / (1 - 0.05**0.1)), abs=1e-6)
    assert sure.certificate_epsilon == pytest.approx(sure.mechanism_epsilon / 2, abs=1e-9)
    assert forget_batch_audit(8, 10, 40, 1e-3).mechanism_epsilon < sure.mechanism_epsilon
    with pytest.raises(InputError, match="even"):
        forget_batch_audit(7, 10, 20, 0.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0, 2), st.floats(0, 0.3))
def test_check_13_no_mechanism_guesses_better_than_the_forget_batch_bound(seed, epsilon, delta):
    # the (eps, delta) channel that guesses the truth most often: P[z|z] from the bound, the rest shared equally
    hypotheses = math.comb(4, 2)
    right = math.exp(forget_batch_log_pvalue(0.0, 4, 1, epsilon, delta))
    wrong = (1 - right) / (hypotheses - 1)
    assert right <= math.exp(epsilon) * wrong + delta + 1e-12  # attained: the bound cannot be lowered
    if right < 1:
        assert right == pytest.approx(math.exp(epsilon) * wrong + delta)


def test_check_13_and_14_retrain_check_and_realised_epsilon():
    run = GradientDescentRun(100, 10, 80, 40, 0.05, 0.5, None, gradient_difference=2.0)
    distance = rewound_distance(concave_quadratic(0.5, 1.0, 10, 3), np.zeros(3), 100, 10, 80, 40, 0.05)
    sigma = sigma_of(tight(run), 1.0, 1e-5)
    assert not retrain_check(distance, tight(run)).refuted  # equality is not a violation
    assert retrain_check(distance, tight(run)).ratio == pytest.approx(1.0)
    assert realised_epsilon(distance, sigma, 1e-5) == pytest.approx(1.0, abs=1e-6)
    assert realised_epsilon(distance / 2, sigma, 1e-5) < 0.6
    assert realised_epsilon(distance, 0.1 * sigma, 1e-5) > 10
    assert retrain_check(1e-7, 0.0).refuted and not retrain_check(1e-7, 0.0, rounding=1e-6).refuted
    assert not retrain_check(5.0, math.inf).refuted
    with pytest.raises(InputError):
        retrain_check(math.nan, 1.0)


def test_check_13_replay_flags_a_tenth_of_the_noise_and_none():
    rng = np.random.default_rng(0)
    for dimension in (1, 10, 100_000):
        noise = rng.standard_normal(dimension) * 0.3
        assert not replay_check(noise, sigma=0.3).refutes()
    assert replay_check(noise, sigma=0.3).statistic == pytest.approx(0.3, rel=0.01)  # check 5: within 1%
    assert replay_check(0.1 * noise, sigma=0.3).refutes() and replay_check(1.05 * noise, sigma=0.3).refutes()
    assert replay_check(squared_norm=0.0, sigma=0.3, dimension=5).refutes()
    for wrong in ({}, {"residual": noise, "squared_norm": 1.0}, {"squared_norm": 1.0}):
        with pytest.raises(InputError):
            replay_check(**wrong, sigma=0.3)


def test_check_13_replay_p_values_are_uniform():
    rng = np.random.default_rng(1)
    p = np.array([replay_check(rng.standard_normal(20), sigma=1.0).p_value for _ in range(2000)])
    q = np.array([noise_reuse_check(*rng.standard_normal((2, 20))).p_value for _ in range(2000)])
    for values in (p, q):
        assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.04)


def test_check_05_two_releases_never_share_a_vector():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5000))
    assert not noise_reuse_check(a, b).refutes()
    for reused in (a, 0.01 * a, -a, a + b):
        assert noise_reuse_check(a, reused).refutes()
    for bad in ((a, a[:-1]), (a, 0 * a), (a[:1], b[:1])):
        with pytest.raises(InputError):
            noise_reuse_check(*bad)


def test_delta_of_agrees_with_the_best_gaussian_test():
    # the largest TPR − e^eps FPR over thresholds is delta(eps): the two-world inequality is tight
    from scipy.special import ndtr

    t = np.linspace(-8, 10, 200_001)
    assert np.max(ndtr(1.5 - t) - math.exp(0.7) * ndtr(-t)) == pytest.approx(delta_of(0.7, 1.5), abs=1e-8)
