"""From records to tokens: what the model reads, and which tokens it is trained and measured on.

Only tokens of the answer (end token included) carry labels; a plain text is all answer. Everything else has the label
``NO_LABEL``, padding too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.texts import DATE_STRING, Record
from expunge.core.turns import turns_of

NO_LABEL = -100
PLAIN = "Question: {question}\nAnswer: {answer}"  # as in other code of SU's authors (renjie3/GRUN)
BEFORE = "before"  # key of a text that is read first and carries no label: joint prompts of plain texts
_QUESTION, _ANSWER = "{question}", "{answer}"
_DATE = "%d %b %Y"  # how ``date_string`` is written


@dataclass(frozen=True)
class Prompts:
    """How a record is put to a model.

    Attributes:
        tokenizer: of the model, as ``transformers`` has it.
        template: text with ``{question}`` and, after it, ``{answer}`` at the end; ``None``: the tokenizer's chat template,
            the question as one user turn.
        context: most tokens of one row. A prompt is never cut; an answer or a plain text loses its end, and is counted.
        end: token that ends an answer; ``None``: the tokenizer's end token.
        date_string: the day that a chat template is told, as in "10 Apr 2025": templates of Llama 3.1 and 3.2 write today's,
            so that the same question would be another prompt tomorrow.
        system: what stands in a system turn before the question, where the record has none of its own; ``None``: no such turn,
            and what the template makes of it.
        pad: token that fills rows up; ``None``: the tokenizer's, or the end token where it has none.
    """

    tokenizer: Any
    template: str | None
    context: int
    end: int | None = None
    date_string: str = DATE_STRING
    system: str | None = None
    pad: int | None = None

    def __post_init__(self):
        try:
            datetime.strptime(self.date_string, _DATE)
        except ValueError:
            raise InputError(
                f"Expected date_string as day, month and year, for example {DATE_STRING!r}; got {self.date_string!r}."
            ) from None
        if self.system is not None and self.template is not None:
            raise InputError(
                "A system prompt needs the tokenizer's chat template; give no template, or write it into it."
            )
        if self.context < 2:
            raise InputError(f"Expected a context of at least 2 tokens; got {self.context}.")
        if self.end is None and self.tokenizer.eos_token_id is None:
            raise InputError("The tokenizer has no end token; name one (end), or answers never end.")
        if self.template is None:
            if not self.chat_template:
                raise InputError(f"The tokenizer has no chat template; give a template such as {PLAIN!r}.")
        elif self.template.count(_QUESTION) != 1 or not self.template.endswith(_ANSWER):
            raise InputError(
                f"Expected a template with {_QUESTION} once and {_ANSWER} at its end, for example {PLAIN!r}; "
                f"got {self.template!r}."
            )

    @property
    def chat_template(self) -> str | None:
        """The model's own template of a conversation, where it has one."""
        return getattr(self.tokenizer, "chat_template", None) and self.tokenizer.get_chat_template()

    @property
    def end_token(self) -> int:
        """The token that ends an answer."""
        return self.tokenizer.eos_token_id if self.end is None else self.end

    @property
    def padding(self) -> int:
        """The token that fills rows up; masks follow from lengths, so it may be the end token."""
        pad = self.tokenizer.pad_token_id if self.pad is None else self.pad
        return self.end_token if pad is None else pad

    def question(self, text: str) -> str:
        """What the model reads before it answers.

        Raises:
            InputError: where the tokenizer's chat template refuses the user turn, or the system turn before it.
        """
        turns = turns_of(text)
        if self.template is None:
            return self._chat(turns).removesuffix(self.space)
        if len(turns) > 1:
            raise InputError(
                "A conversation of several turns needs the tokenizer's chat template, and prompts here are written by a "
                "template of one turn: the job's, or ours where the tokenizer has none. If the model was tuned with another "
                "tokenizer (that of its adapter), name its folder under model.tokenizer; else leave model.template out."
            )
        return self.template.removesuffix(_ANSWER).replace(_QUESTION, text).rstrip(" ")

    @cached_property
    def space(self) -> str:
        """The space at the end of a prompt that is read with the answer; empty: there is none.

        A prompt ends before the space of a template of one turn. So does one of a chat template that ends in spaces, where the
        tokenizer makes one token of these and the letters after them (as most do): whoever was trained on the whole text read
        that token, and a prompt that ends in a space is one that nobody was trained on.
        """
        if self.template is not None:
            return " " if self.template.removesuffix(_ANSWER).endswith(" ") else ""
        user = turns_of("a")
        for turns in (user, [{"role": "system", "content": "a"}, *user]):  # some templates ask for a system turn
            try:
                prompt = self._chat(turns)
            except InputError:
                continue
            if not (found := prompt[len(prompt.rstrip(" ")) :]):
                return ""
            start, whole = self._tokens([prompt, f"{prompt}a"])
            return found if whole[: len(start)] != start else ""
        return ""

    @property
    def rendered(self) -> str:
        """The prompt of a question called ``{question}``: whatever is kept for later use is kept under it."""
        return self.question(_QUESTION)

    def _chat(self, turns: list[dict[str, str]]) -> str:
        return self._said(self.tokenizer, turns, self.system)

    def _said(self, writer: Any, turns: Sequence[Mapping[str, Any]], system: Any) -> str:
        """The conversation as ``writer`` (a tokenizer or a processor) puts it into words."""
        from jinja2 import TemplateError

        if system is not None and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": system}, *turns]
        template = _clock(self.date_string) + str(self.chat_template)
        try:
            return writer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=True, date_string=self.date_string
            )
        except TemplateError as error:
            before = "" if self.system is None else "a system turn and "
            many = "one user turn" if len(turns) == 1 or self.system is not None else f"{len(turns)} turns"
            raise InputError(
                f"The model's chat template does not accept a conversation of {before}{many}: {error}. Name a "
                f"template of your own, such as {PLAIN!r}. Give a system prompt where it needs one, and none where it takes "
                "none (system)."
            ) from None

    def _after(self, record: Record) -> str:
        """What goes on after the prompt: the answer, or the second of two texts."""
        if BEFORE in record:
            return f" {record['text']}"
        return f"{self.space}{record['answer']}"

    def prompt_tokens(self, asked: Sequence[str | Record]) -> list[list[int]]:
        """The tokens of each prompt, of questions or of records that ask one; what generation starts from."""
        return self._tokens([self.question(each if isinstance(each, str) else each["question"]) for each in asked])

    def tokens(self, records: Sequence[Record]) -> list[tuple[list[int], int]]:
        """Of each record all tokens, cut to the context, and how many of the first carry no label.

        Raises:
            InputError: where prompt and answer melt into one token, since such a prompt is never generated from.
        """
        asked = [
            self.question(record["question"]) if "question" in record else record.get(BEFORE) for record in records
        ]
        prompts = iter(self._tokens([prompt for prompt in asked if prompt is not None]))
        wholes = self._tokens(
            [
                record["text"] if prompt is None else prompt + self._after(record)
                for record, prompt in zip(records, asked, strict=True)
            ]
        )
        tokens, melted = [], []
        for at, (whole, text) in enumerate(zip(wholes, asked, strict=True)):
            prompt = [] if text is None else next(prompts)
            if whole[: len(prompt)] != prompt:
                melted.append(at)
            tokens.append(([*whole, self.end_token][: self.context], len(prompt)))
        if melted:
            at = melted[0]
            raise InputError(
                f"In {len(melted)} of {len(records)} records the end of the prompt and the beginning of the answer share a "
                f"token, first in record {at + 1}: {str(asked[at])[-30:]!r} and then {self._after(records[at])[:30]!r}. The "
                "model would be asked something else than it was trained on. Take white space off the beginning of these "
                "answers, or end the template's prompt with a character that the tokenizer keeps apart (a colon, a line break)."
            )
        return tokens

    def encode(self, records: Sequence[Record]) -> dict[str, Tensor]:
        """Rows filled up on the right to the longest.

        Shapes:
            input_ids, labels (n, length) int64; lengths (n,).

        Raises:
            InputError: for a record whose prompt leaves no room for a label; :meth:`fitting` tells them apart before.
        """
        rows = self.tokens(records)
        if full := [i for i, (ids, start) in enumerate(rows) if len(ids) <= start]:
            raise InputError(
                f"{len(full)} record(s) leave no room for an answer in {self.context} tokens, the first at position "
                f"{full[0]}. Take a larger context, or drop them."
            )
        longest = max(len(ids) for ids, _ in rows)
        input_ids = torch.full((len(rows), longest), self.padding)
        labels = torch.full((len(rows), longest), NO_LABEL)
        for i, (ids, start) in enumerate(rows):
            input_ids[i, : len(ids)] = torch.tensor(ids)
            labels[i, start : len(ids)] = torch.tensor(ids[start:])
        labels[:, 0] = NO_LABEL  # nothing comes before a first token that could foretell it
        return {"input_ids": input_ids, "labels": labels, "lengths": torch.tensor([len(ids) for ids, _ in rows])}

    def fitting(self, records: Sequence[Record]) -> Fitting:
        """Which records have room for a label, and how many lose the end of their answer."""
        rows = self._lengths(records)
        kept = tuple(i for i, (prompt, _) in enumerate(rows) if prompt < self.context)
        return Fitting(kept, len(rows) - len(kept), tuple(i for i in kept if rows[i][1] > self.context))

    def _lengths(self, records: Sequence[Record]) -> list[tuple[int, int]]:
        wide = replace(self, context=10**9)
        return [(start, len(ids)) for ids, start in wide.tokens(records)]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        if self.template is None:  # a chat template writes the special tokens itself
            return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        tokens = self.tokenizer(list(texts))["input_ids"]
        longest = max(range(len(texts)), key=lambda i: len(texts[i]))
        plain = self.tokenizer([texts[longest]], add_special_tokens=False)["input_ids"][0]
        # an end token belongs after answers only, whatever special tokens the tokenizer puts after a text by itself
        closing = len(_after_last(tokens[longest], plain))
        return [ids[: len(ids) - closing] for ids in tokens]


def _after_last(whole: Sequence[int], part: Sequence[int]) -> Sequence[int]:
    """What follows the last place where ``part`` stands in ``whole``; nothing where it does not."""
    for start in range(len(whole) - len(part), -1, -1):
        if whole[start : start + len(part)] == part:
            return whole[start + len(part) :]
    return []


def _clock(date_string: str) -> str:
    """What stops the clock of a chat template that follows it: ``strftime_now`` of a fixed day, at midnight."""
    day = datetime.strptime(date_string, _DATE)
    parts = "".join(f" | replace('%{code}', '{day.strftime(f'%{code}')}')" for code in "aAbBdHIjmMpSyY")
    return f"{{%- macro strftime_now(form) -%}}{{{{ form{parts} }}}}{{%- endmacro -%}}"


@dataclass(frozen=True)
class Fitting:
    """What a context does to records.

    Attributes:
        kept: positions of records that have room for a label.
        dropped: how many have none.
        shortened: positions of kept records that lose the end of their answer or text.
    """

    kept: tuple[int, ...]
    dropped: int
    shortened: tuple[int, ...]

    @property
    def cut(self) -> int:
        """How many of the kept records lose the end of their answer or text."""
        return len(self.shortened)
