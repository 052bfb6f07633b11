"""Finished cells on disk: JSON lines, one a cell, written before anything depends on them and never computed again."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from expunge.core.digest import digest_bytes
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import leftovers, write_atomic

FORMAT = "expunge/bench/1"


class Results:
    """The results file of one folder, and beside it the margins of each cell.

    A line that a killed process left unfinished is cut off when the file is opened: its cell is run again. Whoever opens it
    sees to it that nobody else writes there.

    Args:
        folder: made where it is missing.
        benchmark: digest of everything that cells of different runs must agree in.

    Raises:
        InputError: if the folder holds results of another benchmark.
    """

    def __init__(self, folder: Path, benchmark: str):
        self.folder = folder
        self.path = folder / "results.jsonl"
        self._margins = folder / "margins"
        self._margins.mkdir(parents=True, exist_ok=True)
        for part in [*leftovers(folder), *leftovers(self._margins)]:
            part.unlink()
        self.cells: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self._read(benchmark)
        else:
            write_atomic(self.path, _line({"format": FORMAT, "benchmark": benchmark}))

    def _read(self, benchmark: str) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            head, *lines = [json.loads(line) for line in whole.splitlines()]
            if head["format"] != FORMAT:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.path} is no results file of this version; choose another folder.") from None
        if head["benchmark"] != benchmark:
            raise InputError(
                f"{self.folder} holds results of another benchmark: model, data, training or forget sets differ. Choose "
                "another folder, or remove this one."
            )
        if whole != content:
            write_atomic(self.path, whole)
        self.cells = {cell["key"]: cell for cell in lines}

    def add(self, cell: Mapping[str, Any], margins: Mapping[str, np.ndarray]) -> None:
        """Store a finished cell; margins first, so that a cell in the file has them."""
        if margins:
            content = save({name: np.ascontiguousarray(values) for name, values in margins.items()})
            write_atomic(self._margins / f"{cell['key']}.safetensors", content)
            cell = {**cell, "margins": digest_bytes(content)}
        with self.path.open("ab") as stream:
            stream.write(_line(cell))
            stream.flush()
            os.fsync(stream.fileno())
        self.cells[cell["key"]] = dict(cell)

    def only(self, keys: Iterable[str]) -> Results:
        """The same file seen through ``keys``: what other runs left in the folder is not part of this one's table."""
        seen = copy.copy(self)
        seen.cells = {key: self.cells[key] for key in keys}
        return seen

    def margins(self, key: str) -> dict[str, np.ndarray]:
        """Margins of a cell: set → (rows,).

        Raises:
            TamperedError: if they are missing or were changed after the cell was stored.
        """
        path = self._margins / f"{key}.safetensors"
        content = path.read_bytes() if path.exists() else b""
        if digest_bytes(content) != self.cells[key]["margins"]:
            raise TamperedError(
                f"{path} is missing or was changed after its cell was stored. Remove the cell's line from {self.path.name}, "
                "and it is run again."
            )
        return load(content)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
