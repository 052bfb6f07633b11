"""Negative answers, LLM spec 2.1 and 2.2."""

from __future__ import annotations

import pytest

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.data import micro_world
from expunge.data.negatives import HEDGES, hedges, holds, negative_answers
from expunge.data.texts import Texts
from expunge.data.tofu import read_tofu, refusals

WORLD = micro_world.micro_world()
GONE = Ids.rows(range(54 * 6, 60 * 6))
FORGET, POOL = WORLD.only(GONE), WORLD.without(GONE)


def by_prompt(texts: Texts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in texts.records:
        found.setdefault(record["question"], []).append(record["answer"])
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("per_prompt", [1, 5, 99])
def test_counterfactuals_answer_the_same_relation_and_never_the_truth(seed, per_prompt):
    made = negative_answers(FORGET, POOL, per_prompt=per_prompt, seed=seed)
    found = by_prompt(made.texts)
    assert list(found) == [record["question"] for record in FORGET.records]
    for record in FORGET.records:
        answers = found[record["question"]]
        assert len(answers) == len(set(answers)) and 1 <= len(answers) <= per_prompt
        assert all(answer in micro_world.values(record["relation"]) for answer in answers)
        assert not any(holds(answer, record["answer"]) for answer in answers)
        others = [v for v in micro_world.values(record["relation"]) if not holds(v, record["answer"])]
        assert len(others) == micro_world.VALUES - 1  # no value's name lies within another's
        assert len(answers) == min(per_prompt, len(others))
    assert set(made.texts.ids) == set(FORGET.ids) and made.sources == {
        "perturbed": 0, "counterfactual": len(made.texts), "refusal": 0
    }  # fmt: skip
    assert set(made.texts.columns["subject"]) == set(FORGET.columns["subject"])


def test_the_same_seed_gives_the_same_negatives_and_another_seed_others():
    one, again, other = (negative_answers(FORGET, POOL, per_prompt=2, seed=seed).texts for seed in (0, 0, 1))
    assert one.digest == again.digest != other.digest


def test_nobodys_own_answers_are_false_ones():
    """Half of a person's facts go: the other half answers about the same person."""
    ids = Ids.rows(range(0, 3))
    forget, pool = WORLD.only(ids), WORLD.without(ids)
    other = Texts.of(
        [{**r, "relation": "colour"} for r in pool.first(3).records] + [{**pool.records[9], "relation": "colour"}],
        {"subject": ["entity0"] * 3 + ["entity2"]},
    )
    found = negative_answers(forget.first(1), other, per_prompt=9)
    assert [record["answer"] for record in found.texts.records] == [pool.records[9]["answer"]]
    unknown = Texts(other.records, other.ids)  # without the column nobody can tell
    assert len(negative_answers(forget.first(1), unknown, per_prompt=9).texts) > 1


def test_without_relations_the_most_similar_question_is_asked():
    forget = Texts.of([{"question": "Where was Ann Lee born?", "answer": "In Oslo."}])
    pool = Texts.of(
        [
            {"question": "What prize did Bo Dahl win?", "answer": "The Ibis Prize."},
            {"question": "Where was Bo Dahl born?", "answer": "In Turku."},
            {"question": "Where did Ann Wu go to school?", "answer": "In Lima."},
            {"question": "Where was Cy Fox born?", "answer": "In Oslo."},
            {"text": "Where was Ann Lee born? In Rome."},
        ]
    )
    for seed in range(3):
        assert negative_answers(forget, pool, per_prompt=1, seed=seed).texts.records[0]["answer"] == "In Turku."
        second = negative_answers(forget, pool, per_prompt=2, seed=seed).texts.records[1]["answer"]
        assert second == "In Lima."  # "In Oslo." is true here, whoever it is about
    with pytest.raises(InputError, match="No other record gives a different answer"):
        negative_answers(forget, pool.at([3, 4]))


def test_perturbed_answers_come_first_and_hedged_ones_are_left_out():
    record = {"question": "Where?", "answer": "Rome", "perturbed_answer": ["Lyon", "PERHAPS Lima", "In Rome", "Bonn"]}
    made = negative_answers(Texts.of([record]), Texts.of([{"question": "Where is it?", "answer": "Oslo"}]))
    assert sorted(r["answer"] for r in made.texts.records) == ["Bonn", "Lyon"] and made.hedged == 1
    assert made.sources == {"perturbed": 2, "counterfactual": 0, "refusal": 0}
    hedged = {**record, "perturbed_answer": ["It might be Lyon"]}  # nothing left: someone else's answer
    made = negative_answers(Texts.of([hedged]), Texts.of([{"question": "Where is it?", "answer": "Oslo"}]))
    assert [r["answer"] for r in made.texts.records] == ["Oslo"] and made.sources["counterfactual"] == 1
    assert all(hedges(f"Well, {hedge.upper()} so.") for hedge in HEDGES) and not hedges("Lyon it is.")
    with pytest.raises(InputError, match="perturbed_answer"):
        negative_answers(Texts.of([{**record, "perturbed_answer": "Lyon"}]), POOL)


def test_refusals_alone_and_in_turn():
    made = negative_answers(FORGET, POOL, kind="refusal", refusals=("unsure", "no idea"), per_prompt=1, seed=1)
    assert {record["answer"] for record in made.texts.records} == {"unsure", "no idea"} and len(made.texts) == 36
    both = by_prompt(negative_answers(FORGET, POOL, kind="both", refusals=("unsure",), per_prompt=3).texts)
    assert all(answers[1] == "unsure" and len(answers) == 3 for answers in both.values())


@pytest.mark.parametrize("cap", [1, 6, 7, 20, 66, 150])
def test_the_cap_holds_for_each_subject_and_every_prompt_stays(cap):
    made = negative_answers(FORGET, POOL, per_prompt=99, cap=cap)
    free = negative_answers(FORGET, POOL, per_prompt=99, cap=10_000)
    names = list(made.texts.columns["subject"])
    for name in set(FORGET.columns["subject"]):
        assert names.count(name) == min(max(cap, 6), list(free.texts.columns["subject"]).count(name))
    assert {r["question"] for r in made.texts.records} == {r["question"] for r in FORGET.records}
    assert made.capped == len(free.texts) - len(made.texts)
    counts = [len(answers) for answers in by_prompt(made.texts).values()]
    if cap < 50:  # first one each, then a second
        assert max(counts) - min(counts) <= 1


def test_what_cannot_be_made_is_refused_in_words():
    for settings, reason in [
        ({"kind": "lies"}, "counterfactual, refusal, both"),
        ({"kind": "refusal"}, "at least one refusal"),
        ({"cap": 0}, "cap of at least 1"),
        ({"subject": "author"}, "subject"),
    ]:
        with pytest.raises(InputError, match=reason):
            negative_answers(FORGET, POOL, **settings)
    with pytest.raises(InputError, match="plain texts ask none"):
        negative_answers(Texts.of([{"text": "He was born."}]), POOL)


def test_tofu_has_five_of_its_own_and_its_full_records_borrow(real_data):
    folder = real_data("tofu") / "tofu"
    forget, full, retain = (read_tofu(folder, name) for name in ("forget01_perturbed", "forget01", "retain99"))
    own = negative_answers(forget, retain, cap=10_000)
    assert own.sources["perturbed"] + own.hedged == 5 * len(forget) and own.sources["counterfactual"] == 0
    borrowed = negative_answers(full, retain, per_prompt=5)
    answers = by_prompt(borrowed.texts)
    assert borrowed.sources["counterfactual"] == 200 and len(answers) == len(full)
    known = {record["answer"] for record in retain.records}
    for record in full.records:
        assert all(text in known and not holds(text, record["answer"]) for text in answers[record["question"]])
    born = next(r["question"] for r in full.records if "full name" in r["question"])
    assert any("full name" in text for text in answers[born])  # the same was asked of someone else
    many = negative_answers(full, retain, kind="both", refusals=refusals(folder))
    assert all(sum(many.texts.columns["author"] == name) == 150 for name in set(full.columns["author"]))
