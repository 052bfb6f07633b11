"""Language records: a question with its answer, or a plain text. A request for a language model is a list of them.

``{"question": …, "answer": …}`` or ``{"text": …}``; other keys are kept and mean nothing here. A text beside which an
answer stands is refused: only the question would be learnt and forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.errors import InputError
from expunge.core.turns import last_turn

Record = Mapping[str, Any]
CONTEXT = 512  # tokens of a row where the caller names none: TOFU and RWKU records are shorter
DATE_STRING = "10 Apr 2025"  # what chat templates write: OpenUnlearning (arXiv 2506.12618) asks Llama 3.1 and 3.2 on it

ANSWERS = (  # keys that other formats put what a model answers under, beside what it is asked as text
    "label", "labels", "answer", "answers", "completion", "completions", "response", "responses", "output", "outputs",
    "target", "targets", "reply", "chosen", "solution",
)  # fmt: skip

_GAP = re.compile(r"(?<=[.!?])(\s+)")  # white space after what may end a sentence


def check_record(record: Any, where: str, answer: bool = True) -> Record:
    """``record``, if it is a question with an answer or a plain text.

    Args:
        where: how messages call it, for example ``line 3 of forget.jsonl``.
        answer: whether a question must have one; benign traffic has none.

    Raises:
        InputError: saying what was expected, what came and what to do.
    """
    shape = 'an object {"question": …, "answer": …} or {"text": …}'
    if not isinstance(record, Mapping):
        raise InputError(f"Expected {shape} on {where}; got {_kind(record)}. Write one object for each record.")
    if ("question" in record) == ("text" in record):
        came = "both question and text" if "text" in record else f"the keys {', '.join(map(repr, record)) or 'none'}"
        raise InputError(f"Expected {shape} on {where}; got {came}. Name what the model is asked 'question'.")
    key = prompt_key(record)
    if answer and key == "text" and (beside := [name for name in record if _answers(name, record[name])]):
        raise InputError(
            f"Expected {shape} on {where}; got text with {beside[0]!r} beside it, and of a plain text only 'text' is read. "
            f"Call the two 'question' and 'answer', or leave {beside[0]!r} out."
        )
    _filled(record, key, where, "Fill it in, or drop the record")
    if key == "question" and answer:
        _filled(record, "answer", where, "Add what the model is to forget, or write plain text under 'text'")
    return record


def check_records(records: Sequence[Any], name: str = "record", answer: bool = True) -> list[Record]:
    """All of them, counted from 1 in messages; see :func:`check_record`.

    Raises:
        InputError: also where there are none.
    """
    if not records:
        raise InputError(f"Expected at least one {name}; got none.")
    return [check_record(record, f"{name} {i}", answer) for i, record in enumerate(records, 1)]


def prompt_key(record: Record) -> str:
    """``question`` or ``text``: where the words lie that a user chose."""
    return "question" if "question" in record else "text"


def split_sentences(text: str) -> list[str]:
    """Sentences and the white space between them in turn, sentences at even places; joined they are ``text`` again.

    A sentence ends at white space after ``.``, ``!`` or ``?``: "Dr. Grey" are two.
    """
    return _GAP.split(text)


def units(record: Record) -> list[str]:
    """What counts as one item of a record: its question (of a conversation the last turn), or each sentence of its text."""
    if "question" in record:
        return [last_turn(record["question"])]
    return [part for part in split_sentences(record["text"])[::2] if part.strip()]


def _answers(name: Any, value: Any) -> bool:
    """Whether ``value`` looks like an answer by its key; a number or ``null`` is a class or nothing."""
    texts = value if isinstance(value, list) else [value]
    return str(name).strip().casefold() in ANSWERS and any(isinstance(text, str) and text.strip() for text in texts)


def _filled(record: Record, key: str, where: str, advice: str) -> None:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        came = "no such key" if key not in record else "an empty text" if isinstance(value, str) else _kind(value)
        raise InputError(f"Expected a text under {key!r} on {where}; got {came}. {advice}.")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
