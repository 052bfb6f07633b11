"""Values that name people and classes: the texts that they are compared by, and when two of them look alike."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np

from expunge.core.errors import InputError

_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")  # 007
_FRACTION = re.compile(r"(?<=[0-9])\.0+(?![0-9])")  # 7.0


def said(value: Any) -> str:
    """The text that a value is compared and recorded by: whole numbers without a point, everything else as it is."""
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def person(value: Any, where: str) -> str | list[str]:
    """Who stands in ``value``: a text or a number as text, or several in a list; ``where`` is for messages.

    Raises:
        InputError: for nobody (null, an empty text or list), and for anything that is no name.
    """
    if isinstance(value, list) and value and not any(isinstance(item, list) for item in value):
        return [str(person(item, where)) for item in value]
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return said(value)
    came = "nobody" if value is None or value == "" or value == [] else f"{value!r:.60}"
    raise InputError(
        f"Expected a text, a number or a list of them under {where}; got {came}. What belongs to nobody could not be found "
        "again: name its user."
    )


def column(name: str, values: Any, length: int) -> np.ndarray:
    """A column that names users, one entry a row; an entry that is a list names several.

    Raises:
        InputError: for another length, or a row that names nobody (``None`` or NaN).
    """
    if isinstance(values, list | tuple) and any(isinstance(item, list | tuple) for item in values):
        array = np.empty(len(values), dtype=object)
        for i, item in enumerate(values):
            array[i] = tuple(item) if isinstance(item, list | tuple) else item
    elif isinstance(values, list | tuple) and values and all(isinstance(item, str) for item in values):
        array = np.array(values, dtype=object)  # NumPy's own texts lose zeros at the end, and grow with the longest
    else:
        array = np.asarray(values)
    if array.ndim == 0 or len(array) != length:
        came = "a single one" if array.ndim == 0 else str(len(array))
        raise InputError(f"Expected {length} values in column {name!r}, one a row; got {came}.")
    if (gaps := _gaps(array)).any():
        raise InputError(
            f"Column {name!r} names nobody in {int(gaps.sum())} row(s), the first at position {int(np.flatnonzero(gaps)[0])}. "
            "A row that belongs to nobody could not be found again: name its user."
        )
    return array


def has_gaps(values: np.ndarray) -> bool:
    """Whether some row of a column names nobody."""
    return values.ndim > 0 and bool(_gaps(values).any())


def _gaps(values: np.ndarray) -> np.ndarray:
    """Rows (first axis) that hold ``None``, NaN or no time."""
    if values.dtype.kind in "fc":
        missing = np.isnan(values)
    elif values.dtype.kind in "Mm":
        missing = np.isnat(values)
    elif values.dtype.kind == "O" and set(map(type, values.ravel())) <= {str}:
        return np.zeros(len(values), dtype=bool)
    elif values.dtype.kind == "O":
        missing = np.array([_nobody(item) for item in values.ravel()], dtype=bool).reshape(values.shape)
    else:
        return np.zeros(len(values), dtype=bool)
    return np.any(np.reshape(missing, (len(values), -1)), axis=1)


def _nobody(item: Any) -> bool:
    if isinstance(item, list | tuple):
        return not item or any(_nobody(each) for each in item)
    return (
        item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and math.isnan(item))
    )


def cells(values: np.ndarray, name: str) -> list[str] | list[tuple[str, ...]]:
    """A column as texts, several a row where the rows of the column name several people.

    Raises:
        InputError: for a column that has no such form.
    """
    if values.ndim != 1:
        raise InputError(f"Expected one value a row in column {name!r}; it has shape {values.shape}.")
    try:
        if values.dtype.kind == "U":
            return values.tolist()
        if values.dtype.kind in "Mm":
            return values.astype(str).tolist()
        found = values.tolist()
        kinds = set(map(type, found))
        if kinds <= {str}:
            return found
        if values.dtype.kind != "O" or not any(issubclass(kind, list | tuple) for kind in kinds):
            return [item if isinstance(item, str) else said(item) for item in found]
        return [tuple(map(said, item)) if isinstance(item, list | tuple) else (said(item),) for item in found]
    except UnicodeDecodeError:
        raise InputError(f"Column {name!r} holds bytes that are no text in UTF-8. Store it as text.") from None


def whole_ids(ids: Any, count: int) -> np.ndarray:
    """Ids of ``count`` rows, (n,) int64.

    Raises:
        InputError: unless there are so many whole numbers, each once.
    """
    found = np.asarray(ids)
    whole = found.astype(np.int64) if found.dtype.kind in "iu" else np.empty(0, np.int64)
    if found.shape != (count,) or not np.array_equal(whole, found):
        raise InputError(
            f"Expected {count} whole numbers as ids; got {found.dtype} of shape {found.shape}. What names people needs another "
            "name than ids."
        )
    values, times = np.unique(whole, return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"Expected each id once; {values[times > 1][0]} names {times[times > 1][0]} rows. Give each row an id of its own; "
            "what names people needs another name than ids."
        )
    return whole


def folded(text: str) -> str:
    """``text`` without what an eye does not see: case, white space, marks without width, and Unicode's other forms."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc"))


def alike(text: str) -> str:
    """What texts have in common that look alike, zeros in front and behind a point aside."""
    return _FRACTION.sub("", _ZEROS.sub("", folded(text)))


def in_order(text: str) -> str:
    """What a name has in common with the same words in another order, with or without commas between."""
    return " ".join(sorted(alike(word) for word in re.split(r"[\s,;_]+", text) if word))


_SHORTEST = (
    4  # letters and digits of a name whose neighbours are looked for: of shorter ones there are too many; our choice
)
_LETTERS = "abcdefghijklmnopqrstuvwxyzäöüßáàâãåæçéèêëíìîïñóòôõøúùûýœšžčřłńśćęą"


def one_letter_off(text: str) -> Iterator[str]:
    """Texts that differ from ``text`` by one letter: missing, too many, another, or exchanged with the next. Never by a digit:
    every number has neighbours, which are other people."""
    if len(text) < _SHORTEST:
        return
    for i, letter in enumerate(text):
        following = text[i + 1 : i + 2]
        if letter.isalpha():
            yield text[:i] + text[i + 1 :]
            yield from (text[:i] + other + text[i + 1 :] for other in _LETTERS)
            if following.isalpha():
                yield text[:i] + following + letter + text[i + 2 :]
    yield from (text[:i] + other + text[i:] for i in range(len(text) + 1) for other in _LETTERS)
