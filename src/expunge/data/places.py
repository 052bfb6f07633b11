"""Where real data lie: in the folder that is given, or in the one that ``EXPUNGE_DATA`` names. Never written to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from expunge.core.errors import InputError

VARIABLE = "EXPUNGE_DATA"


def located(root: str | Path | None, folders: Sequence[str], wanted: Sequence[str], how: str) -> Path:
    """The folder, among ``folders`` below ``root`` and ``root`` itself, that holds one of the files ``wanted``.

    Args:
        root: a folder of data sets, or of this one; ``None`` takes ``EXPUNGE_DATA``.
        folders: where the data set lies below it, in order of preference.
        wanted: names of files (or folders), any one of which tells that the data set is there.
        how: one sentence on how to get the data.

    Raises:
        InputError: where no folder is given, or the data are not there; with what was looked for, where, and ``how``.
    """
    root = root or os.environ.get(VARIABLE)
    if not root:
        raise InputError(
            f"Expected a folder that holds {folders[0]}/{wanted[0]}; none is given. Give root (data.path in a job file), "
            f"or set {VARIABLE} to your folder of data sets. {how}"
        )
    base = Path(root)
    for folder in (*folders, "."):
        if any((base / folder / name).exists() for name in wanted):
            return base / folder
    raise InputError(
        f"There is no {wanted[0]} in {base}; looked in {', '.join(folders)} below it and in the folder itself. {how}"
    )
