"""Which rows a target names: shared by every kind of data whose rows are independent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Kind, Target
from expunge.data.values import cells, near, said

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")  # 007 is a name, 7 a number


def samples(target: Target, ids: np.ndarray) -> Ids:
    """The rows that a target of kind ``samples`` names by their ids.

    Raises:
        InputError: unless it says ``ids`` in whole numbers.
    """
    return Ids.rows(np.intersect1d(numbers(target, "ids"), ids))


def user(target: Target, ids: np.ndarray, columns: Mapping[str, np.ndarray]) -> Ids:
    """The rows whose columns hold all values that a target of kind ``user`` names; of a list, any of its values.

    Raises:
        InputError: for a column that the data do not have.
    """
    mask = np.ones(len(ids), dtype=bool)
    for rows, _ in _hits_of(target, columns).values():
        here = np.zeros(len(ids), dtype=bool)
        here[rows] = True
        mask &= here
    return Ids.rows(ids[mask])


def people(columns: Mapping[str, np.ndarray]) -> dict[str, list[tuple[str, ...]]]:
    """Who stands in each row, by ``user`` and the name of the column; the texts that targets are compared with."""
    return {
        f"user {name}": [(cell,) if isinstance(cell, str) else cell for cell in cells(values, name)]
        for name, values in columns.items()
    }


def unmatched(
    target: Target, columns: Mapping[str, np.ndarray], labels: np.ndarray | None = None, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Each value that a target of kind ``user`` or ``class`` names and no row has, in words, with what looks like it.

    Args:
        labels: of the rows, for classes. names: what the classes are called, where they have names.

    Raises:
        InputError: as :func:`user` and :func:`classes`.
    """
    if target.kind == Kind.CLASS and labels is not None:
        wanted = dict(zip(classes(target, names).tolist(), target.values("label"), strict=True))
        return tuple(f"label {wanted[k]}" for k in sorted(wanted.keys() - set(labels.tolist())))
    if target.kind != Kind.USER:
        return ()
    found = _hits_of(target, columns)
    lost = []
    for name, (rows, which) in found.items():
        others = [other for each, (other, _) in found.items() if each != name]
        seen = set(which[np.logical_and.reduce([np.isin(rows, other) for other in others])] if others else which)
        for k, value in enumerate(target.values(name)):
            if k not in seen:
                alike = near(said(value), cells(columns[name], name))
                hint = f" (there is {', '.join(map(repr, alike))})" if alike else ""
                lost.append(f"{name} {said(value)!r}{hint}")
    return tuple(lost)


def classes(target: Target, names: Sequence[str] = ()) -> np.ndarray:
    """The labels that a target of kind ``class`` names: whole numbers, or what the data call the classes.

    Raises:
        InputError: for a name that is none, or a number that is the name of another class than it counts to.
    """
    if set(target.where) != {"label"} or not any(isinstance(value, str) for value in target.values("label")):
        found = numbers(target, "label")
        for label in found.tolist():
            if (called := str(label)) in names and names.index(called) != label:
                raise InputError(
                    f"Label {label} may be the class that the data call {called!r}, or the one in place {label}"
                    f"{f' ({names[label]!r})' if label < len(names) else ''}. Quote it to name the class: label: '{called}'."
                )
        return found
    places = []
    for value in target.values("label"):
        if str(value) not in names:
            known = f"the classes are {', '.join(names):.300}" if names else "the classes have no names here"
            raise InputError(
                f"A class target says label in whole numbers, or by the names of classes; got {value!r:.60}, and {known}."
            )
        places.append(names.index(str(value)))
    return np.array(places, dtype=np.int64)


def numbers(target: Target, key: str) -> np.ndarray:
    """The whole numbers that ``target`` gives under ``key``, its only one.

    Raises:
        InputError: for another key beside or instead of it, or values that are no whole numbers.
    """
    if set(target.where) != {key}:
        raise InputError(f"A {target.kind} target says where as {{{key!r}: …}}; got {sorted(target.where)}.")
    try:
        found = np.asarray(target.where[key]).ravel()
        if found.size and found.dtype.kind not in "iu":
            raise ValueError
        if found.dtype.kind == "u" and found.size and int(found.max()) > np.iinfo(np.int64).max:
            raise ValueError
        return found.astype(np.int64)
    except ValueError:
        hint = ""
        if key == "ids" and isinstance(target.where[key], str):
            hint = " A file of ids is read where a job file or --where names it, not here: give its numbers."
        raise InputError(
            f"A {target.kind} target says {key} in whole numbers; got {target.where[key]!r:.60}.{hint}"
        ) from None


def _hits_of(target: Target, columns: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each column that ``target`` names: the positions of its rows that match, and which of the values they match."""
    found = {}
    for name in target.where:
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise InputError(f"Expected a column that names the user; {name!r} is not one. Columns: {known}.")
        values = target.values(name)
        if odd := [value for value in values if isinstance(value, Mapping | list | tuple)]:
            raise InputError(f"Expected texts or numbers under {name!r} of a user target; got {odd[0]!r:.60}.")
        pairs = list(_hits(columns[name], name, values))
        rows, which = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
        found[name] = rows, which
    return found


def _hits(values: np.ndarray, name: str, wanted: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Positions with the number of the wanted value that each equals; numbers and their text forms are the same user."""
    if values.dtype.kind in "iufb" and values.ndim == 1:
        keys: dict[int | float, list[int]] = {}
        for k, value in enumerate(wanted):
            if (number := _number(value)) is not None:
                keys.setdefault(number, []).append(k)
        yield from ((i, k) for i, value in enumerate(values.tolist()) for k in keys.get(value, ()))
        return
    column = cells(values, name)
    numbers_too = any(not isinstance(value, str) for value in wanted)
    there = {text for cell in column for text in ((cell,) if isinstance(cell, str) else cell)} if numbers_too else set()
    texts: dict[str, list[int]] = {}
    for k, value in enumerate(wanted):  # 7.0 is what the column writes so, else 7
        written = value if isinstance(value, str) or str(value) in there else said(value)
        texts.setdefault(str(written), []).append(k)
    for i, cell in enumerate(column):
        if isinstance(cell, str):
            if cell in texts:
                yield from ((i, k) for k in texts[cell])
        else:
            yield from ((i, k) for text in set(cell) for k in texts.get(text, ()))


def _number(value: Any) -> int | float | None:
    """The number that ``value`` is, or is the plain text of."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        if value in ("True", "False"):
            return value == "True"
        if not _NUMBER.fullmatch(value):
            return None
        return float(value) if "." in value else int(value)
    return value if isinstance(value, int | float) else None
