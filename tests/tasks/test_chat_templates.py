"""Chat templates that write a date: what the model reads is fixed, and whatever is kept is kept under it."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from expunge import planning
from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.core.method import InMemory
from expunge.core.request import Request, Target
from expunge.data.chats import as_records
from expunge.data.texts import Texts
from expunge.evidence.language.reading import Limits, Reader, prompts_identity
from expunge.methods import registry
from expunge.tasks.micro_language import micro_language, word_tokenizer
from expunge.tasks.prompts import Prompts

WORDS = ["<system>", "<user>", "<assistant>", "today", "is", "be", "kind", "what", "now", "?", "w1", "w2", "w3", "w4"]
DAYS = [f"{day:02d}" for day in range(1, 32)]
MONTHS = ["apr", "jul", "dec", "mar"]
YEARS = ["2024", "2025", "2027"]
TURNS = "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' ' }}{% endfor %}{{ '<assistant> ' }}"
# as Llama 3.1 and 3.2 do it, and as a template that knows nothing of date_string does
TOLD = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ 'today is ' + date_string + ' ' }}" + TURNS
)
ASKING = "{{- 'today is ' + strftime_now('%d %b %Y') + ' ' }}" + TURNS


def prompts(template: str, **told: Any) -> Prompts:
    tokenizer = word_tokenizer([*WORDS, *DAYS, *MONTHS, *YEARS])
    tokenizer.chat_template = template
    return Prompts(tokenizer, None, 40, **told)


@pytest.fixture
def tomorrow(monkeypatch):
    """The clock of chat templates, put forward."""
    import transformers.utils.chat_template_utils as templates

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime(2027, 3, 1)

    def turn() -> None:
        monkeypatch.setattr(templates, "datetime", Later)
        if hasattr(templates._compile_jinja_template, "cache_clear"):
            templates._compile_jinja_template.cache_clear()

    yield turn
    if hasattr(templates._compile_jinja_template, "cache_clear"):
        templates._compile_jinja_template.cache_clear()


@pytest.mark.parametrize("template", [TOLD, ASKING])
def test_what_is_read_is_the_same_every_day(template, tomorrow):
    asked = [("what now ?", "<user> what now ? <assistant> "), ("w1", "<user> w1 <assistant> ")]
    cases = [
        ({}, "today is 10 Apr 2025 "),
        ({"date_string": "26 Jul 2024"}, "today is 26 Jul 2024 "),
        ({"system": "be kind"}, "today is 10 Apr 2025 <system> be kind "),
    ]
    for _ in range(2):
        for told, begins in cases:
            assert [prompts(template, **told).question(text) for text, _ in asked] == [
                begins + ends for _, ends in asked
            ]
        tomorrow()


def test_a_tokenizer_left_alone_would_have_changed_its_prompt_overnight(tomorrow):
    """The negative control: the clock of these templates can be moved."""
    tokenizer = prompts(TOLD).tokenizer
    before = tokenizer.apply_chat_template([{"role": "user", "content": "w1"}], tokenize=False)
    tomorrow()
    after = tokenizer.apply_chat_template([{"role": "user", "content": "w1"}], tokenize=False)
    assert before != after == "today is 01 Mar 2027 <user> w1 <assistant> "


def test_whatever_is_kept_is_kept_under_the_rendered_prompt(tmp_path):
    """Readings, and stages of a run, are not those of another date, system prompt or template."""
    words = [*WORDS, *DAYS, *MONTHS, *YEARS]
    told = [{}, {"date_string": "26 Jul 2024"}, {"system": "be kind"}]
    plain = micro_language(words, width=16, layers=1, heads=2, inner=16, context=40)
    variants = [replace(plain, prompts=prompts(TOLD, **each), _encoded={}) for each in told]
    rows = Texts.of([{"question": f"w{i}", "answer": f"w{j}"} for i in range(1, 5) for j in (1, 2)])
    tensors = plain.released(variants[0].build(seed=0))
    cache = Cache(tmp_path)
    for task in (*variants, *variants):
        Reader(task, tensors, Limits(2), cache).read("forget", rows)
    assert len(cache.entries()) == len(variants)
    identities = [prompts_identity(task.prompts) for task in variants]
    assert all(
        one["rendered"] == task.prompts.question("{question}") for one, task in zip(identities, variants, strict=True)
    )

    class Names(InMemory):
        """Which stages were asked for."""

        def __init__(self):
            super().__init__()
            self.names: list[str] = []

        def once(self, name: str, compute: Any) -> bytes:
            self.names.append(name)
            return super().once(name, compute)

    request = Request("somebody", (Target("samples", {"ids": [0]}),))
    names = []
    for task in (*variants, variants[0]):
        journal = Names()
        method = registry.make("npo", {"steps": 2, "batch_size": 2})
        planning.plan(planning.adopt(task, tensors, rows), request, method, journal=journal, seed=1).run()
        names.append(tuple(journal.names))
    assert len(set(names)) == len(variants) and names[-1] == names[0]


def test_a_template_that_refuses_its_turns_and_a_day_that_is_none_are_errors_in_words():
    strict = (
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('A system message is required') }}{% endif %}"
        + TURNS
    )
    with pytest.raises(InputError, match=r"A system message is required.*Give a system prompt"):
        prompts(strict).question("w1")
    assert prompts(strict, system="be kind").question("w1") == "<system> be kind <user> w1 <assistant> "
    with pytest.raises(InputError, match=r"day, month and year.*got 'today'"):
        prompts(TOLD, date_string="today")
    with pytest.raises(InputError, match="A system prompt needs the tokenizer's chat template"):
        Prompts(prompts(TOLD).tokenizer, "{question} {answer}", 40, system="be kind")


def test_of_a_conversation_only_what_the_assistant_says_has_a_label():
    chat = [("system", "be kind"), ("user", "w1 ?"), ("assistant", "w2"), ("user", "w3 now ?"), ("assistant", "w4 w4")]
    messages = [{"role": role, "content": text} for role, text in chat]
    asked = prompts(TURNS)
    tokenizer, labelled = asked.tokenizer, []
    for i, record in zip((2, 4), as_records({"messages": messages}, "line 1"), strict=True):
        ((tokens, start),) = asked.tokens([record])
        whole = tokenizer.apply_chat_template(messages[:i], tokenize=False, add_generation_prompt=True)
        assert tokens[:start] == tokenizer(whole, add_special_tokens=False)["input_ids"]
        labelled.append(tokenizer.decode(tokens[start:-1]))
        assert tokens[-1] == asked.end_token
    assert [" ".join(text.split()) for text in labelled] == ["w2", "w4 w4"]
    with pytest.raises(InputError, match="needs the tokenizer's chat template"):
        replace(asked, template="Q: {question} A: {answer}").tokens(as_records({"messages": messages}, "line 1"))
    own = replace(asked, system="what ?")  # the conversation's own system turn stands
    assert (
        own.tokens(as_records({"messages": messages}, "line 1"))[0][0][:2]
        == asked.tokens(as_records({"messages": messages}, "line 1"))[0][0][:2]
    )
