"""Generation: no answer depends on its neighbours in a batch, on padding, or on the mode the model came in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.llamas import tiny_llama

from expunge.core.errors import InputError
from expunge.data.texts import Texts
from expunge.tasks.generation import generate, with_room
from expunge.tasks.language import Language
from expunge.tasks.micro_language import micro_language, word_tokenizer
from expunge.tasks.pretrained import load_language_model
from expunge.training.language import LanguageTraining

WORDS = [f"w{i}" for i in range(30)]


def learned_positions() -> Language:
    return micro_language(WORDS, width=16, layers=2, heads=2, inner=32, context=40)


def turned_positions() -> Language:
    """The same size with rotary positions, and an end token that fills rows up as well."""
    tokenizer = word_tokenizer(WORDS)
    tokenizer.pad_token = tokenizer.eos_token
    return tiny_llama(tokenizer, layers=2, positions=40)


def questions(seed: int, count: int = 12) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 20))) for _ in range(count)]


def by_hand(task: Language, model, question: str, most: int) -> str:
    """One prompt, no padding, no cache: the whole row is run again for each token."""
    tokens = task.prompts.prompt_tokens([question])[0]
    begun = len(tokens)
    with torch.no_grad():
        while len(tokens) < begun + most:
            likeliest = int(model.eval()(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
            if likeliest == task.prompts.end_token:
                break
            tokens.append(likeliest)
    return task.prompts.tokenizer.decode(tokens[begun:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("make", [learned_positions, turned_positions])
def test_a7_batches_and_padding_change_no_text(make):
    task = make()
    for seed in range(3):
        model, asked = task.build(seed=seed), questions(seed)
        expected = [by_hand(task, model, question, 8) for question in asked]
        assert len(set(expected)) > 3, "texts that are all alike would show nothing"
        for size in (1, 5, 32):
            assert generate(task, model, asked, max_new_tokens=8, batch_size=size) == expected


def test_an_answer_ends_at_the_end_token_and_order_is_kept():
    task = learned_positions()
    taught = [("w1 w2", "w3"), ("w4", "w5 w6 w7"), ("w8 w9 w10 w11", "w12 w13"), ("w14 w15", "w16")]
    data = Texts.of([{"question": question, "answer": answer} for question, answer in taught])
    model = task.build(LanguageTraining(steps=60, lr=2e-2, batch_size=4).fit(task, data).artifact.tensors)
    asked, answers = zip(*taught, strict=True)
    assert generate(task, model, asked, max_new_tokens=6, batch_size=3) == list(answers)
    assert generate(task, model, asked, max_new_tokens=1) == [answer.split()[0] for answer in answers]
    assert generate(task, model, [], max_new_tokens=1) == []


def test_every_module_gets_its_mode_back():
    task = learned_positions()
    model = task.build().train()
    inner = next(iter(model.children()))
    inner.eval()
    before = {name: module.training for name, module in model.named_modules()}
    generate(task, model, questions(0), max_new_tokens=2)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert set(before.values()) == {True, False}


def test_a_prompt_without_room_is_refused_and_can_be_told_before():
    task = learned_positions()
    asked = ["w1", " ".join(["w2"] * 36), " ".join(["w3"] * 37), "w4"]
    assert with_room(task, asked, 4) == [0, 1, 3]
    with pytest.raises(
        InputError, match="1 of 4 prompts leave no room for 4 tokens in a context of 40, the first at pos"
    ):
        generate(task, task.build(), asked, max_new_tokens=4)
    with pytest.raises(InputError, match="one has none"):
        generate(task, task.build(), ["w1", " "], max_new_tokens=4)
    for wrong in ({"max_new_tokens": 0}, {"max_new_tokens": 1, "batch_size": 0}):
        with pytest.raises(InputError, match="at least 1"):
            generate(task, task.build(), ["w1"], **wrong)


def test_a7_batches_and_padding_change_no_text_of_a_real_model(real_data):
    task, tensors = load_language_model(real_data("stories260k") / "stories260k", template="{question} {answer}")
    model = task.build(tensors)
    asked = ["Once upon a time", "Lily went to the park and", "Tom had a big red ball. One day, he", "The cat", "One"]
    expected = [by_hand(task, model, question, 16) for question in asked]
    for size in (1, 3, 5):
        assert generate(task, model, asked, max_new_tokens=16, batch_size=size) == expected
    assert expected[0].startswith(", there was a little girl named Lily.")
    padded = replace(task, prompts=replace(task.prompts, end=task.prompts.padding))  # the end token fills rows up
    assert generate(padded, model, asked, max_new_tokens=16, batch_size=5) == expected
