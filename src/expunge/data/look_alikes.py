"""Values that a reader would take for the same and a computer does not: ``é`` has two forms, and ``Ann `` ends in a space.

Nothing here decides anything: a request means the values that it names, character for character. What looks like one of
them and stays is named, so that a person can look. The same holds for examples that stay and are equal to one that goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.digest import keyed_hash
from expunge.core.errors import InputError
from expunge.core.request import Kind, Target
from expunge.data.rows import Rows
from expunge.data.selecting import classes
from expunge.data.values import cells, folded, said


@dataclass(frozen=True)
class LookAlike:
    """A value that stays and looks like one that goes. It names people: for eyes that may see them, not for records.

    Attributes:
        column: of the data; ``label`` for names of classes.
        named, stays: what the request says, and what the data have beside it.
        rows: how many rows have it and stay.
    """

    column: str
    named: str
    stays: str
    rows: int

    def record(self, key: bytes) -> dict[str, Any]:
        """The form that may be recorded: values as keyed hashes."""
        hashes = {name: keyed_hash(key, getattr(self, name))[:20] for name in ("named", "stays")}
        return {"column": self.column, **hashes, "rows": self.rows}

    def __str__(self) -> str:
        return f"{self.column} {self.stays!r} looks like {self.named!r} and stays ({self.rows} row(s))"


def look_alikes(data: Any, targets: Sequence[Target]) -> tuple[LookAlike, ...]:
    """Users, clients and classes that stay although they look like one that ``targets`` name: white space, case, Unicode form.

    Args:
        data: with ``ids`` and ``columns`` (rows, texts), before anything is taken out; other data have no look-alikes.

    Raises:
        InputError: as ``data.select``.
    """
    found: list[LookAlike] = []
    columns, ids = getattr(data, "columns", None), getattr(data, "ids", None)
    if columns is None or not isinstance(ids, np.ndarray):
        return ()
    gone = np.unique(np.concatenate([np.empty(0, np.int64), *(data.select(target)["row"] for target in targets)]))
    stays = ~np.isin(ids, gone)
    for target in targets:
        if target.kind == Kind.USER or (target.kind == Kind.CLIENT and {*target.where} <= {*columns}):
            found += _users(target, columns, stays)
        elif target.kind == Kind.CLASS and (names := getattr(data, "names", ())):
            label = Target(Kind.CLASS, {"label": target.where["label"]})  # a class at a client names the client too
            found += _classes(label, names, data.y.cpu().numpy()[stays])
    return tuple(dict.fromkeys(found))


def copies_that_stay(data: Any, ids: Ids) -> int:
    """How many rows stay although their inputs and label are those of a row among ``ids``: what these teach is learnt again.

    Args:
        data: before anything is taken out. Of anything but rows 0: texts refuse a request that leaves copies.
    """
    if not isinstance(data, Rows):
        return 0
    digests, gone = data.row_digests, np.isin(data.ids, ids["row"])
    those = {digest.tobytes() for digest in digests[gone]}
    return sum(digest.tobytes() in those for digest in digests[~gone])


def _users(target: Target, columns: Any, stays: np.ndarray) -> list[LookAlike]:
    alike = stays.copy()
    seen: dict[str, list[list[tuple[Any, str]]]] = {}
    for name in target.where:
        if name not in columns:
            raise InputError(f"Expected a column that names the user; {name!r} is not one.")
        named = {folded(said(value)): said(value) for value in target.values(name)}
        column = [(cell,) if isinstance(cell, str) else cell for cell in cells(columns[name], name)]
        meant = {text: named.get(folded(text)) for text in dict.fromkeys(text for cell in column for text in cell)}
        seen[name] = [[(meant[text], text) for text in cell if meant[text] is not None] for cell in column]
        alike &= np.array([bool(pairs) for pairs in seen[name]], dtype=bool)
    count: Counter[tuple[str, str, str]] = Counter()
    for i in np.flatnonzero(alike).tolist():
        for name, of_row in seen.items():
            exact = {said(value) for value in target.values(name)}
            count.update({(name, meant, text) for meant, text in of_row[i] if text not in exact})
    return [LookAlike(*which, rows) for which, rows in count.items()]


def _classes(target: Target, names: tuple[str, ...], labels: np.ndarray) -> list[LookAlike]:
    found = []
    for label in classes(target, names).tolist():
        for other, name in enumerate(names):
            rows = int((labels == other).sum())
            if rows and label < len(names) and name != names[label] and folded(name) == folded(names[label]):
                found.append(LookAlike("label", names[label], name, rows))
    return found
