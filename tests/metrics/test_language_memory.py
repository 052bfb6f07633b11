"""What is left in a language model: LLM spec 5.6 to 5.8 and 5.14, checks A7 and A8."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core.errors import InputError
from expunge.metrics.language_memory import (
    IGNORED,
    before_end,
    exact_memorization,
    extraction_strength,
    forgotten,
    membership_auc,
    min_k,
    min_k_plus_plus,
    privleak,
    zlib_ratio,
)
from expunge.metrics.metric_quality import faithfulness, overall, quantisation_robustness, relearning_robustness

END = 2


def test_check_a7_an_all_wrong_answer_has_es_0():
    for length in (1, 2, 7):
        truth = np.arange(10, 10 + length)
        assert extraction_strength([truth + 50], [truth]).values == [0]
        assert extraction_strength([truth], [truth]).values == exact_memorization([truth], [truth]).values == [1]


def test_check_a7_es_is_the_matching_end_and_em_the_matching_share():
    truth = np.arange(10, 18)
    guess = truth.copy()
    guess[[0, 4]] = 99
    assert extraction_strength([guess], [truth]).values == [1 - 5 / 8]
    assert exact_memorization([guess], [truth]).values == [6 / 8]
    guess[-1] = 99
    assert extraction_strength([guess], [truth]).values == [0]


def test_check_a7_the_end_token_does_not_count():
    truth, guess = np.array([10, 11, END]), np.array([10, 99, END])
    assert exact_memorization([guess], [truth], END).values == [1 / 2]
    assert extraction_strength([guess], [truth], END).values == [0]
    assert extraction_strength([guess], [truth]).values > 0, "the negative control: it would have counted"
    inside = np.array([END, 11, END])
    assert exact_memorization([inside], [inside], END).values == [1], "only the last one is left out"


def test_check_a7_empty_answers_are_dropped_and_counted():
    truth = [
        np.array([10, 11]),
        np.array([], int),
        np.array([IGNORED, IGNORED]),
        np.array([IGNORED, END]),
        np.array([3]),
    ]
    for metric in (exact_memorization, extraction_strength):
        found = metric([t.copy() for t in truth], truth, END)
        assert (found.values.tolist(), found.kept.tolist(), found.dropped) == ([1, 1], [0, 4], 3)
    with pytest.raises(InputError, match="all of 1 are empty"):
        extraction_strength([[]], [[]])


def test_check_a7_padding_side_and_batches_change_nothing():
    draw = np.random.default_rng(0)
    truth = [draw.integers(5, 9, draw.integers(1, 20)) for _ in range(40)]
    guess = [np.where(draw.random(len(t)) < 0.7, t, 9) for t in truth]
    for metric in (exact_memorization, extraction_strength):
        plain = metric(guess, truth).values
        for left, right in ((0, 25), (25, 0), (3, 8)):
            wide = [np.pad(t, (left, right), constant_values=IGNORED) for t in truth]
            noise = [np.concatenate([draw.integers(5, 9, left), g, draw.integers(5, 9, right)]) for g in guess]
            assert np.array_equal(metric(noise, wide).values, plain)
        halves = [metric(guess[a:b], truth[a:b]).values for a, b in ((0, 17), (17, 40))]
        assert np.array_equal(np.concatenate(halves), plain)


def test_check_a8_privleak():
    assert privleak(0.7, 0.7).value == 0 and not privleak(0.7, 0.7).assumed
    assert privleak(1.0, 0.5).value == -100
    assert privleak(0.0, 0.5).value == 100
    alone = privleak(1.0)
    assert (alone.value, alone.assumed) == (-100, True)
    a, r = 0.31, 0.4772  # MUSE's way: A = 1 - AUC
    assert privleak(1 - a, 1 - r).value == pytest.approx(100 * (a - r) / r)
    for wrong in ((0.5, 1.0), (1.2, 0.5), (0.5, -0.1)):
        with pytest.raises(InputError, match="AUCs from 0 to 1"):
            privleak(*wrong)


def test_the_auc_counts_low_scores_as_members():
    assert membership_auc([0.1, 0.2], [1.0, 2.0]).value == 1.0
    assert membership_auc([1.0, 2.0], [0.1, 0.2]).value == 0.0
    draw = np.random.default_rng(1)
    assert all(membership_auc(draw.normal(size=60), draw.normal(size=60)).covers(0.5) for _ in range(5))


def test_min_k_takes_the_lowest_tokens():
    rows = [[-1.0, -5.0, -3.0, -2.0, -4.0], [-7.0], [-1.0, -2.0], []]
    found = min_k(rows)
    assert (found.values.tolist(), found.dropped) == ([4.5, 7.0, 2.0], 1)  # floor(2.0), at least 1, floor(0.8) -> 1
    assert min_k(rows, 1.0).values == pytest.approx([3.0, 7.0, 1.5])
    assert min_k([np.full(10, -1.0)], 0.3).values == [1.0]
    for wrong, words in ((0.0, "a share"), (0.4, "without NaN")):
        with pytest.raises(InputError, match=words):
            min_k([[np.nan]], wrong)


def test_the_end_token_is_left_out_where_an_answer_has_one():
    draw = np.random.default_rng(4)
    labels = [np.array([5, END, 7, END]), np.array([5, 6]), np.array([END, 9])]
    scores = [draw.normal(size=len(row)) for row in labels]
    left = before_end(scores, labels, END)
    assert [row.tolist() for row in left] == [scores[0][:3].tolist(), scores[1].tolist(), scores[2].tolist()]


def test_min_k_plus_plus_is_min_k_of_standard_scores():
    draw = np.random.default_rng(2)
    p = [-draw.exponential(size=k) for k in (3, 9)]
    ones, zeros = [np.ones_like(row) for row in p], [np.zeros_like(row) for row in p]
    assert min_k_plus_plus(p, zeros, ones).values == pytest.approx(min_k(p).values)
    assert min_k_plus_plus(p, p, zeros).values == pytest.approx([0, 0])
    assert min_k_plus_plus([[-1.0]], [[0.0]], [[0.0]]).values == pytest.approx([1000])  # variance at least 1e-6
    with pytest.raises(InputError, match="as many means"):
        min_k_plus_plus([[-1.0]], [[0.0, 0.0]], [[1.0]])


def test_the_loss_beside_the_compressed_length():
    found = zlib_ratio([1.0, 1.0], ["a" * 500, "The author's full name is Hsiao Yun-Hwa, born in Taipei."])
    assert found[0] > found[1] > 0
    with pytest.raises(InputError, match="a text for each"):
        zlib_ratio([1.0], [])


def test_what_is_forgotten_is_a_harmonic_mean():
    assert forgotten(0, 0, 0, 0) == 1 and forgotten(1, 0, 0, 0) == 0
    assert forgotten(0.5, 0.5, 0.5, 0.5) == 0.5
    with pytest.raises(InputError):
        forgotten(1.2, 0, 0, 0)


PUBLISHED = """
0.85 0.92 0.79 0.95 0.68
0.80 0.90 0.72 0.92 0.59
0.73 0.95 0.59 0.92 0.43
0.73 0.71 0.75 0.98 0.60
0.72 0.89 0.61 0.93 0.45
0.72 0.82 0.65 0.60 0.70
0.70 0.79 0.64 0.93 0.48
0.69 0.83 0.59 0.85 0.45
0.71 0.92 0.57 0.56 0.59
0.67 0.93 0.52 0.48 0.57
0.66 0.93 0.52 0.48 0.57
0.61 0.81 0.48 0.61 0.40
"""  # LLM spec 5.14: overall, faithful, robust, quantised, relearnt


def test_overall_quality_of_the_published_metrics():
    for line in PUBLISHED.split("\n")[1:-1]:
        whole, faithful, robust, quantised, relearnt = map(float, line.split())
        found = overall(faithful, quantised, relearnt)
        assert found == pytest.approx((robust, whole), abs=0.012), line


def test_robustness_and_faithfulness():
    assert relearning_robustness((0.2, 0.6), (0.1, 0.3)) == pytest.approx(0.5)
    assert relearning_robustness((0.2, 0.3), (0.1, 0.9)) == 1.0
    assert quantisation_robustness(0.2, 0.4) == 0.5 and quantisation_robustness(0.4, 0.2) == 1.0
    assert faithfulness([0.9, 0.8], [0.1, 0.2]).value == 1.0
    for call in (lambda: relearning_robustness((0.5, 0.5), (0, 1)), lambda: quantisation_robustness(0.1, 0)):
        with pytest.raises(InputError):
            call()
