"""Recipes × methods × forget sets × seeds: a table of methods that stands, because everything in it can be run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def results(folder: Path | str) -> Any:
    """Every finished cell of a benchmark as a row of a pandas frame; see :func:`expunge.bench.export.frame`.

    Args:
        folder: of the results, ``bench-results/NAME`` where none was named.

    Raises:
        InputError: for a folder without results.
    """
    from expunge.bench.export import frame

    return frame(Path(folder))
