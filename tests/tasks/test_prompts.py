"""How records become tokens where tokenizers have ways of their own: end tokens, pad tokens, white space, chat templates."""

from __future__ import annotations

import re

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from expunge.core.errors import InputError
from expunge.core.turns import as_question
from expunge.tasks.pretrained import padding_of
from expunge.tasks.prompts import NO_LABEL, Prompts

WORDS = ["<pad>", "</s>", "<s>", "Question:", "Where?", "Answer:", "There.", "hi", "a", "\n", "\n\n"]

PIECES = r" ?[^\s]+|\s"


def pieces(text: str) -> list[str]:
    return sorted({*re.findall(PIECES, text)} - {" There."})


def tokenizer(post: str | None = None, split: str = r"\s*\n+|[^\s]+") -> PreTrainedTokenizerFast:
    """Whole words; ``post``: what is put around a text, as a template of ``tokenizers``."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(split), "isolated")
    if post:
        special = [("<s>", 2), ("</s>", 1)]
        inner.post_processor = processors.TemplateProcessing(single=post, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")


@pytest.mark.parametrize("post", [None, "<s> $A", "$A </s>", "<s> $A </s>"])
def test_an_answer_has_one_end_token_whatever_the_tokenizer_adds(post):
    prompts = Prompts(tokenizer(post, r"\s+|[^\s]+"), "{question}\n{answer}", 20)
    first = [2] if post and post.startswith("<s>") else []
    ((text, none), (asked, prompt)) = prompts.tokens([{"text": "hi"}, {"question": "Where?", "answer": "There."}])
    assert (text, none) == ([*first, 7, 1], 0)
    assert (asked, prompt) == ([*first, 4, 9, 6, 1], len(first) + 2)


def test_an_end_token_of_the_job_ends_every_answer_and_pads_where_the_tokenizer_has_no_pad_token():
    words = tokenizer()
    words.pad_token = None
    prompts = Prompts(words, "{question}\n{answer}", 20, end=8)
    batch = prompts.encode([{"text": "hi\nhi"}, {"text": "hi"}])
    assert batch["input_ids"].tolist() == [[7, 9, 7, 8], [7, 8, 8, 8]]
    assert batch["labels"].tolist() == [[NO_LABEL, 9, 7, 8], [NO_LABEL, 8, NO_LABEL, NO_LABEL]]


def test_a_pad_token_without_a_row_gives_way_to_the_end_token():
    words = tokenizer()
    words.add_special_tokens({"pad_token": "[PAD]"})
    assert words.pad_token_id == len(WORDS)
    assert padding_of(words, len(WORDS)) == words.eos_token_id
    assert padding_of(words, len(WORDS) + 1) is None
    prompts = Prompts(words, "{question}\n{answer}", 20, pad=padding_of(words, len(WORDS)))
    batch = prompts.encode([{"text": "hi a hi"}, {"text": "hi"}])
    assert int(batch["input_ids"].max()) < len(WORDS)
    assert batch["labels"][1, 2:].eq(NO_LABEL).all()
    with pytest.raises(InputError, match="do not belong together"):
        padding_of(words, len(WORDS) - 1)


def test_an_answer_whose_beginning_melts_into_the_prompt_is_named_by_its_record():
    prompts = Prompts(tokenizer(), "{question}\n{answer}", 20)
    records = [{"question": "Where?", "answer": "There."}, {"question": "hi", "answer": "\nThere."}]
    with pytest.raises(InputError, match=r"In 1 of 2 records .* first in record 2: .*Take white space off"):
        prompts.tokens(records)


TURNS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{{ 'assistant: ' }}"


@pytest.mark.parametrize("needs_system", [False, True])
def test_a_chat_template_that_ends_in_a_space_is_read_as_whoever_was_trained_on_the_whole_text_read_it(needs_system):
    text = "system: a\nuser: Where?\nassistant: There.\nuser: hi?\nassistant: There."
    inner = Tokenizer(
        models.WordLevel({p: i for i, p in enumerate(["</s>", "?", " There.", *pieces(text)])}, unk_token="?")
    )
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")  # a space belongs to the word after it
    words = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    refusal = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no system') }}{% endif %}"
    words.chat_template = (refusal if needs_system else "") + TURNS
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "There."}, {"role": "user", "content": "hi?"}]  # fmt: skip
    prompts = Prompts(words, None, 60)
    ((ids, start),) = prompts.tokens([{"question": as_question(chat), "answer": "There."}])
    assert ids == [*words(text, add_special_tokens=False)["input_ids"], 0] and ids[start:] == [2, 0]
    assert prompts.prompt_tokens([as_question(chat)]) == [ids[:start]] and prompts.space == " "
    assert prompts.question(as_question(chat)).endswith("assistant:")


def test_a_space_that_the_tokenizer_keeps_apart_stays_in_the_prompt():
    words = tokenizer(split=r"\s+|[^\s]+")
    words.chat_template = TURNS
    prompts = Prompts(words, None, 20)
    ((ids, start),) = prompts.tokens([{"question": "hi", "answer": "There."}])
    assert prompts.space == "" and prompts.question("hi").endswith("assistant: ") and ids[start:] == [6, 1]


def test_a_chat_template_that_refuses_is_an_error_in_its_own_words():
    words = tokenizer()
    words.chat_template = "{{ raise_exception('A system message is required') }}"
    with pytest.raises(InputError, match=r"one user turn: A system message is required\. Name a template"):
        Prompts(words, None, 20).question("hi")
