from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from expunge.core.errors import InputError
from expunge.metrics.klom import klom, margins, null_from_halves, null_of_gaussians


def point_by_point(u, r):
    values = []
    for a, b in zip(np.clip(u, -100, 100).T, np.clip(r, -100, 100).T, strict=True):
        edges = np.histogram_bin_edges(np.concatenate([a, b]), 20)
        p, q = (np.histogram(side, edges)[0] / len(side) for side in (a, b))
        values.append(stats.entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)))
    return np.array(values)


def test_margins_are_the_label_against_the_log_sum_of_the_others():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(6, 4)), generator.integers(0, 4, 6)
    expected = [
        row[label] - special.logsumexp(np.delete(row, label)) for row, label in zip(logits, labels, strict=True)
    ]
    assert margins(logits, labels) == pytest.approx(expected)


def test_check_21_the_largest_margin_is_not_lost():
    u, r = np.array([0.0] * 9 + [10.0])[:, None], np.zeros((10, 1))
    assert klom(u, r).values == pytest.approx([0.826220], abs=1e-6)
    assert klom(r, u).values == pytest.approx([np.log(1 / 0.9)])  # not symmetric
    assert klom(u, u).values == klom(r, r).values == 0


def test_check_21_identical_models_give_0_and_equal_a_loop_with_closed_bins():
    generator = np.random.default_rng(1)
    for shape in (
        generator.normal(size=(30, 25)),
        generator.integers(0, 41, (30, 25)) / 4,
        200 * generator.normal(size=(9, 7)),
    ):
        assert klom(shape, shape).mean.value == 0
        other = generator.permuted(shape, axis=1)[: len(shape) // 2] + 0.25
        assert klom(shape, other).values == pytest.approx(point_by_point(shape, other), abs=1e-12)


@pytest.mark.parametrize("models, expected", [(10, 5.57), (20, 3.02), (50, 0.88), (100, 0.36), (200, 0.15)])
def test_check_21_null_table(models, expected):
    found = null_of_gaussians(models, models, seed=0)
    assert found.value == pytest.approx(expected, rel=0.15)
    assert found.value == pytest.approx(expected, rel=0.05)  # it is in fact much nearer
    assert found == null_of_gaussians(models, models, seed=0) != null_of_gaussians(models, models, seed=1)


@pytest.mark.parametrize("models, expected", [(10, 6.3), (20, 4.0), (50, 1.96), (100, 1.20), (200, 0.86)])
def test_check_21_table_of_a_shift_by_one_standard_deviation(models, expected):
    generator = np.random.default_rng(2)
    u, r = generator.normal(size=(models, 2000)) + 1, generator.normal(size=(models, 2000))
    assert klom(u, r).mean.value == pytest.approx(expected, rel=0.05)


def test_null_from_halves_is_the_null_of_half_the_models_whatever_the_points_scale():
    generator = np.random.default_rng(3)
    retrained = generator.normal(generator.normal(0, 5, 400), generator.uniform(0.1, 4, 400), (100, 400))
    found = null_from_halves(retrained, generator=generator, splits=6)
    assert found.value == pytest.approx(null_of_gaussians(50, 50, seed=0).value, rel=0.1)
    assert found.low <= found.value <= found.high


def test_headline_needs_models_and_a_null():
    generator = np.random.default_rng(4)
    few, many = generator.normal(size=(16, 40)), generator.normal(size=(50, 40))
    null = null_of_gaussians(50, 50, seed=0, points=200)
    for result in (klom(few, few + 1, null), klom(many, many + 1)):
        assert not result.fit_for_headline
        with pytest.raises(InputError, match="50 models"):
            result.headline()
    result = klom(many, many + 1, null)
    assert result.headline() == (result.mean.value, null.value)
    assert result.upper.low <= result.upper.value <= result.upper.high and result.upper.value >= result.mean.value


def test_unfit_matrices_are_refused():
    good = np.zeros((5, 3))
    for u, r in ((good, np.zeros((5, 4))), (good[:1], good), (np.full((5, 3), np.nan), good), (good[0], good[0])):
        with pytest.raises(InputError):
            klom(u, r)
    with pytest.raises(InputError, match="four"):
        null_from_halves(good[:3], generator=np.random.default_rng(0))
