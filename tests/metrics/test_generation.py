"""Fréchet distance and recall of drawn images, against closed forms."""

import numpy as np
import pytest
from scipy import linalg

from expunge.core.errors import InputError
from expunge.metrics.generation import frechet_between_real, frechet_distance, recall


def test_the_frechet_distance_of_a_shift_is_its_square_and_of_a_scale_the_squares_of_the_deviations():
    x = np.random.default_rng(0).standard_normal((400, 3))
    shift = np.array([1.0, -2.0, 0.5])
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + shift) == pytest.approx(shift @ shift, rel=1e-9)
    centred = x - x.mean(0)
    # S' = 9 S: tr(S + 9 S - 2 · 3 S) = 4 tr S
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * np.trace(np.cov(x, rowvar=False)), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_frechet_distance_is_that_of_the_matrix_root(seed):
    draw = np.random.default_rng(seed)
    a = draw.standard_normal((50, 4)) @ draw.standard_normal((4, 4))
    b = draw.standard_normal((60, 4)) @ draw.standard_normal((4, 4)) + 0.3
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(linalg.sqrtm(one @ other))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_real_images_have_a_distance_above_zero_that_falls_with_their_number():
    x = np.random.default_rng(0).standard_normal((600, 8))
    small, large = (frechet_between_real(x, size) for size in (30, 300))
    assert 0 < large < small / 3
    # to first order in 1/n the mean alone gives d (1/n + 1/m)
    assert large > 8 * (1 / 300 + 1 / 300) / 2
    for size in (1, 599):
        with pytest.raises(InputError, match="real images"):
            frechet_between_real(x, size)


def test_recall_counts_real_images_inside_the_balls_of_drawn_ones():
    drawn = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    # third neighbours are 3, 2, 2, 2, 3 away: the balls cover [-3, 7]
    real = np.array([[-3.5], [-3.0], [0.5], [6.9], [7.1], [100.0]])
    assert recall(real, drawn, 3) == pytest.approx(3 / 6)
    assert recall(real, drawn, 1) == pytest.approx(1 / 6)
    with pytest.raises(InputError, match="drawn images"):
        recall(real, drawn[:3], 3)


def test_features_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="as many features"):
        frechet_distance(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(InputError, match="NaN"):
        frechet_distance(np.full((3, 2), np.nan), np.zeros((3, 2)))
    with pytest.raises(InputError, match="at least two"):
        frechet_distance(np.zeros((1, 2)), np.zeros((3, 2)))
