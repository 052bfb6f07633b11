"""Values that a job declares (categories, classes), and what a table has of them: texts as texts, numbers as numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.errors import InputError

_CODE = re.compile(r"\s*[+-]?0[0-9].*")  # a number in front of which zeros stand: more often a code
_TRUE_FALSE = {"true": 1.0, "false": 0.0}


def written(value: Any) -> str:
    """A declared value as text."""
    return value if isinstance(value, str) else str(value)


def distinct(values: Sequence[Any], what: str) -> None:
    """Raise InputError where a value is declared twice: ``1``, ``1.0`` and ``"1"`` are one."""
    if not len(values):
        raise InputError(f"Expected at least one value under {what}; got none.")
    seen: dict[Any, Any] = {}
    for value in values:
        for form in {written(value), written(_number(value)) if not isinstance(value, str) else written(value)}:
            if form in seen:
                raise InputError(f"Expected each of the {what} once; {value!r} comes twice. Leave one of them out.")
        seen[written(value)] = seen[written(_number(value)) if not isinstance(value, str) else written(value)] = value


def positions_in(declared: Sequence[Any], values: Any, message: str) -> np.ndarray:
    """Where each of ``values`` (texts of a table) stands in what was declared.

    Args:
        message: what is said of one that stands nowhere, with ``{}`` in its place.

    Raises:
        InputError: for a text that was not declared, or two of which nobody can tell whether they are one number.
    """
    place = _places(declared, values.unique().tolist(), message)
    return np.fromiter(map(place.__getitem__, values.tolist()), np.int64, len(values))


def positions_of(values: Any, name: str, declared: Sequence[Any], file: str) -> np.ndarray:
    """Where each value of a column stands among its declared categories, (n,).

    Raises:
        InputError: as :func:`positions_in`, or where a value is declared twice.
    """
    distinct(declared, f"categories of {name!r}")
    message = f"Column {name!r} of {file} holds {{}}, which is not in its categories"
    return positions_in(declared, values, message)


def one_number_one_text(texts: Sequence[str], what: str, advice: str) -> None:
    """Raise InputError where two texts are one number and one of them has zeros in front: are they one, or two codes?"""
    first: dict[float | str, str] = {}
    for text in texts:
        before = first.setdefault(_number(text), text)
        if before != text and (_CODE.match(before) or _CODE.match(text)):
            raise InputError(
                f"{what.format(repr(before), repr(text))} are one number and two texts. {advice} to tell them apart."
            )


def _places(declared: Sequence[Any], texts: Sequence[str], message: str) -> Mapping[str, int]:
    by_text = {value: i for i, value in enumerate(declared) if isinstance(value, str)}
    by_number = {_number(value): i for i, value in enumerate(declared) if not isinstance(value, str)}
    by_text |= {written(value): i for i, value in enumerate(declared) if written(value) not in by_text}
    found = {text: by_text[text] if text in by_text else by_number.get(_number(text), -1) for text in texts}
    if lost := [text for text, place in found.items() if place < 0]:
        raise InputError(
            f"{message.format(repr(lost[0]))} {', '.join(map(written, declared)):.300}.{_hint(declared, lost[0])}"
        )
    as_numbers = [text for text in texts if text not in by_text or not isinstance(declared[found[text]], str)]
    one_number_one_text(as_numbers, message.split("{}")[0] + "{} and {}: they", "Quote the declared values as texts")
    return found


def _hint(declared: Sequence[Any], text: str) -> str:
    if any(isinstance(value, bool) for value in declared):
        return " YAML reads no, off and yes, on as false and true: quote them."
    if _number(text) in [_number(value) for value in declared]:
        return " They are one number and two texts: declare it as the file writes it."
    return " Add it, or correct the table."


def _number(value: Any) -> float | str:
    """The number that a value is or that a text says; another text is itself."""
    text = written(value).strip().lower()
    try:
        return _TRUE_FALSE[text] if text in _TRUE_FALSE else float(text)
    except ValueError:
        return written(value)
