"""The attacks of R2D's experiments: numbers that theory gives, on planted scores."""

import numpy as np
import pytest
from scipy.stats import norm

from expunge.core.errors import InputError
from expunge.metrics.membership_folds import folded_auc, mean_class_auc, moved


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_normal_scores_have_the_auc_of_their_shift(seed, shift):
    """Phi(shift / sqrt 2): one number is enough for the logistic regression to order rows as the number does."""
    draw = np.random.default_rng(seed)
    found = folded_auc(draw.normal(shift, 1, 400), draw.normal(0, 1, 600), seed=seed, resamplings=3)
    assert abs(found.mean - norm.cdf(shift / np.sqrt(2))) < 0.06 and found.rows == 400


def test_an_attack_learns_the_sign_and_the_larger_side_is_drawn_down():
    draw = np.random.default_rng(5)
    low, high = draw.normal(-3, 1, 40), draw.normal(0, 1, 4000)
    assert folded_auc(low, high, resamplings=5).mean > 0.95
    assert folded_auc(high, low, resamplings=5).mean > 0.95
    assert folded_auc(low, high, resamplings=1).rows == 40


def test_the_same_seed_gives_the_same_number():
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=30), draw.normal(size=50)
    assert folded_auc(a, b, seed=4, resamplings=2) == folded_auc(a, b, seed=4, resamplings=2)


def test_too_few_rows_and_unequal_shapes_are_refused():
    with pytest.raises(InputError, match="5 folds; one side has 4 rows"):
        folded_auc(np.zeros(4), np.zeros(90))
    with pytest.raises(InputError, match="NaN"):
        folded_auc(np.full(9, np.nan), np.zeros(90))
    with pytest.raises(InputError, match="one shape"):
        moved(np.zeros((3, 2)), np.zeros((3, 4)))


def test_outputs_that_turn_over_move_by_the_square_root_of_two():
    sure = np.array([[60.0, 0.0], [0.0, 60.0]])
    assert moved(sure, sure[::-1]) == pytest.approx([2**0.5, 2**0.5])
    assert moved(sure, sure + 7) == pytest.approx([0, 0])  # a softmax does not see what is added to all


def test_auc_by_class_is_the_mean_over_classes_that_are_there():
    logits = np.array([[3.0, 0, 0], [2, 0, 0], [0, 4, 0], [5, 0, 0]])
    labels = np.array([0, 0, 1, 1])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_hand = []
    for label in (0, 1):
        pairs = [
            (shares[i, label], shares[j, label])
            for i in range(4)
            if labels[i] == label
            for j in range(4)
            if labels[j] != label
        ]
        by_hand.append(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))
    assert mean_class_auc(logits, labels) == pytest.approx(np.mean(by_hand))
    assert mean_class_auc(logits, np.zeros(4)) is None
