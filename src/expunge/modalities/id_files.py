"""Targets whose ids stand in a file of their own: a list of thousands has no place in a job file or on a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError
from expunge.core.files import parse_json
from expunge.core.request import Kind

ENDINGS = (".npy", ".txt", ".csv", ".json")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")


def with_ids(kind: str, where: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``where``, with the ids that its file names in place of the file's name; relative names begin in ``folder``.

    Raises:
        InputError: for a file that is missing or holds anything but whole numbers.
    """
    name = where.get("ids")
    if kind != Kind.SAMPLES or not isinstance(name, str):
        return dict(where)
    if Path(name).suffix.lower() not in ENDINGS:
        raise InputError(
            f"A samples target says ids in whole numbers, or by a file that ends in {', '.join(ENDINGS)}; got {name!r:.80}."
        )
    return {**where, "ids": read_ids(folder / name)}


def read_ids(path: Path) -> list[int]:
    """Whole numbers from ``.npy``, a JSON list, or text with one on each line.

    Raises:
        InputError: where the file is missing, empty or damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; it is to hold the ids of a samples target.")
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

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # a map cannot be larger than the file
        return found.ravel().tolist() if found.dtype.kind in "iu" else None
    except Exception as error:  # a damaged file may fail in any way
        raise InputError(
            f"{path.name} is damaged or holds pickled objects ({error!s:.100}). Save plain numbers."
        ) from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not text in UTF-8; expected a whole number on each line.") from None


def _whole(line: str, number: int, path: Path) -> int:
    if not _WHOLE.fullmatch(line.strip()):
        raise InputError(f"Expected a whole number on line {number} of {path.name}; got {line.strip()!r:.60}.")
    return int(line)
