"""Requests for language models in files: one JSON object a line. Read, looked at, and attacked for a test of defences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expunge.attacks.stealthy import poison
from expunge.core.errors import InputError
from expunge.core.files import write_atomic
from expunge.core.texts import Record
from expunge.data.texts import read_records
from expunge.screening.language import screen_language


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
