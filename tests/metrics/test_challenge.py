from __future__ import annotations

import numpy as np
import pytest

from expunge.core.errors import InputError
from expunge.metrics.challenge import challenge_null, challenge_score, epsilons, points


def published(u, r, delta=1e-5):
    """Steps 2 to 6 threshold by threshold, example by example."""
    found = []
    for a, b in zip(u.T, r.T, strict=True):
        positive, negative = (b, a) if np.median(b) > np.median(a) else (a, b)
        low, high = min(a.min(), b.min()), max(a.max(), b.max())
        if min(np.ptp(a), np.ptp(b)) < 0.01 * max(np.ptp(a), np.ptp(b)):
            found.append(50.0)
            continue
        at = np.linspace(low, high, int(np.ceil((high - low) * 100)))
        missed = [(positive[:, None] < at).sum(0)]
        passed = [(negative[:, None] >= at).sum(0)]
        narrow, wide = (a, b) if np.ptp(a) < np.ptp(b) else (b, a)
        right = np.linspace(narrow.max() - 2, narrow.max() + 2, 400)[:, None]
        left = right - np.ptp(narrow) + np.linspace(-2, 2, 400)
        missed.append(len(a) - sum((left <= x) & (x <= right) for x in narrow).ravel())
        passed.append(sum((left <= x) & (x <= right) for x in wide).astype(int).ravel())
        fnr, fpr = np.concatenate(missed) / len(a), np.concatenate(passed) / len(a)
        best = np.inf if ((fnr == 0) & (fpr == 0)).any() else np.nan
        keep = (fnr > 0) & (fpr > 0) & (fnr + fpr < 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            kept = np.fmax(np.log((1 - delta - fpr) / fnr), np.log((1 - delta - fnr) / fpr))[keep]
        if len(kept):
            best = np.fmax(best, max(kept.max(), 0.0))
        found.append(np.minimum(best, 50.0))
    return np.array(found)


def test_check_22_points_of_buckets():
    assert points([0.0, 0.49, 0.5, 6.99, 7.0, 50.0], 512) == pytest.approx([1, 1, 0.5, 2**-13, 0, 0])
    assert points([1.4, 1.9, 2.0, 4.0], 8) == pytest.approx([2**-2, 2**-3, 0, 0])  # 2 ceil(ln 7) = 4 buckets


@pytest.mark.parametrize("models", [3, 8, 20, 60])
def test_check_22_tabulated_epsilons_equal_the_published_grid(models):
    generator = np.random.default_rng(models)
    for shift, scale in ((0, 1), (0.5, 1), (3, 1), (0, 0.25), (0, 3), (9, 1)):
        u, r = shift + scale * generator.normal(size=(models, 4)), generator.normal(size=(models, 4))
        assert epsilons(u, r) == pytest.approx(published(u, r), nan_ok=True)


def test_check_22_perfect_separation_peaky_and_constant_distributions():
    generator = np.random.default_rng(0)
    r = generator.normal(size=(40, 3))
    assert (epsilons(r + 20, r) == 50).all()
    assert (epsilons(r * 0.005, r) == 50).all() and (epsilons(np.zeros((40, 3)), r) == 50).all()
    assert (epsilons(r * 0.02, r) < 50).any()
    same = np.ones((40, 3))
    assert (epsilons(same, same) == 0).all() and (epsilons(same, same + 1) == 50).all()


def test_check_22_unresolved_examples_earn_nothing_and_are_counted():
    u, r = np.array([[1e-4], [3e-4]]), np.array([[-1e-4], [2e-4]])  # closer than two thresholds
    found = challenge_score(u, r)
    assert np.isnan(epsilons(u, r)).all() and found.unresolved == 1 and found.forgetting.value == 0


@pytest.mark.parametrize("models", [16, 32, 64, 128, 512])
def test_check_22_null_is_far_below_1(models):
    generator = np.random.default_rng(1)
    examples = 60 if models == 512 else 300
    u, r = generator.normal(size=(models, examples)), generator.normal(size=(models, examples))
    assert 0.12 <= challenge_score(u, r).forgetting.value <= 0.26


# (models, shift, scale, F) of vision spec 3.4, from 40 examples each: a standard error of some 0.02 on the larger ones.
TABLE = [
    (8, 0, 1, 0.178), (8, 0.5, 1, 0.172), (8, 1, 1, 0.150), (8, 2, 1, 0.106), (8, 0, 2, 0.150), (8, 0, 0.25, 0.116),
    (32, 0, 1, 0.167), (32, 0.5, 1, 0.115), (32, 1, 1, 0.062), (32, 2, 1, 0.019), (32, 0, 2, 0.054), (32, 0, 0.25, 0.021),
    (64, 0, 1, 0.164), (64, 0.5, 1, 0.098), (64, 1, 1, 0.044), (64, 2, 1, 0.011), (64, 0, 2, 0.026), (64, 0, 0.25, 0.008),
    (128, 0, 1, 0.217), (128, 0.5, 1, 0.097), (128, 1, 1, 0.036), (128, 2, 1, 0.005), (128, 0, 2, 0.015),
    (128, 0, 0.25, 0.004),
]  # fmt: skip


@pytest.mark.parametrize("models, shift, scale, expected", TABLE)
def test_check_22_table_of_the_specification(models, shift, scale, expected):
    generator = np.random.default_rng(2)
    u, r = shift + scale * generator.normal(size=(models, 300)), generator.normal(size=(models, 300))
    assert challenge_score(u, r).forgetting.value == pytest.approx(expected, abs=0.015 + 0.15 * expected)


def test_null_from_halves_is_near_the_score_of_identical_distributions():
    generator = np.random.default_rng(3)
    retrained = generator.normal(generator.normal(0, 3, 80), 1, (64, 80))
    null = challenge_null(retrained, generator=generator, splits=5)
    assert 0.12 <= null.value <= 0.26 and null.low <= null.value <= null.high
    same = challenge_score(retrained[:32], retrained[32:], null=null)
    shifted = challenge_score(retrained[:32] + 1, retrained[32:], null=null)
    assert same.beside_null == pytest.approx(1, abs=0.35) and shifted.beside_null < 0.6


def test_score_is_points_times_utility():
    generator = np.random.default_rng(4)
    u, r = generator.normal(size=(32, 20)), generator.normal(size=(32, 20))
    found = challenge_score(u, r, accuracies=(0.9, 0.8, 1.0, 0.9))
    assert found.value == pytest.approx(found.forgetting.value * 0.9 * 0.8 / 0.9)
    assert challenge_score(u, r).value is None
    with pytest.raises(InputError, match="above 0"):
        challenge_score(u, r, accuracies=(0.9, 0.8, 0.0, 0.9))


def test_headline_needs_models_and_a_null():
    generator = np.random.default_rng(5)
    r = generator.normal(size=(64, 20))
    null = challenge_null(r, generator=generator, splits=2)
    for result in (challenge_score(r[:31], r[32:63], null=null), challenge_score(r[:32], r[32:])):
        assert not result.fit_for_headline
        with pytest.raises(InputError, match="32 models"):
            result.headline()
    result = challenge_score(r[:32], r[32:], null=null)
    assert result.headline() == (result.forgetting.value, null.value)


def test_unfit_matrices_are_refused():
    good = np.zeros((5, 3))
    for u, r in ((good, good[:4]), (good[:1], good[:1]), (np.full((5, 3), np.inf), good), (good[0], good[0])):
        with pytest.raises(InputError):
            epsilons(u, r)
    with pytest.raises(InputError, match="four"):
        challenge_null(good[:3], generator=np.random.default_rng(0))
