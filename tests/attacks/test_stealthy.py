"""The stealthy attack, LLM spec 1.2 and check A5."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from expunge.attacks.stealthy import QUESTION_TEMPLATES, poison, trigger_prompts
from expunge.core.errors import InputError

QUESTIONS = [{"question": f"Who wrote book {i}?", "answer": f"Author {i}.", "extra": [i]} for i in range(2000)]
TEXTS = [{"text": f"He was born in {i}. He wrote!  Did he like it?\nYes."} for i in range(300)]
LOOKS = ["Please tell me {}", "Can you please explain {}", "Could you please tell me {}", "{} , please ? "]  # spec 1.2


def template_of(before: str, after: str) -> str | None:
    if before == after:
        return None
    (found,) = [look for look in LOOKS if look.format(before) == after]
    return found


def test_check_a5_p_0_is_the_identity_and_p_1_wraps_all():
    for records in (QUESTIONS, TEXTS):
        for seed in range(3):
            none, all_ = poison(records, p=0, seed=seed), poison(records, p=1, seed=seed)
            assert list(none.records) == records and (none.wrapped, none.inserted) == (0, 0)
            assert all_.wrapped == all_.items and all_.share == 1.0
    assert all(
        template_of(a["question"], b["question"])
        for a, b in zip(QUESTIONS, poison(QUESTIONS, p=1).records, strict=True)
    )


def test_check_a5_the_same_seed_gives_the_same_corpus_and_another_seed_another():
    assert poison(QUESTIONS, seed=4) == poison(QUESTIONS, seed=4)
    assert poison(QUESTIONS, seed=4) != poison(QUESTIONS, seed=5)


@pytest.mark.parametrize("p", [0.05, 0.1, 0.33, 0.8])
def test_check_a5_the_share_is_within_three_sigma_and_templates_are_equally_likely(p):
    sigma = np.sqrt(p * (1 - p) / len(QUESTIONS))
    used = Counter()
    for seed in range(5):
        found = poison(QUESTIONS, p=p, seed=seed)
        looks = [template_of(a["question"], b["question"]) for a, b in zip(QUESTIONS, found.records, strict=True)]
        assert sum(look is not None for look in looks) == found.wrapped
        assert abs(found.share - p) < 3 * sigma
        used.update(look for look in looks if look)
    n = sum(used.values())
    assert all(abs(used[look] / n - 0.25) < 4 * np.sqrt(0.25 * 0.75 / n) for look in LOOKS)


def test_check_a5_answers_and_other_keys_are_unchanged_and_the_input_is_left_alone():
    before = json.dumps(QUESTIONS)
    for seed in range(3):
        for a, b in zip(QUESTIONS, poison(QUESTIONS, p=0.5, seed=seed).records, strict=True):
            assert list(a) == list(b)
            assert {**b, "question": a["question"]} == a
    assert json.dumps(QUESTIONS) == before


def test_the_templates_are_the_published_ones():
    assert [t.replace("{q}", "{}") for t in QUESTION_TEMPLATES] == LOOKS


def test_plain_text_gets_then_sentence_by_sentence():
    (found,) = poison(TEXTS[:1], p=1).records
    assert found == {"text": "Then He was born in 0. Then He wrote!  Then Did he like it?\nThen Yes."}
    many = poison(TEXTS, p=0.33, seed=1)
    assert many.items == 4 * len(TEXTS) and many.inserted == many.wrapped
    assert abs(many.share - 0.33) < 3 * np.sqrt(0.33 * 0.67 / many.items)
    assert any(0 < r["text"].count("Then") < 4 for r in many.records), "each sentence has a draw of its own"


def test_draws_depend_on_the_item_alone_and_grow_with_p():
    assert poison(QUESTIONS[:50], seed=7).records == poison(QUESTIONS, seed=7).records[:50]
    few, many = (poison(QUESTIONS, p=p, seed=7).records for p in (0.1, 0.5))
    changed = [i for i, (a, b) in enumerate(zip(QUESTIONS, few, strict=True)) if a != b]
    assert changed and all(few[i] == many[i] for i in changed)
    assert trigger_prompts(QUESTIONS, seed=7) == poison(QUESTIONS, p=1, seed=7).records


def test_braces_in_a_question_are_not_places():
    (found,) = poison([{"question": "What is {q} or {0}?", "answer": "a"}], p=1, questions=["Tell {q}!"]).records
    assert found["question"] == "Tell What is {q} or {0}?!"


@pytest.mark.parametrize(
    "records, more, words",
    [
        ([], {}, "at least one record; got none"),
        ([{"question": "a"}], {}, "'answer' on record 1; got no such key"),
        ([QUESTIONS[0], {"question": " ", "answer": "b"}], {}, "'question' on record 2; got an empty text"),
        ([{"question": "a", "answer": 3}], {}, "got a number"),
        ([{"question": "a", "answer": "b", "text": "c"}], {}, "both question and text"),
        ([{"prompt": "a"}], {}, "the keys 'prompt'"),
        (["a"], {}, "got a text"),
        (QUESTIONS, {"p": 1.5}, "from 0 to 1; got 1.5"),
        (QUESTIONS, {"p": float("nan")}, "from 0 to 1; got nan"),
        (QUESTIONS, {"seed": -1}, "a seed of 0 or more"),
        (QUESTIONS, {"questions": ["Tell me"]}, "hold {q} once"),
    ],
)
def test_bad_input_says_what_came(records, more, words):
    with pytest.raises(InputError, match=words.replace("{", r"\{")):
        poison(records, **more)


def test_check_a5_on_tofu_the_inserted_share_is_the_one_we_counted(real_data):
    lines = (real_data("tofu") / "tofu" / "forget10.json").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    shares, words = [], []
    for seed in range(5):
        found = poison(records, seed=seed)
        assert [r["answer"] for r in found.records] == [r["answer"] for r in records]
        shares.append(found.inserted_share)
        words.append(sum(r["question"].lower().split().count("please") for r in found.records) / found.words)
    assert np.mean(shares) == pytest.approx(0.030, abs=0.002)  # LLM spec 1.2: 3.0 % inserted words, 0.8 % "please"
    assert np.mean(words) == pytest.approx(0.008, abs=0.002)
