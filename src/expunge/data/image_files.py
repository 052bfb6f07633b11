"""Which file each example was read from: requests may name files, plans show them, and their bytes are recognised again."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from expunge.core.digest import digest_file
from expunge.core.errors import InputError
from expunge.core.request import Target

PATH = "path"  # the key of a target that names files
_NEAR = 3


@dataclass(frozen=True, eq=False)
class Files:
    """The files of examples.

    Attributes:
        folder: that they lie below.
        names: paths below it, with ``/``, one an example, (n,).
    """

    folder: Path
    names: np.ndarray

    def take(self, mask: np.ndarray) -> Files:
        """Those of a part of the examples."""
        return replace(self, names=self.names[mask])

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names.tolist())}

    def positions(self, target: Target) -> np.ndarray:
        """Positions of the examples whose files a samples target names by their paths; ascending.

        Raises:
            InputError: where it says something else besides, or a path that is no text.
        """
        found = (self._place.get(self._written(value)) for value in self._paths(target))
        return np.array(sorted({at for at in found if at is not None}), dtype=np.int64)

    def unmatched(self, target: Target) -> tuple[str, ...]:
        """Each path that a samples target names and no example has, in words, with what looks like it."""
        lost = [value for value in self._paths(target) if self._written(value) not in self._place]
        return tuple(f"{PATH} {value!r}{hint(value, self.names.tolist())}" for value in lost)

    def digests(self, at: Sequence[int]) -> list[str]:
        """What the files at these positions are recognised by: their bytes.

        Raises:
            InputError: for a file that is gone since it was read.
        """
        return [content_of(self.folder / self.names[i]) for i in at]

    def _written(self, value: str) -> str:
        """A path as it is written here: below the folder, whether it was given from there or with the folder in front."""
        return value.removeprefix("./").removeprefix(f"{self.folder.as_posix()}/")

    @staticmethod
    def _paths(target: Target) -> list[str]:
        if set(target.where) != {PATH}:
            raise InputError(
                f"A samples target says where as {{'ids': …}} or {{'path': …}}; got {sorted(target.where)}."
            )
        values = list(target.values(PATH))
        if odd := [value for value in values if not isinstance(value, str)]:
            raise InputError(
                f"A samples target says {PATH} in texts, paths below the folder of images; got {odd[0]!r:.60}."
            )
        return values


def content_of(path: Path) -> str:
    """What a file is recognised by, whatever it is called and wherever it lies.

    Raises:
        InputError: where there is no such file.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path} any more; restore it: its bytes are what it is recognised by later.")
    return f"file {digest_file(path)}"


def hint(path: str, names: Sequence[str]) -> str:
    """Which of ``names`` a path may mean, in brackets: one that it ends in, or that ends in it, or that looks like it."""
    ends = [name for name in names if path.endswith(f"/{name}") or name.endswith(f"/{path.lstrip('./')}")]
    found = ends[:_NEAR] or difflib.get_close_matches(path, names, _NEAR)
    return f" (there is {', '.join(map(repr, found))})" if found else ""
