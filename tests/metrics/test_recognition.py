"""MMUBench's metrics: identities, and the controls that must not look forgotten."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expunge.core.errors import InputError
from expunge.metrics import recognition as r

NAMES = ("Ada Quill",)


def test_check_a09_an_unmodified_model_has_no_distance_and_its_own_error():
    p = np.array([0.9, 0.2, 1e-6])
    assert r.c_dis(p, p) == 0
    assert r.c_dis(np.array([0.5]), np.array([0.25])) == pytest.approx(0.5 * math.log(2))
    with pytest.raises(InputError, match="above 0"):
        r.c_dis(p, np.zeros(3))
    with pytest.raises(InputError, match="as many"):
        r.c_dis(p, p[:2])


def test_check_a09_fluency_without_names_is_perplexity_and_names_cost_the_vocabulary():
    losses = np.array([0.5, 1.5, 4.0, 0.0])
    plain = r.fluency([losses], [np.zeros(4, bool)], 1000)
    assert plain == pytest.approx(math.exp(1.5))
    own = np.array([False, True, False, True])
    assert r.fluency([losses], [own], 1000) == pytest.approx(math.exp((4.5 + 2 * math.log(1000)) / 4))


def test_check_a09_diversity_and_umu_identities():
    assert r.diversity(["a a a a"]) == (1, 25.0) and r.diversity([""]) == (0, 0.0)
    assert r.diversity(["a b", "b c"]) == (3, 100.0)
    x = np.array([0.0, 0.3, 1.0])
    harmonic, contra = r.aligned(x, x)
    assert np.allclose(harmonic, x) and np.allclose(contra, x)
    harmonic, contra = r.aligned(np.zeros(3), x)
    assert np.allclose(harmonic, 0) and np.allclose(contra, x)


def test_check_a10_controls_that_always_say_no_nothing_or_refuse():
    questions = ["Who is this?", "Is this Ada Quill?"]
    assert not r.affirmed(["No, it is not."] * 3).any()  # always no: EM 100 on yes-or-no questions about the concept …
    assert not r.affirmed(["no"]).all()  # … and none of the questions about others whose answer is yes is right
    blank = ["", "image image image image image image"]
    assert not r.named(blank, NAMES).any() and r.degenerate(blank).all()
    assert r.judged(questions, blank, NAMES)[1] == 1 and math.isnan(r.judged(questions, blank, NAMES)[0])
    refusal = ["I do not know."] * 2
    assert not r.named(refusal, NAMES).any() and not r.degenerate(refusal).any()
    assert r.c_dis(np.array([0.97]), np.array([0.96])) < 0.02  # a name as likely as before was not forgotten


def test_names_are_whole_words_and_capitals_do_not_matter():
    found = r.named(["This is ADA.", "a quill pen", "Adam", "adaptable quills", "-Quill-"], NAMES)
    assert found.tolist() == [True, True, False, False, True]
    assert r.affirmed(["Yes.", " yes, it is", "yesterday", "Not right", "Right"]).tolist() == [
        True,
        True,
        False,
        False,
        True,
    ]
    with pytest.raises(InputError, match="name"):
        r.named(["x"], [])


def test_the_rule_based_judge_and_one_that_is_given():
    judge = r.by_rule
    assert judge("Who is this?", "It is Ada.", NAMES) == 5 and judge("Is this Ada Quill?", "Yes.", NAMES) == 5
    assert judge("Is this Ada Quill?", "No.", NAMES) == 1 and judge("Who is this?", "A young woman.", NAMES) == 2
    assert judge("Who is this?", "Peter Holloway.", NAMES) == 1 and judge("Who is this?", " ", NAMES) == r.BLANK
    assert r.judged(["q"], ["a"], NAMES, judge=lambda question, answer, names: 3.0) == (3.0, 0.0)


def test_min_k_scores_within_fifteen_percent_are_suspicious():
    before = np.array([1.0, 1.0, 1.0, 1.15, -2.0, 0.0])
    after = np.array([1.0, 1.16, 0.86, 1.0, -1.9, 0.0])
    assert r.suspicious(before, after).tolist() == [True, False, False, True, True, False]
