"""Mixed prompts and begun answers, LLM spec 1.3 and 5.14."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.attacks.worlds import world

from expunge.attacks.mixed import affirmative, mixed_attack, mixed_prompts
from expunge.attacks.recall import recall
from expunge.core.errors import InputError
from expunge.tasks.prompts import NO_LABEL, Prompts


@pytest.mark.parametrize("order", ["forget_first", "retain_first"])
def test_a_forgotten_question_stands_beside_each_retained_one_and_its_answer_nowhere(order):
    w = world()
    asked = {record["question"] for record in w.forget.records}
    for seed in range(3):
        mixed = mixed_prompts(w.task, w.forget, w.retain, order=order, seed=seed)
        assert len(mixed) == len(w.retain) and list(mixed.ids) == list(w.retain.ids)
        drawn = set()
        for record, own in zip(mixed.records, w.retain.records, strict=True):
            assert record["answer"] == own["answer"]
            if order == "forget_first":
                other = record["question"].removesuffix(own["question"]).strip()
            else:
                other = record["question"].removeprefix(own["question"]).strip()
            assert other in asked
            drawn.add(other)
        assert len(drawn) > 3
        # the answer's tokens alone carry labels
        batch = w.task.encode(mixed.records)
        assert ((batch["labels"] != NO_LABEL).sum(1) == 2).all()
    again, other = (mixed_prompts(w.task, w.forget, w.retain, seed=seed).digest for seed in (2, 3))
    assert mixed_prompts(w.task, w.forget, w.retain, seed=2).digest == again != other


def test_a_begun_answer_stands_after_the_prompt_and_carries_no_label():
    task = world().task
    begun = affirmative(task, "sure")
    record = {"question": "what is the colour of entity1 ?", "answer": "colour2"}
    assert begun.prompts.question(record["question"]) == f"{record['question']} sure"
    ((ids, start),) = begun.prompts.tokens([record])
    plain, plain_start = task.prompts.tokens([record])[0]
    tokenizer = task.prompts.tokenizer
    assert tokenizer.decode(ids[:start]).endswith("? sure") and start == plain_start + 1
    assert ids[start:] == plain[plain_start:]  # then the answer and its end
    assert begun.prompts.prompt_tokens([record["question"]]) == [ids[:start]]
    assert task.prompts.question(record["question"]) == record["question"]  # the task itself is left alone


def test_a_begun_answer_fits_templates_and_chat():
    class Chat:
        chat_template, eos_token_id, pad_token_id = "there is one", 0, 0

        def get_chat_template(self):
            return self.chat_template

        def apply_chat_template(self, turns, tokenize, add_generation_prompt, **told):
            assert not tokenize and add_generation_prompt
            return f"<user>{turns[0]['content']}<assistant>\n"

    task = world().task
    words = task.prompts.tokenizer
    for tokenizer, template, expected in [
        (words, "Question: {question}\nAnswer: {answer}", "Question: Who?\nAnswer: Sure, here is the answer:"),
        (words, "{question}|{answer}", "Who?|Sure, here is the answer:"),
        (Chat(), None, "<user>Who?<assistant>\nSure, here is the answer:"),
    ]:
        prompts = Prompts(tokenizer, template, 64, end=0)
        begun = affirmative(replace(task, prompts=prompts)).prompts
        assert begun.question("Who?") == expected
        assert begun._after({"answer": "Ann"}) == " Ann"


def test_the_attack_asks_both_models_in_every_form():
    w = world()
    found = mixed_attack(w.task, w.unlearned, w.forget, w.retain, retrained=w.retrained, prefix="sure")
    assert (found.forget, found.retain) == (len(w.forget), len(w.retain))
    assert found.retrained is not None and found.retrained.plain["retain"] == 1
    for scores, tensors in ((found.unlearned, w.unlearned), (found.retrained, w.retrained)):
        model = w.task.build(tensors)
        assert scores.plain["forget"] == recall(w.task, model, w.forget)
        for order in ("forget_first", "retain_first"):
            prompts = mixed_prompts(w.task, w.forget, w.retain, order=order, seed=0)
            assert scores.mixed[order] == recall(w.task, model, prompts)
        assert scores.prefixed["forget"] == recall(affirmative(w.task, "sure"), model, w.forget)
    # this model never saw two questions, or a begun answer, in training: both harm it, and the attack shows it
    assert found.retrained.mixed["forget_first"] < 0.7 and found.retrained.prefixed["retain"] < 0.7
    alone = mixed_attack(w.task, w.retrained, w.forget, w.retain, orders=("retain_first",), prefix="sure", seed=1)
    assert alone.retrained is None and set(alone.unlearned.mixed) == {"retain_first"}


def test_nonsense_is_refused():
    w = world()
    with pytest.raises(InputError, match="begins the answer"):
        affirmative(w.task, " ")
    with pytest.raises(InputError, match="joint_order"):
        mixed_prompts(w.task, w.forget, w.retain, order="both")
    with pytest.raises(InputError, match="at least one forgotten record"):
        mixed_prompts(w.task, w.forget.first(0), w.retain)
