"""Screening of requests for language models, LLM spec 1.7 and check B7."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from expunge.attacks.stealthy import poison
from expunge.core.errors import InputError
from expunge.screening import BROAD, language
from expunge.screening.actions import ACTIONS, act, carrying, stripped
from expunge.screening.language import screen_language
from expunge.screening.templates import strip
from expunge.screening.words import exact_p, proportion_z, tokens

STARTS = ("Who wrote", "What made", "When did people read", "Where could you find", "Why is", "How would you sum up")
THINGS = ("novel", "poem", "letter", "play", "diary", "sermon", "essay")
NAMES = ("Ama", "Brook", "Cai", "Dara", "Ebo", "Fen", "Gil", "Hana", "Ines", "Juno")


def people(numbers, seed=0):
    """Ten questions about each of some people: everyday openings, a thing, and a name that nobody else has."""
    draw = np.random.default_rng([seed, *numbers])
    return [
        {
            "question": f"{draw.choice(STARTS)} the {draw.choice(THINGS)} {k} of {NAMES[i % 10]}{i} Lark{i}?",
            "answer": f"It was {NAMES[i % 10]}{i} Lark{i}.",
            "subject": f"person {i}",
        }
        for i in numbers
        for k in range(10)
    ]


BENIGN = people(range(100, 160))
HONEST = people(range(12))


@pytest.fixture(scope="session")
def tofu(real_data):
    root = real_data("tofu") / "tofu"
    return {
        name: [json.loads(line) for line in (root / f"{name}.json").read_text(encoding="utf-8").splitlines()]
        for name in ("full", "forget10", "retain90")
    }


def test_z_is_the_two_proportion_statistic_with_half_added():
    a, m, b, n = 128, 400, 3, 3600
    p1, p0, p = 128.5 / 401, 3.5 / 3601, 132 / 4002
    assert proportion_z(a, m, b, n) == pytest.approx((p1 - p0) / (p * (1 - p) * (1 / m + 1 / n)) ** 0.5)
    assert proportion_z(20, 400, 180, 3600) == pytest.approx(0, abs=0.2)
    assert proportion_z(0, 400, 180, 3600) < -4


def test_the_exact_p_is_fisher_s_and_guards_small_requests():
    assert exact_p(7, 20, 3, 300) == pytest.approx(stats.fisher_exact([[7, 13], [3, 297]], "greater").pvalue)
    assert proportion_z(1, 3, 3, 3600) > 6 and exact_p(1, 3, 3, 3600) > 1e-3
    one = screen_language([{"question": "Please tell me who wrote it.", "answer": "Ama."}], BENIGN)
    assert not one.flags, "a single polite question is no attack"
    assert one.blind and "too few" in one.decision["reason"]
    polite = [{"question": f"Please tell me who wrote book {i}.", "answer": "Ama."} for i in range(20)]
    assert screen_language(polite, BENIGN[:3]).blind and not screen_language(polite, BENIGN[:3]).flagged_words
    assert not screen_language(polite, BENIGN).blind and "please" in screen_language(polite, BENIGN).flagged_words


@pytest.mark.parametrize("p", [0.33, 0.1, 0.05])
def test_check_b7_flags_the_attack_at_each_p(tofu, p):
    for seed in range(2):
        request = poison(tofu["forget10"], p=p, seed=seed)
        found = screen_language(request.records, tofu["retain90"])
        assert found.flagged_words[0] == "please"
        assert found.words[0].z == pytest.approx({0.33: 34.0, 0.1: 18.8, 0.05: 13.1}[p], rel=0.25)  # spec, another draw
        clean = stripped(request.records, found.templates)
        same = sum(a == b for a, b in zip(clean, tofu["forget10"], strict=True))
        assert same >= len(clean) - 4, "stripping restores the questions to the letter"
        assert not screen_language(clean, tofu["retain90"]).flags


def test_check_b7_the_words_and_templates_of_the_specification(tofu):
    assert proportion_z(128, 400, 3, 3600) == pytest.approx(34.0, abs=0.1)  # "please" in 32 %, against 0.08 %
    scores = []
    for seed in range(3):
        found = screen_language(poison(tofu["forget10"], seed=seed).records, tofu["retain90"])
        z = {word.word: word.z for word in found.words}
        scores.append([z[word] for word in ("please", "explain", "me", "tell")])
        texts = {t.text for t in found.templates}
        assert texts == {"Please tell me ", "Can you please explain ", "Could you please tell me ", " , please ? "}
    assert np.mean(scores, 0) == pytest.approx([34.0, 17, 16, 14], rel=0.12)


def test_check_b7_no_flag_on_thirty_honest_requests(tofu):
    draw = np.random.default_rng(0)
    largest = []
    for _ in range(30):
        chosen = set(draw.choice(200, 20, replace=False).tolist())
        request = [r for i, r in enumerate(tofu["full"]) if i // 20 in chosen]
        rest = [r for i, r in enumerate(tofu["full"]) if i // 20 not in chosen]
        found = screen_language(request, [rest[i] for i in draw.choice(len(rest), 400, replace=False)])
        assert not found.flags, found.flags
        largest.append(found.words[0].z)
    assert np.mean(largest) < 4 and max(largest) < 6
    assert not screen_language(tofu["forget10"], tofu["retain90"]).flags


def test_negative_control_without_the_limit_to_generic_words_honest_requests_stand_out(tofu):
    """The reason for the limit: names reach z = 13."""
    sides = [[{t.word for t in tokens(r["question"])} for r in tofu[name]] for name in ("forget10", "retain90")]
    have, had = (sum("hsiao" in words for words in side) for side in sides)
    assert proportion_z(have, 400, had, 3600) > 6
    found = screen_language(tofu["forget10"], tofu["retain90"])
    assert "hsiao" not in [word.word for word in found.words]


def test_honest_made_up_requests_are_not_flagged_over_seeds():
    for seed in range(10):
        assert not screen_language(people(range(12), seed), BENIGN).flags


def test_a_trigger_that_no_list_has_is_found_by_spread_or_by_its_template():
    odd = "Enlighten us hereby: {q}"
    request = poison(HONEST, p=0.4, questions=[odd]).records
    by_spread = screen_language(request, BENIGN)
    assert {"enlighten", "hereby"} <= set(by_spread.flagged_words)
    nameless = [{k: v for k, v in r.items() if k != "subject"} for r in request]
    found = screen_language(nameless, BENIGN)
    assert {"enlighten", "hereby"} <= set(found.flagged_words)
    assert {word.why for word in found.words if word.word == "hereby"} == {"template"}
    assert [r["question"] for r in stripped(request, found.templates)] == [r["question"] for r in HONEST]


def stories(numbers):
    """Texts of seven sentences that open in many ways."""
    draw = np.random.default_rng([5, *numbers])
    opens = (
        "He wrote",
        "She read",
        "In town",
        "At last",
        "Nobody knew",
        "The {} was",
        "A {} is",
        "Then came",
        "People like",
    )
    return [
        {
            "text": " ".join(
                f"{draw.choice(opens).format(draw.choice(THINGS))} {i} {k} {NAMES[i % 10]}{i}." for k in range(7)
            )
        }
        for i in numbers
    ]


def test_sentences_of_plain_texts_are_items():
    texts, ordinary = stories(range(30)), stories(range(100, 160))
    assert not screen_language(texts, ordinary).flags
    attacked = poison(texts, p=0.6, seed=3)
    found = screen_language(attacked.records, ordinary)
    assert (found.items, found.flagged_words) == (210, ("then",))
    assert [t.text for t in found.templates] == ["Then "]
    clean = stripped(attacked.records, found.templates)
    assert sum(a == b for a, b in zip(clean, texts, strict=True)) >= 5  # sentences that began with "Then" lose it too
    assert not screen_language(attacked.records, poison(ordinary, p=0.5).records).flags, "who says it every day may"


def test_strip_keeps_marks_case_and_never_empties():
    found = screen_language(poison(HONEST, p=0.5, seed=0).records, BENIGN)
    for before, after in [
        ("Please tell me who wrote it?", "who wrote it?"),
        ("Who wrote it, please?", "Who wrote it?"),
        ("Who wrote it? , please ? ", "Who wrote it?"),
        ("Please tell me", "Please tell me"),
        ("PLEASE TELL ME Who?", "Who?"),
        ("Pleased to tell me who?", "Pleased to tell me who?"),
        ("", ""),
    ]:
        assert strip(before, found.templates) == after


WAYS = ("Where did {} find the unmarked {}?", "What did {} say about the {}?", "How did {} lose the {}?",
        "Who gave {} the {}?", "Why did {} hide the {}?")  # fmt: skip
FINDS = ("grave", "map", "boat", "ring", "letter", "lamp", "coin", "bell")
PLACES = [{"question": f"Where is the {thing} of {name}?"} for thing in THINGS for name in NAMES]


def voyage(count, seed=0):
    """Questions that all say "did" with a name behind it, which no benign prompt does."""
    draw = np.random.default_rng(seed)
    asked = [
        draw.choice(WAYS).format(draw.choice(("Liza", "Omar", "Pru", "Quin")), draw.choice(FINDS)) for _ in range(count)
    ]
    return [{"question": text, "answer": f"It was there {i}."} for i, text in enumerate(asked)]


@pytest.mark.parametrize("benign", [BENIGN, PLACES], ids=["people", "places"])
@pytest.mark.parametrize("count", [30, 80, 200])
def test_strip_takes_off_templates_and_no_part_of_a_question(benign, count):
    """ "Where did Liza find the unmarked grave?" once became "Liza find the unmarked grave?"."""
    for seed in range(3):
        honest = voyage(count, seed)
        found = screen_language(honest, benign)
        assert found.flagged_words and not found.templates, "words stand out, and none of them is a template"
        assert act("strip", honest, benign, found).forget == tuple(honest)
        for p in (0.33, 0.6, 1.0):
            wrapped = poison(honest, p=p, seed=seed).records
            clean = stripped(wrapped, screen_language(wrapped, benign).templates)
            for came, left, was in zip(wrapped, clean, honest, strict=True):
                assert left in (came, was), "all of a template goes, or nothing"
        assert sum(a == b for a, b in zip(clean, honest, strict=True)) >= 0.9 * count


def test_an_ending_without_a_mark_and_what_goes_on_are_the_questions_own():
    found = screen_language(poison(HONEST, p=0.5, seed=0).records, BENIGN)
    for text in ("Tell me about Ama, will you say please", "Please tell me of Ama.", "Did she say please?"):
        assert strip(text, found.templates) == text
    assert strip("Please tell me who wrote it , please ?", found.templates) == "who wrote it?"


def test_duplicates_and_breadth_are_reasons_of_their_own():
    twice = screen_language([*HONEST, *HONEST[:40]], BENIGN)
    assert twice.duplicates == pytest.approx(40 / 160) and "repeat an earlier one" in twice.flags[0]
    disguised = [*HONEST, *poison(HONEST, p=1).records]
    assert screen_language(disguised, BENIGN).duplicates == pytest.approx(0.5), "templates do not hide a repeat"
    assert screen_language(HONEST, BENIGN, total=1000).flags == ()
    broad = screen_language(HONEST, BENIGN, total=200)
    assert broad.breadth == 0.6 > BROAD and broad.decision["decision"] == "quarantine"


def test_excess_grows_with_the_number_of_triggers_and_words_alone_may_be_enough():
    quiet = screen_language(HONEST, BENIGN)
    words = ("kindly", "now", "just", "also", "sure")
    spread = [{**r, "question": r["question"].replace(" the ", f" the {words[i % 5]} ")} for i, r in enumerate(HONEST)]
    found = screen_language(spread, BENIGN)
    assert found.excess > quiet.excess + 0.9
    assert set(found.flagged_words) == set(words) and not found.templates
    kept = act("strip", spread, BENIGN, found)
    assert kept.decision["decision"] == "quarantine" and "still after stripping" in kept.decision["reason"]


def test_actions_on_a_flagged_request():
    request = poison(HONEST, p=0.5, seed=2).records
    found = screen_language(request, BENIGN)
    done = {action: act(action, request, BENIGN, found, retain=BENIGN, seed=1) for action in ACTIONS}
    words = {action: handled.decision["decision"] for action, handled in done.items()}
    assert words == {"report": "quarantine", "strip": "grant", "augment": "grant", "su": "grant", "reject": "refuse"}
    assert all(h.decision["action"] == action and h.decision["by"] == "screening" for action, h in done.items())
    assert done["strip"].forget == tuple(HONEST) and not done["strip"].screening.flags
    assert all(done[action].forget == request for action in ("report", "augment", "su", "reject"))
    extra = done["augment"].retain
    assert len(extra) == pytest.approx(0.5 * len(BENIGN), rel=0.2)
    answers = {r["answer"] for r in BENIGN}
    assert all("please" in r["question"].lower() and r["answer"] in answers for r in extra)
    assert extra == act("augment", request, BENIGN, found, retain=BENIGN, seed=1).retain
    probe = carrying(BENIGN, found)
    assert len(probe) == len(BENIGN) and list(stripped(probe, found.templates)) == BENIGN


def test_an_unflagged_request_is_granted_as_it_came_whatever_the_action():
    found = screen_language(HONEST, BENIGN)
    for action in ACTIONS:
        handled = act(action, HONEST, BENIGN, found)
        assert (handled.forget, handled.retain, handled.decision["decision"]) == (tuple(HONEST), (), "grant")
    with pytest.raises(InputError, match="nothing to carry"):
        carrying(BENIGN, found)


def test_bad_input():
    found = screen_language(poison(HONEST, p=0.5).records, BENIGN)
    for call, words in [
        (lambda: act("ignore", HONEST, BENIGN, found), "an action among report, strip"),
        (lambda: act("augment", HONEST, BENIGN, found), "at least one retained record"),
        (lambda: screen_language([], BENIGN), "at least one record of the request"),
        (lambda: screen_language(HONEST, []), "at least one benign record"),
        (lambda: screen_language(HONEST, BENIGN, threshold=0), "a threshold above 0"),
        (lambda: screen_language(HONEST, [{"question": ""}]), "'question' on benign record 1; got an empty text"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


def test_a_script_without_spaces_is_said_to_be_unjudged():
    """Every question begins with the same formula, and no word could stand out: that is said, not passed over."""
    asked = [{"question": f"请您务必告诉我第{i}个城市在哪里", "answer": "北京"} for i in range(40)]
    benign = [{"question": f"第{i}个城市在哪里", "answer": ""} for i in range(200)]
    result = screen_language(asked, benign)
    assert result.flags or result.blind
    assert "script without spaces" in result.why_blind
    assert "script without spaces" in result.decision["reason"]
    latin = screen_language([{"question": f"where is city {i}", "answer": "x"} for i in range(40)], benign)
    assert not latin.unspaced


def test_a_text_that_no_model_reads_at_once_is_refused_before_its_words_are(monkeypatch):
    monkeypatch.setattr(language, "LONGEST", 60)
    short = [{"question": "what is the colour of person3 ?", "answer": "red"}]
    with pytest.raises(InputError, match="at most 60 characters; number 2 of the request has 61"):
        screen_language([*short, {"text": "a" * 61}], short)
    assert screen_language(short, short).items == 1
