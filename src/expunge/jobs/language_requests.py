"""Requests for language models in files: one JSON object a line. Read, looked at, and attacked for a test of defences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expunge.attacks.stealthy import poison
from expunge.core.errors import InputError
from expunge.core.files import parse_json, write_atomic
from expunge.core.texts import Record, check_record
from expunge.screening.language import screen_language


def read_records(path: Path, answer: bool = True) -> list[Record]:
    """The records of a JSONL file; blank lines count as lines and are no records.

    Args:
        answer: whether questions must have answers.

    Raises:
        InputError: with the number of the line; or for a file that is missing, empty or not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a JSONL file, one object on a line.")
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read as text in UTF-8: {error}. Save it in UTF-8.") from None
    records = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"line {number} of {path.name}"
            records.append(check_record(_object(line, where), where, answer))
    if not records:
        raise InputError(f"{path.name} has no records: Expected one JSON object on a line, at least one; it is empty.")
    return records


def attack_stealthily(source: Path, out: Path, p: float, seed: int) -> dict[str, Any]:
    """Put templates around prompts of a request and write the new one; see :func:`expunge.attacks.stealthy.poison`.

    Writing the same content again changes nothing.

    Raises:
        InputError: for a file that cannot be used, or an ``out`` that holds something else.
    """
    made = poison(read_records(source), p=p, seed=seed)
    written = _write(out, made.records)
    return {
        "in": str(source), "out": str(out), "written": written, "p": p, "seed": seed, "records": len(made.records),
        "items": made.items, "wrapped": made.wrapped, "share": made.share, "words": made.words,
        "inserted": made.inserted, "inserted_share": made.inserted_share,
    }  # fmt: skip


def screen_file(request: Path, benign: Path, total: int | None = None) -> dict[str, Any]:
    """Compare a request with benign prompts; see :func:`expunge.screening.language.screen_language`. Writes nothing.

    Raises:
        InputError: for a file that cannot be used.
    """
    return screen_language(read_records(request), read_records(benign, answer=False), total=total).to_json()


def _object(line: str, where: str) -> Any:
    if line.lstrip().startswith("[") and where.startswith("line 1 "):
        raise InputError(
            f"Expected one JSON object on a line; {where} begins a list. Write each object on its own line."
        )
    try:
        value = parse_json(line, where)
        line.encode()
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"Expected text on {where}; it holds half of a surrogate pair. Repair or drop it.") from None
    except InputError as error:
        problem = str(error).replace("line 1 column", "column")  # of its own line, not of the file
        raise InputError(f"{problem}. Expected one JSON object on each line: mend or drop this one.") from None
    return value


def _write(path: Path, records: Sequence[Record]) -> bool:
    """Whether there was anything to write."""
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if path.exists() or path.is_symlink():
        if path.is_file() and path.read_bytes() == content:
            return False
        raise InputError(
            f"{path} exists and holds something else; nothing was overwritten. Name another file, or remove it."
        )
    write_atomic(path, content)
    return True
