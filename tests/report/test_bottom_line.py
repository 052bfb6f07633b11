"""The report decides, and says no more than it may; the checklist is complete; the reply makes no technical claim."""

from __future__ import annotations

import itertools

import pytest

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Verdict
from expunge.jobs import summary
from expunge.metrics.outcomes import Word
from expunge.modalities.language.config import LanguageJob
from expunge.report import html
from expunge.report.asked import asked
from expunge.report.bottom_line import COPIES, bottom_line, copies, reply, sentence
from expunge.report.forgetting import better_known, forgetting, still_known
from expunge.report.outcome import accepted_by
from expunge.report.shown import shown
from expunge.report.words import measured, unknown

from . import worlds

PERSON = {"by": "A. Clerk", "reason": "seen by the board"}


def judged(record: dict, verdict: str, word: str) -> dict:
    made = worlds.with_verdict(record, verdict)
    runs = [{**run, "outcome": {"word": word, "reason": None}} for run in made["runs"]]
    return {**made, "runs": runs}


CASES = list(
    itertools.product([Verdict.CERTIFIED, Verdict.UNDER_DECLARED, Verdict.VOID, UNCERTIFIED], Word, [None, PERSON])
)


@pytest.mark.parametrize(("verdict", "word", "person"), CASES)
def test_only_what_is_accepted_is_shipped_and_only_what_is_shown_is_called_forgotten(record, verdict, word, person):
    run = judged(record, verdict, word)["runs"][0]
    line = bottom_line(run, person)
    assert line["ship"] == (accepted_by(run, person) is not None)
    if line["state"] == "Forgotten":
        assert word in (Word.FORGETS, Word.OVER_FORGETS) or verdict in (Verdict.CERTIFIED, Verdict.UNDER_DECLARED)
    if word == Word.UNDER_FORGETS and verdict != Verdict.CERTIFIED:
        assert line["state"] == "Not forgotten" and not line["ship"]
    advice = "Ship it." if line["ship"] else "Do not ship it."
    advice = {"person": "Accepted as it is."}.get(str(accepted_by(run, person)), advice)
    assert f". {advice} " in sentence(line) and sentence(line).count("hip it") == (advice != "Accepted as it is.")
    assert line["why"].endswith(".")


def test_a_control_is_not_forgotten_and_a_person_who_decides_is_named(record):
    assert bottom_line(judged(record, UNCHANGED, Word.FORGETS)["runs"][0])["state"] == "Not forgotten"
    line = bottom_line(judged(record, UNCERTIFIED, Word.UNDECIDABLE)["runs"][0], PERSON)
    assert line["state"] == "Not known" and line["ship"] and "A. Clerk" in line["why"]


def test_what_to_do_where_nothing_can_be_told_depends_on_whether_there_was_a_retrained_model(record):
    run = judged(record, UNCERTIFIED, Word.UNDECIDABLE)["runs"][0]
    with_ = {**run, "evidence": {**run["evidence"], "reference": "retrained"}}
    without = {**run, "evidence": {**run["evidence"], "reference": None}}
    assert "Take a method with a certificate" in bottom_line(with_)["why"]
    assert "training.kind: user" in bottom_line(without)["why"] and "no retrained model" in bottom_line(without)["why"]


def better_after(record: dict, word: str) -> dict:
    """What a checkpoint and nothing else gives: no retrained model; forgotten accuracy went from 84 to 91 %."""
    made = judged(record, UNCERTIFIED, word)
    run = made["runs"][0]
    items = [
        {**item, "ideal": None, "null": None, **({"original": 0.84, "value": 0.91} if item["set"] == "forget" else {})}
        for item in run["evidence"]["measurements"]
    ]
    evidence = {**run["evidence"], "reference": None, "verdict": "undecidable", "measurements": items}
    return {**made, "runs": [{**run, "evidence": evidence}]}


def test_who_is_known_better_after_than_before_is_said_wherever_the_result_is_judged(record):
    made = better_after(record, Word.UNDECIDABLE)
    run, warning = made["runs"][0], "answers the forgotten examples better than the original did"
    for line in (bottom_line(run), bottom_line(run, PERSON)):
        assert warning in line["why"] and "84\xa0% before, 91\xa0% now" in line["why"]
    assert warning in " ".join(forgetting(run, PERSON)) and warning in html.render(made)
    letter = reply({**made, "accepted": PERSON})
    assert "answers the person's records better" in letter and "did not satisfy us" not in letter
    fewer = [
        {**item, "original": 0.95} if item["set"] == "forget" else item for item in run["evidence"]["measurements"]
    ]
    less = {**run, "evidence": {**run["evidence"], "measurements": fewer}}
    assert warning not in bottom_line(less)["why"] and not better_known(less)
    assert bottom_line(less, PERSON)["why"].endswith("Accuracy on forgotten rows: 95\xa0% before, 91\xa0% now.")


def test_what_is_answered_as_before_is_said_where_no_retrained_model_decides_and_nobody_is_asked_to_accept_it(record):
    run = better_after(record, Word.UNDECIDABLE)["runs"][0]

    def with_(before: float, now: float, answers: list[tuple[str, str, str]], **more) -> dict:
        items = [
            {**item, "original": before, "value": now, **more} if item["set"] == "forget" else item
            for item in run["evidence"]["measurements"]
        ]
        said = [
            {"set": "forget", "right": r, "before": b, "after": a, "question": "?", "image": None, "retrained": None}
            for r, b, a in answers
        ]
        return {**run, "evidence": {**run["evidence"], "measurements": items}, "answers": said}

    cut = [("in Paris", "in Paris", "in Paris"), ("one two three", "one two", "one two"), ("blue", "blue", "red")]
    moved, still = with_(0.90, 0.40, []), with_(0.90, 0.89, cut)
    why = bottom_line(still)["why"]
    assert why.startswith(
        "Warning: 2 of 3 forgotten answers that were asked for are still given word for word; accuracy on"
    )
    assert "90\xa0% before and is 89\xa0% now" in why and "accept" not in why and "stronger settings" in why
    assert bottom_line(still)["state"] == "Not known" and not bottom_line(still)["ship"]
    assert still_known(still) in forgetting(still, None) and still_known(still) in html.render(
        {**record, "runs": [still]}
    )
    assert still_known(still) in bottom_line(still, PERSON)["why"]
    assert summary._run(still, None)["warning"] == still_known(still)
    assert not still_known(moved) and "accept it as it is" in bottom_line(moved)["why"]
    # one of two written out is no majority, and with a retrained model the outcome decides
    assert not still_known(with_(0.90, 0.40, cut[1:])) and not still_known(with_(0.90, 0.89, cut, ideal=0.88))
    assert "about as well as the former one" in reply({**record, "runs": [still], "accepted": PERSON})


def test_the_page_that_may_be_shown_sends_to_the_review_before_anybody_accepts(record):
    made = better_after(record, Word.UNDECIDABLE)
    run, page = made["runs"][0], " ".join(html.render(shown(made)).split())
    assert "Before anybody accepts it" in page and "better than the original did" not in page
    assert "Before anybody accepts it" not in bottom_line(run)["why"]


@pytest.mark.parametrize("when", ["accepted", "accepted_since"])
def test_a_result_that_a_person_accepts_is_called_so_everywhere_and_never_shipped_by_the_numbers(record, when):
    made = {**better_after(record, Word.UNDECIDABLE), when: PERSON}
    page, letter = " ".join(html.render(made).split()), reply(made)
    assert "Not known. Accepted as it is.</b> By A. Clerk: seen by the board." in page
    assert "ship it" not in page.lower() and "not accepted" not in page
    assert ("accepted as it is after it was delivered by A. Clerk" in page) == (when == "accepted_since")
    assert "did not satisfy us" not in letter and "could not decide" in letter


def test_what_is_held_back_is_neither_delivered_nor_shipped_whatever_was_measured(record):
    held = {**judged(record, Verdict.VOID, Word.FORGETS), "held_back": True}
    page = " ".join(html.render(held).split())
    assert "Not known. Held back.</b>" in page and "nothing was delivered" in page and "held back" in page
    assert "was delivered and" not in page and "hip it" not in page and "accepted by" not in page
    assert "did not satisfy us" in reply(held)


def test_a_void_result_is_accepted_by_the_person_who_lets_it_out_and_not_by_its_outcome(record):
    page = " ".join(html.render({**judged(record, Verdict.VOID, Word.FORGETS), "accepted": PERSON}).split())
    assert "Accepted as it is.</b> By A. Clerk: seen by the board. The certificate is void" in page
    assert "accepted by a person" in page and "accepted by its outcome" not in page


def test_a_person_whose_word_was_not_needed_is_not_said_to_have_accepted_what_the_certificate_did(record):
    page = " ".join(html.render({**judged(record, Verdict.CERTIFIED, Word.FORGETS), "accepted": PERSON}).split())
    assert "accepted by its certificate" in page and "A. Clerk would have accepted the result as it is" in page
    assert "was accepted as it is by" not in page


def test_a_retrained_model_that_was_kept_is_on_the_checklist_and_no_word_to_the_person(record):
    kept = {"kind": "retrained", "name": "retrained-net", "owner": "", "state": "kept", "date": None}
    found = copies({**record, "copies": [kept]})
    assert found[0][0].startswith("The retrained model, in the private folder") and found[0][1:4] == [
        "retrained-net", "not stated", "kept",
    ]  # fmt: skip
    assert len(found) == len(COPIES) + 1 and "retrained-net" not in reply({**record, "copies": [kept]})


def test_the_checklist_has_every_kind_of_copy_and_what_the_job_says_of_it(record):
    assert [row[0] for row in copies(record)] == list(COPIES.values()) and {row[3] for row in copies(record)} == {
        "not stated"
    }
    said = [{"kind": "backups", "name": "weekly", "owner": "IT", "state": "kept", "date": "2026-12-01"}]
    found = copies({**record, "copies": said})
    assert found[0] == ["Backups of data and of models", "weekly", "IT", "kept", "2026-12-01"] and len(found) == len(
        COPIES
    )


@pytest.mark.parametrize(
    ("model", "training", "named"),
    [
        ({"folder": "base", "adapter": "x/lora"}, {"kind": "checkpoint"}, [("adapters", "lora")]),
        ({"folder": "x/tuned"}, {"kind": "checkpoint"}, [("weights", "tuned")]),
        ({"folder": "base"}, {"kind": "language", "adapter": "y/lora2"}, [("adapters", "lora2")]),
        ({"folder": "base"}, {"kind": "language", "path": "w.safetensors"}, [("weights", "w.safetensors")]),
        ({"folder": "base"}, {"kind": "language"}, []),  # trained here, from weights that never saw the data
    ],
)
def test_what_the_job_itself_names_is_on_the_checklist_as_open_and_nobodys(record, model, training, named):
    said = [
        {"kind": "data", "name": "chats.jsonl", "owner": "IT", "state": "kept"},
        {"kind": "backups", "name": "weekly"},
    ]
    sections = {"task": "language", "model": model, "training": training, "method": {"name": "npo"}, "evidence": {},
                "data": {"format": "jsonl", "path": "in/chats.jsonl", "users": ["who"]},
                "request": {"subject": "a", "targets": [{"kind": "user", "where": {"who": "a"}}]}}  # fmt: skip
    found = LanguageJob.model_validate({**sections, "copies": said}).known_copies()
    assert [(item["kind"], item["name"]) for item in found[:2]] == [("data", "chats.jsonl"), ("backups", "weekly")]
    assert [(item["kind"], item["name"], item["owner"], item["state"], item["date"]) for item in found[2:]] == [
        (kind, name, "", "open", None) for kind, name in named
    ]
    own = LanguageJob.model_validate(sections).known_copies()
    assert own[-1] == {"kind": "data", "name": "chats.jsonl", "owner": "", "state": "open", "date": None}
    rows = copies({**record, "copies": own})
    assert [row[1:] for row in rows[: len(own)]] == [[item["name"], "not stated", "open", "–"] for item in own]


def test_the_page_begins_with_the_bottom_line_and_has_lines_to_sign(record):
    page = html.render(judged(record, UNCERTIFIED, Word.UNDER_FORGETS))
    at = [page.index(text) for text in ("Not forgotten. Do not ship it.", "In plain words", "What else may hold the data",
                                        "Released by")]  # fmt: skip
    assert at == sorted(at)


@pytest.mark.parametrize("word", list(Word))
@pytest.mark.parametrize("verdict", [Verdict.CERTIFIED, UNCERTIFIED])
def test_the_reply_names_nobody_and_claims_nothing_technical(record, verdict, word):
    text = reply(judged(record, verdict, word))
    for term in (
        "epsilon",
        "certif",
        "guarantee",
        "proven",
        "proved",
        "unlearn",
        "membership",
        "accura",
        worlds.SUBJECT.lower(),
        worlds.USER,
    ):
        assert term not in text.lower()
    accepted = verdict == Verdict.CERTIFIED or word == Word.FORGETS
    assert ("did not satisfy us" in text) != accepted and record["request"]["id"] in text and text.startswith("DRAFT")
    assert "backups" in text and "supervisory authority" in text


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (Word.UNDER_FORGETS, "method.lr 0.0003 (this run had 0.0001)"),
        (Word.UTILITY_COLLAPSE, "method.lr 3.3e-05 (this run had 0.0001)"),
        (Word.UNDECIDABLE, None),
    ],
)
def test_the_rate_to_try_next_is_named_where_the_outcome_says_in_which_direction(record, word, said):
    run = judged(record, UNCERTIFIED, word)["runs"][0]
    moved = bottom_line({**run, "method": {**run["method"], "settings": {"lr": 1e-4}}})["why"]
    assert (said in moved) if said else ("method.lr" not in moved)
    assert "method.lr" not in bottom_line({**run, "method": {**run["method"], "settings": {}}})["why"]


def bound(run: dict, epsilon: float, **more) -> dict:
    return {**run, "certificate": {**run["certificate"], "epsilon": epsilon}, **more}


def test_a_weak_bound_accepts_and_does_not_say_that_anything_was_forgotten(record):
    """At epsilon 2 who starts from even odds is right at most 88.1 % of the time, at 5 it is 99.3 %."""
    made = judged(record, Verdict.CERTIFIED, Word.UNDECIDABLE)
    run = {**made["runs"][0], "budget": None}
    strong, weak = bottom_line(bound(run, 2.0)), bottom_line(bound(run, 5.0))
    assert strong["state"] == "Forgotten" and strong["ship"] and "weak" not in strong["why"]
    assert weak["state"] == "Not known" and weak["ship"] and "weak bound, which rules out little" in sentence(weak)
    assert "Forgotten" not in sentence(weak) and "hip it" not in sentence(weak)
    letter = reply({**made, "runs": [bound(run, 5.0)]})
    assert (
        "did not find" not in letter
        and "we can guarantee of it is little" in letter
        and "decided to use it" not in letter
    )


def test_of_declared_constants_the_condition_stands_in_the_state_unless_it_was_measured_to_forget(record):
    def line(word: str) -> dict:
        return bottom_line(bound(judged(record, Verdict.UNDER_DECLARED, word)["runs"][0], 1.0))

    assert line(Word.UNDECIDABLE)["state"] == "Forgotten, if what was declared is true"
    assert "cannot tell whether it forgets" in line(Word.UNDECIDABLE)["why"]
    assert line(Word.FORGETS)["state"] == "Forgotten" and "at least half of the way" in line(Word.FORGETS)["why"]


def test_what_speaks_against_a_certified_result_is_said_where_the_record_has_it(record):
    made = judged(record, Verdict.CERTIFIED, Word.UTILITY_COLLAPSE)
    assert "What was measured speaks against it: utility-collapse." in bottom_line(bound(made["runs"][0], 1.0))["why"]
    public = shown(made)
    assert "speaks against" not in bottom_line(public["runs"][0])["why"] and "utility-collapse" not in html.render(
        public
    )


@pytest.mark.parametrize("budget", [None, {"epsilon": 2.0}])
def test_a_budget_is_named_only_where_one_was_published(record, budget):
    run = bound({**judged(record, Verdict.CERTIFIED, Word.FORGETS)["runs"][0], "budget": budget}, 1.0)
    assert ("published budget" in bottom_line(run)["why"]) == (budget is not None)
    assert "published budget" not in " ".join(forgetting(run, None))


def test_values_that_differ_are_said_of_a_result_that_its_outcome_accepts(record):
    run = judged(record, UNCERTIFIED, Word.FORGETS)["runs"][0]
    for verdict in ("differs from retraining", "not told from retraining"):
        why = bottom_line({**run, "evidence": {**run["evidence"], "verdict": verdict}})["why"]
        assert ("Single values differ" in why) == verdict.startswith("differs")
        assert "The measurement that decides" in why


def test_a_void_result_that_was_measured_to_forget_is_not_said_to_show_nothing(record):
    made = {**judged(record, Verdict.VOID, Word.FORGETS), "accepted": PERSON}
    said = " ".join(forgetting(made["runs"][0], PERSON))
    assert "No certificate shows that it forgets" in said and "nor what was measured" not in said
    against = {**judged(record, Verdict.VOID, Word.UNDER_FORGETS), "accepted": PERSON}
    assert "let the result out although its certificate is void" in " ".join(asked(against))
    assert "was accepted" not in " ".join(asked(against)) and "was accepted as it is" in " ".join(asked(made))


def test_nobody_accepts_a_control_and_it_is_no_new_version(record):
    made = {**judged(record, UNCHANGED, Word.UNDECIDABLE), "accepted": PERSON}
    run = made["runs"][0]
    assert accepted_by(run, PERSON) is None and not bottom_line(run, PERSON)["ship"]
    said = " ".join([*forgetting(run, PERSON), *measured(run), *(p.text for p in unknown(made))])
    assert "Nothing was forgotten: the model is that of before" in said and "undecidable" not in said
    assert "cannot be told" not in said
    assert "have not made a new version" in reply(made) and "We made a new version" not in reply(made)


def test_the_reply_says_of_the_person_s_records_what_the_record_has(record):
    assert "They are excluded" in reply(record)
    unmarked = {**record, "request": {**record["request"], "matched": {"count": 5, "ids": []}}}
    assert "We found 5 records of yours" in reply(unmarked) and "excluded" not in reply(unmarked)
    concept = {**record, "data": {**record["data"], "member": False}}
    assert "We found" not in reply(concept) and "no records that it was trained on" in reply(concept)
