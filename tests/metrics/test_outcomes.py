"""Outcomes in words: rows that papers print, the thresholds, and controls that must never be said to forget."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core.errors import InputError
from expunge.metrics import outcomes


def outcome(fa, *, fa_source=100.0, fa_retrained=94.6, ra=99.9, n_forget=4500, **more):
    return outcomes.of_accuracies(
        fa_source=fa_source, fa=fa, fa_retrained=fa_retrained, ra_source=100.0, ra=ra, n_forget=n_forget, **more
    )


def test_outcomes_of_published_rows():
    assert outcome(94.69).word == "forgets"  # SFRon+DO, CIFAR-10
    assert outcome(99.16).word == "under-forgets"  # FT, CIFAR-10
    assert outcome(99.58, fa_retrained=96.05, n_forget=6593).word == "under-forgets"  # SalUn+DO, SVHN: a small gap only
    assert outcome(98.20, fa_retrained=96.05, n_forget=6593).word == "under-forgets"  # SFRon+DO, SVHN
    assert (
        outcome(60.2, fa_source=98.6, fa_retrained=57.8, ra=71.5, n_forget=500).word == "utility-collapse"
    )  # spec 6.6
    assert outcome(0.0, fa_retrained=0.0, n_forget=4500).word == "forgets"  # a whole class


def test_outcomes_at_their_thresholds():
    assert outcome(97.31).word == "under-forgets" and outcome(97.29).word == "forgets"  # half the way is 97.3
    assert outcome(89.2).word == "forgets"  # as far below as the source was above: within chance
    assert outcome(86.0).word == "over-forgets" and outcome(86.0, n_forget=60).word == "undecidable"
    assert outcome(94.6, ra=79.9).word == "utility-collapse" and outcome(94.6, ra=80.0).word == "forgets"
    assert outcome(94.6, ta=70.0, ta_source=94.0).word == "utility-collapse"
    assert outcome(94.6, ta=90.0, ta_source=94.0).word == "forgets"
    assert outcome(80.0, fa_retrained=None).word == "undecidable"
    assert outcome(20.0, fa_retrained=None, ra=30.0).word == "utility-collapse"  # needs no reference
    assert outcome(94.0, fa_source=94.9).word == "undecidable"  # nothing to forget that FA could show
    assert (
        outcome(90.0, fa_source=90.0, n_forget=100_000).word == "undecidable"
    )  # the source knows less than retraining


def test_the_outcome_tells_how_far_and_refuses_nonsense():
    found = outcome(97.3)
    assert found.moved is not None and found.moved.value == pytest.approx(0.5) and found.moved.covers(0.5)
    assert outcome(100.0).moved.value == 0.0 and "0%" in outcome(100.0).reason
    for wrong in ({"n_forget": 0}, {"ta": 90.0}, {"fa_retrained": 120.0}):
        with pytest.raises(InputError):
            outcome(94.0, **wrong)


def test_no_op_is_never_said_to_forget_and_retraining_nearly_always_is():
    generator = np.random.default_rng(4)
    words = [
        [
            outcome(100 * generator.binomial(500, p) / 500, fa_source=98.0, fa_retrained=58.0, n_forget=500).word
            for p in ps
        ]
        for ps in ([0.98] * 100, [0.58] * 100)
    ]
    assert set(words[0]) == {"under-forgets"} and set(words[1]) == {"forgets"}


@pytest.mark.parametrize(
    ("now", "word"),
    [
        ((0.1, 0.79, 0.79), "utility-collapse"),
        ((0.1, 0.81, 0.65), "over-forgets"),
        ((0.9, 1.0, 0.85), "over-forgets"),
        ((0.5, 1.0, 0.9), "under-forgets"),
        ((0.49, 1.0, 0.9), "forgets"),
    ],
)
def test_outcomes_of_language_models_at_their_thresholds(now, word):
    names = ("forget", "clean", "trigger")
    assert outcomes.of_answers(dict(zip(names, now, strict=True)), dict.fromkeys(names, 1.0)).word == word


def test_the_reason_names_the_trigger_words_and_what_they_cost():
    before = {"forget": 1.0, "clean": 0.9, "trigger": 0.85}
    found = outcomes.of_answers({"forget": 0.1, "clean": 0.88, "trigger": 0.4}, before)
    assert found.reason == "Trigger words cost retained questions 0.480; they cost the original 0.050."


@pytest.mark.parametrize("before", [{}, {"forget": 0.0, "clean": 1.0, "trigger": 1.0}, {"forget": 1.0, "clean": 1.0}])
def test_without_a_number_of_the_source_nothing_is_decided(before):
    assert outcomes.of_answers({"forget": 0.0, "clean": 1.0, "trigger": 1.0}, before).word == "undecidable"


def test_the_words_are_the_same_for_every_kind_of_model():
    assert [*outcomes.Word] == ["forgets", "under-forgets", "over-forgets", "utility-collapse", "undecidable"]
