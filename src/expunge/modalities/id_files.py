"""Targets whose ids or values stand in a file of their own: a list of thousands has no place in a job file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError, foreign
from expunge.core.files import parse_json
from expunge.core.request import Kind

ENDINGS = (".npy", ".txt", ".csv", ".json")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")


def with_ids(kind: str, where: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``where``, with what its files name in place of the files: ids of a samples target, and of any column that says
    ``{file: people.csv}`` the values in it; relative names begin in ``folder``.

    Raises:
        InputError: for a file that is missing, or holds anything but whole numbers (ids) or one value a line.
    """
    where = {column: _from_file(column, value, folder) for column, value in where.items()}
    name = where.get("ids")
    if kind != Kind.SAMPLES or not isinstance(name, str):
        return dict(where)
    if Path(name).suffix.lower() not in ENDINGS:
        raise InputError(
            f"A samples target says ids in whole numbers, or by a file that ends in {', '.join(ENDINGS)}; got {name!r:.80}."
        )
    return {**where, "ids": read_ids(folder / name)}


def _from_file(column: str, value: Any, folder: Path) -> Any:
    """The values that ``{file: …}`` stands for; any other value as it is."""
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"file"} or not isinstance(value["file"], str):
        raise InputError(
            f"{column} of a target: expected a value, a list of values, or {{file: people.csv}}; got {dict(value)!r:.80}."
        )
    return read_values(folder / value["file"], column)


def read_values(path: Path, column: str) -> list[str]:
    """Values of ``column``, as texts: a line each of a ``.txt``, a JSON list of texts, or that column of a ``.csv``.

    Each value counts once. White space is part of a value, as everywhere in targets.

    Raises:
        InputError: where the file is missing, empty or damaged, has another ending, or lacks the column.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; it is to hold values of {column}.")
    ending = path.suffix.lower()
    if ending == ".json":
        found = parse_json(path.read_bytes(), path.name)
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise InputError(f"Expected a list of texts in {path.name}; it holds something else. Quote numbers.")
    elif ending == ".txt":
        found = _lines(path)
    elif ending == ".csv":
        found = _column(path, column)
    else:
        raise InputError(f"Expected values of {column} in a file that ends in .txt, .csv or .json; got {path.name}.")
    found = list(dict.fromkeys(value for value in found if value != ""))
    if not found:
        raise InputError(f"Expected at least one value of {column} in {path.name}; it has none.")
    return found


def _column(path: Path, column: str) -> list[str]:
    """The column called ``column`` of a table, or its only one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head, *rows = csv.reader(file) or [[]]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"{path.name} is no table in UTF-8 with a line of names ({error!s:.80}).") from None
    if column not in head:
        raise InputError(f"Expected a column {column!r} in {path.name}; it has {', '.join(head):.200}.")
    at = head.index(column)
    if odd := next((i for i, row in enumerate(rows, 2) if row and len(row) != len(head)), None):
        raise InputError(f"Line {odd} of {path.name} has another number of fields than its first line.")
    return [row[at] for row in rows if row]


def read_ids(path: Path, what: str = "the ids of a samples target") -> list[int]:
    """Whole numbers from ``.npy``, a JSON list, or text with one on each line.

    Args:
        what: they are, for messages.

    Raises:
        InputError: where the file is missing, empty or damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; it is to hold {what}.")
    match path.suffix.lower():
        case ".npy":
            found = _numpy(path)
        case ".json":
            found = parse_json(path.read_bytes(), path.name)
        case _:
            found = [_whole(line, i, path) for i, line in enumerate(_lines(path), 1) if line.strip()]
    if not isinstance(found, list) or not found or not all(type(each) is int for each in found):
        raise InputError(f"Expected a list of whole numbers in {path.name}, at least one; it holds something else.")
    return found


def _numpy(path: Path) -> Any:
    import numpy as np  # this file is read before anything heavy is imported

    from expunge.data.damage import NUMPY

    with foreign(
        lambda error: f"{path.name} is damaged or holds pickled objects ({error!s:.100}). Save plain numbers.", *NUMPY
    ):
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # a map cannot be larger than the file
    plain = isinstance(found, np.ndarray) and found.dtype.kind in "iu"  # a packed one is none
    return found.ravel().tolist() if plain else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not text in UTF-8; expected one value on each line.") from None


def _whole(line: str, number: int, path: Path) -> int:
    if not _WHOLE.fullmatch(line.strip()):
        raise InputError(f"Expected a whole number on line {number} of {path.name}; got {line.strip()!r:.60}.")
    return int(line)
