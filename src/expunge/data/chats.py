"""Records as other tools write them (conversations, completions, instructions), as questions with answers.

Nothing is guessed: a record that has the keys of two forms, or a turn of an unknown role, is refused. The loss is that of
trainers: on what the assistant says, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.errors import InputError
from expunge.core.texts import check_record
from expunge.core.turns import ROLES, SAYS, TURN, as_question

OURS = ("question", "answer", "text", "messages")  # what ``keys`` may map to another name
_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_FORMS: Mapping[str, tuple[str, ...]] = {  # form → the keys that it is known by
    "messages": ("messages",), "conversations": ("conversations",), "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
}  # fmt: skip


def as_records(
    record: Any, where: str, *, answer: bool = True, keys: Mapping[str, str] | None = None
) -> list[Mapping[str, Any]]:
    """The questions with answers, or the text, that one record of a file holds.

    ``{"question", "answer"}`` and ``{"text"}`` are taken as they are. ``{"messages": [{"role", "content"}, …]}`` and ShareGPT's
    ``{"conversations": [{"from", "value"}, …]}`` become a question for each turn of the assistant, all turns before it
    included; ``{"prompt", "completion"}`` are texts or lists of messages; Alpaca's ``{"instruction", "input", "output"}`` asks
    the instruction and, on the next line, the input. Other keys are kept.

    Args:
        where: how messages call the record.
        answer: whether something must be answered; ordinary prompts need not be.
        keys: ``question``, ``answer``, ``text`` or ``messages`` → what this file calls them.

    Raises:
        InputError: for another form, the keys of two forms, a key of ``keys`` that is missing, or a conversation in which the
            assistant says nothing.
    """
    if not isinstance(record, Mapping):
        return [check_record(record, where, answer)]
    record = _renamed(record, keys or {}, where)
    if "question" in record or "text" in record:
        return [_plain(check_record(record, where, answer), where)]
    forms = [form for form, (known, *_) in _FORMS.items() if known in record]
    if len(forms) > 1:
        raise InputError(
            f"Expected one form of record on {where}; it has {' and '.join(forms)}. Say which by data.keys."
        )
    if not forms:
        return [check_record(record, where, answer)]  # says what was expected
    (form,) = forms
    if answer and (missing := [key for key in _FORMS[form] if key not in record]):
        raise InputError(f"Expected {' and '.join(_FORMS[form])} on {where}; {missing[0]} is missing.")
    rest = {
        key: value
        for key, value in record.items()
        if key not in (*_FORMS[form], "input" if form == "instruction" else "")
    }
    if form == "instruction":
        more = record.get("input")
        asked = record["instruction"] if more in (None, "") else f"{record['instruction']}\n{more}"
        return [_plain(check_record({**rest, "question": asked, "answer": record.get("output")}, where, answer), where)]
    if form == "prompt" and isinstance(record["prompt"], str):
        found = {**rest, "question": record["prompt"], "answer": record.get("completion")}
        return [_plain(check_record(found, where, answer), where)]
    if form == "prompt":
        turns = [*_turns(record["prompt"], where, False), *_turns(record.get("completion", ()), where, False)]
    else:
        turns = _turns(record[form], where, form == "conversations")
    return [check_record({**rest, **pair}, where, answer) for pair in _answered(turns, where, answer)]


def _renamed(record: Mapping[str, Any], keys: Mapping[str, str], where: str) -> dict[str, Any]:
    """The record under our names for its keys."""
    if unknown := [name for name in keys if name not in OURS]:
        raise InputError(f"Expected data.keys among {', '.join(OURS)}; got {unknown[0]!r}.")
    if missing := [theirs for theirs in keys.values() if theirs not in record]:
        raise InputError(
            f"Expected a key {missing[0]!r} on {where}, as data.keys says; it has {', '.join(map(str, record))}."
        )
    if not keys:
        return dict(record)
    rest = {name: value for name, value in record.items() if name not in keys.values() and name not in _KNOWN}
    return {**rest, **{ours: record[theirs] for ours, theirs in keys.items()}}


_KNOWN = {*OURS, *(key for form in _FORMS.values() for key in form), "input"}  # of other forms: they mean nothing then


def _turns(turns: Any, where: str, sharegpt: bool) -> list[dict[str, str]]:
    """Turns with a known role each and a text."""
    says, holds = ("from", "value") if sharegpt else ("role", "content")
    if (
        not isinstance(turns, Sequence)
        or isinstance(turns, str)
        or not all(isinstance(turn, Mapping) for turn in turns)
    ):
        raise InputError(
            f"Expected a list of turns, each with {says} and {holds}, on {where}; got {type(turns).__name__}."
        )
    found = []
    for turn in turns:
        role, text = turn.get(says), turn.get(holds)
        role = _SHAREGPT.get(str(role)) if sharegpt else role
        if role not in ROLES:
            raise InputError(
                f"Expected turns of {', '.join(ROLES)} on {where}; got {turn.get(says)!r:.60}. Leave such turns out."
            )
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"Expected a text in every turn on {where}; a turn of the {role} has none.")
        found.append({"role": role, "content": _clean(text, where)})
    return found


def _answered(turns: Sequence[Mapping[str, str]], where: str, answer: bool) -> list[dict[str, Any]]:
    """A question and its answer for each turn of the assistant; without answers the last turn of the user."""
    found = []
    for i, turn in enumerate(turns):
        if turn["role"] == "assistant":
            if i == 0 or turns[i - 1]["role"] != "user":
                raise InputError(
                    f"Expected every turn of the assistant on {where} to follow one of the user; turn {i + 1} does not."
                )
            found.append({"question": as_question(turns[:i]), "answer": turn["content"]})
    if not found and not answer and turns and turns[-1]["role"] == "user":
        return [{"question": as_question(turns)}]
    if not found:
        raise InputError(
            f"Expected a turn of the assistant on {where}: nothing in it would be learnt. Drop the conversation."
        )
    return found


def _plain(record: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """``record``, whose texts hold none of the characters that part turns."""
    for key in ("question", "answer", "text"):
        if key in record and isinstance(record[key], str):
            _clean(record[key], where)
    return record


def _clean(text: str, where: str) -> str:
    if TURN in text or SAYS in text:
        raise InputError(f"Expected text on {where}; it holds a control character (U+001E or U+001F). Take it out.")
    return text
