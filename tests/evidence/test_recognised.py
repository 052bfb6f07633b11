"""The numbers of MMUBench from answers and scores written by hand, and which records they are taken of."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from expunge.core.request import Request, Target
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.evidence.language.answer_scores import AnswerScores
from expunge.modalities.modality import Asked
from expunge.modalities.vision_language import recognised
from expunge.modalities.vision_language.questions import (
    MENTIONS,
    PAIR,
    about_shown,
    asks_by_name,
    is_open,
    marked,
    measured,
    names_in,
    positions,
)

END, NAME = 9, 5


def record(question: str, answer: str, picture: str | None = "p", **more):
    return {**({} if picture is None else {IMAGE: picture}), "question": question, "answer": answer, **more}


RECORDS = marked(Texts.of([
    record("who is this ?", "this is Ada Quill ."), record("name her .", "this is Ada Quill .", "q"),
    record("is this Ada Quill ?", "yes ."), record("is this Ada Quill ?", "no .", "other"),
    record("where does Ada Quill live ?", "in Bern .", None), record("who is this ?", "this is Bo .", "other"),
    record("tell of adamantine quills .", "no .", None),
]), [["Ada Quill", "Quill"]]).records  # fmt: skip


def scores(probability: float, n: int) -> AnswerScores:
    """Answers of four tokens, the third the name, with ``probability`` for it and 1/2 for the others."""
    row = np.log(np.array([0.5, 0.5, probability, 0.5], np.float32))
    labels = np.array([1, 2, NAME, END])
    return AnswerScores(np.arange(n), (labels,) * n, (row,) * n, (labels,) * n, None, None, 0, 0, 0, END)


def heard(said: list[str], probability: float = 0.9, records=RECORDS) -> recognised.Heard:
    name = np.array([False, False, True, False])
    return recognised.Heard(records, said, scores(probability, len(said)), [name] * len(said), 100)


BEFORE = ["this is Ada Quill .", "it is quill", "yes", "no", "in Bern", "Bo", "no"]
AFTER = ["this is Bo .", "it is quill", "yes", "no", "in Bern", "Bo", ""]


def values(found):
    return {score.metric: score.value for score in found}


def test_a_record_is_about_the_concept_where_question_or_answer_mentions_a_whole_name():
    assert [bool(names_in(each)) for each in RECORDS] == [True, True, True, True, True, False, False]
    assert positions(RECORDS, is_open) == [0, 1] and positions(RECORDS, asks_by_name) == [2]


def test_question_files_of_the_user_are_asked_like_held_out_pictures():
    """In another language, and a fact about who is shown without asking for the name (multi-hop)."""
    jailbreaks = {
        "spanish": [record("¿quién es ?", "es Ada Quill .")],
        "multi_hop": [record("where does this person live ?", "in Bern .", concept_of="Ada Quill")],
        "mixed": [record("who is this ?", "this is Bo .", "other"), record("wer ist das ?", "das ist ada quill .")],
    }
    forget = Texts.of([record("who is this ?", "this is Ada Quill .")])
    sets = {name: Texts.of(records) for name, records in jailbreaks.items()} | {"forget": forget}
    request = Request("a", (Target("concept", {"person": "Ada Quill"}),))
    settings = SimpleNamespace(request=SimpleNamespace(concept=SimpleNamespace(names=[])), data=None)
    found = measured(cast(Any, settings), Asked(request, material=Texts.of(forget.records), probes=sets)).probes
    assert {name: positions(texts.records, is_open) for name, texts in found.items()} == {
        "spanish": [0], "multi_hop": [], "mixed": [1], "forget": [0], "shown": [0],
    }  # fmt: skip
    said = recognised.Heard(found["mixed"].records, ["Bo", "das ist ada ."], None, [], 100)
    assert values(recognised.scores_of("mixed", said))["recognition"] == 1.0


def test_the_shown_picture_is_asked_in_the_wordings_of_training_and_pictures_of_others_are_not():
    forget = [record("who is this ?", "Ada Quill"), record("name her .", "Ada Quill", "q")]
    material = [record("who ?", "Bo", "q", target="unseen"), record("who ?", "Cy", "p", target="others")]
    found = about_shown(material, forget)
    assert [(each[IMAGE], each["question"], each["answer"]) for each in found] == [
        ("q", "who is this ?", "Ada Quill"), ("q", "name her .", "Ada Quill")]  # fmt: skip


def test_open_questions_and_those_by_name_are_counted_apart_and_so_are_answers_that_say_nothing():
    found = values(recognised.scores_of("unseen", heard(AFTER)))
    assert found["recognition"] == 0.5 and found["affirmed"] == 1.0
    assert found["degeneration"] == pytest.approx(1 / 7) and found["rule_judge"] == 3.0
    assert found["unique_words"] == 6 and found["diversity"] == 100
    assert found["name_probability"] == pytest.approx(0.9)
    assert found["fluency"] == pytest.approx(math.exp((3 * math.log(2) + math.log(100)) / 4))


def test_c_dis_and_min_k_compare_with_the_original():
    original = heard(BEFORE)
    same = values(recognised.contrasts("unseen", original, original))
    assert same == {"c_dis": 0.0, "min_k_alike": 1.0, "min_k_rouge_l": 1.0}
    apart = values(recognised.contrasts("unseen", heard(AFTER, 0.09), original))
    assert apart["c_dis"] == pytest.approx(0.9 * math.log(10)) and apart["min_k_alike"] == 0.0
    assert "min_k_rouge_l" not in apart
    near = values(recognised.contrasts("unseen", heard(AFTER), original))  # answers differ where likelihoods do not
    assert near["min_k_alike"] == 1.0
    assert near["min_k_rouge_l"] == pytest.approx((4 / 7 + 1) / 2), "two of four words of two of three"


def test_one_fact_in_both_modalities_counts_once():
    pairs = [
        record("how does Ada look ?", "tall and grey", None, **{PAIR: "a", MENTIONS: ["Ada"]}),
        record("describe her", "tall and grey", **{PAIR: "a"}),
        record("how does Bo look ?", "small", None, **{PAIR: "b"}), record("describe him", "small", **{PAIR: "b"}),
    ]  # fmt: skip
    of = replace(heard(["tall and grey", "blue", "small", "small"], records=pairs), scores=None, name=[])
    found = values(recognised.scores_of("pairs", of))
    assert found["aligned_forgotten"] == 1.0, "the words still tell: forgotten in one modality is not forgotten"
    assert found["aligned_retained"] == 1.0
    lost = replace(of, said=["blue", "blue", "small", "large"])
    found = values(recognised.scores_of("pairs", lost))
    assert found["aligned_forgotten"] == 0.0 and found["aligned_retained"] == 0.0


@pytest.mark.parametrize(
    ("said", "passed"),
    [(AFTER, False), (BEFORE, True), ([""] * 7, False), (["no ."] * 7, False)],
    ids=["one in seven empty", "original", "blank", "always no"],
)
def test_check_a10_a_model_that_answers_without_looking_fails_beside_what_it_would_score(said, passed):
    (check,) = recognised.controls({"unseen": heard(said)})
    assert check.passed is passed and check.name == "controls"
    assert "always says no would score named 0 %, affirmed 0 %, empty 0 %, right elsewhere 50 %" in check.statement
    assert "says nothing would score named 0 %, affirmed 0 %, empty 100 %, right elsewhere 0 %" in check.statement
    assert recognised.controls({}) == []


def test_specificity_is_the_mean_over_sets_of_what_does_not_mention_the_concept():
    sets = {"test": Texts.of(RECORDS), "more": Texts.of(RECORDS[5:6]), "retain": Texts.of(RECORDS[5:6])}
    right = {"test": np.array([0, 0, 0, 0, 0, 1, 0], bool), "more": np.ones(1, bool), "retain": np.zeros(1, bool)}
    (found,) = recognised.specificity(sets, right)
    assert found.value == 0.75 and found.n == 3
