"""Which rows a target names: shared by every kind of data whose rows are independent."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Kind, Target
from expunge.data.values import alike, cells, in_order, one_letter_off, said

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")  # 007 is a name, 7 a number


class Places:
    """Where each value of each column stands: worked out once a column, so that a thousand targets cost little more than one.

    Args:
        columns: of the data, which stay as they are.
    """

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self.columns = columns
        self._of: dict[str, dict[Any, list[int]]] = {}
        self._alike: dict[str, dict[str, list[str]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Places, (self.columns,)  # what was worked out is no part of the data

    def of(self, name: str) -> dict[Any, list[int]]:
        """Value → positions, ascending: numbers of a column of numbers, else texts; a row may hold several."""
        if name not in self._of:
            found: defaultdict[Any, list[int]] = defaultdict(list)
            column = self.columns[name].tolist() if self.counts(name) else cells(self.columns[name], name)
            if column and isinstance(column[0], tuple):  # then all are
                for i, cell in enumerate(column):
                    for value in dict.fromkeys(cell):
                        found[value].append(i)
            else:
                for i, value in enumerate(column):
                    found[value].append(i)
            self._of[name] = dict(found)
        return self._of[name]

    def counts(self, name: str) -> bool:
        """Whether a column holds numbers, one a row."""
        return self.columns[name].dtype.kind in "iufb" and self.columns[name].ndim == 1

    def near(self, text: str, name: str, most: int = 3) -> list[str]:
        """At most ``most`` other values of a column that look like ``text``, zeros in front and behind a point aside; have
        its words in another order; or differ by one letter that is missing, too many, another or exchanged with the next.
        """
        if name not in self._alike:
            looks: dict[str, list[str]] = {}
            for value in map(said, self.of(name)):
                for form in {alike(value), in_order(value)}:
                    looks.setdefault(form, []).append(value)
            self._alike[name] = looks
        forms = dict.fromkeys((alike(text), in_order(text), *one_letter_off(alike(text))))
        found = dict.fromkeys(value for form in forms for value in self._alike[name].get(form, ()))
        return [value for value in found if value != text][:most]


def samples(target: Target, ids: np.ndarray) -> Ids:
    """The rows that a target of kind ``samples`` names by their ids.

    Raises:
        InputError: unless it says ``ids`` in whole numbers.
    """
    return Ids.rows(np.intersect1d(numbers(target, "ids"), ids))


def user(target: Target, ids: np.ndarray, places: Places) -> Ids:
    """The rows whose columns hold all values that a target of kind ``user`` names; of a list, any of its values.

    Raises:
        InputError: for a column that the data do not have.
    """
    return Ids.rows(ids[_common(_hits_of(target, places))])


def people(columns: Mapping[str, np.ndarray]) -> dict[str, list[tuple[str, ...]]]:
    """Who stands in each row, by ``user`` and the name of the column; the texts that targets are compared with."""
    return {
        f"user {name}": [(cell,) if isinstance(cell, str) else cell for cell in cells(values, name)]
        for name, values in columns.items()
    }


def unmatched(
    target: Target, places: Places, labels: np.ndarray | None = None, names: Sequence[str] = ()
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
    found = _hits_of(target, places)
    common, lost = _common(found), []
    for name, hits in found.items():
        for value, positions in zip(target.values(name), hits, strict=True):
            few, many = sorted((positions, common), key=len)
            if not any(_holds(many, i) for i in few):
                others = places.near(said(value), name)
                hint = f" (there is {', '.join(map(repr, others))})" if others else ""
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


def _hits_of(target: Target, places: Places) -> dict[str, list[list[int]]]:
    """Of each column that ``target`` names, and each value that it names there: the positions of its rows, ascending."""
    found = {}
    for name in target.where:
        if name not in places.columns:
            known = ", ".join(places.columns) or "none"
            raise InputError(f"Expected a column that names the user; {name!r} is not one. Columns: {known}.")
        values = target.values(name)
        if odd := [value for value in values if isinstance(value, Mapping | list | tuple)]:
            raise InputError(f"Expected texts or numbers under {name!r} of a user target; got {odd[0]!r:.60}.")
        found[name] = [places.of(name).get(key, []) for key in _keys(places, name, values)]
    return found


def _common(found: Mapping[str, list[list[int]]]) -> list[int]:
    """Positions, ascending, that stand under some value of every column; a column that has most rows is not gone through."""
    fewest, *others = sorted(found.values(), key=lambda hits: sum(map(len, hits)))
    rows = sorted(set().union(*fewest))
    for hits in others:
        if len(hits) == 1:
            rows = [i for i in rows if _holds(hits[0], i)]
        else:
            rows = sorted(set(rows).intersection(set().union(*hits)))
    return rows


def _holds(positions: list[int], i: int) -> bool:
    """Whether ``i`` is among ascending ``positions``."""
    at = bisect_left(positions, i)
    return at < len(positions) and positions[at] == i


def _keys(places: Places, name: str, wanted: Sequence[Any]) -> list[Any]:
    """What each wanted value is called among the values of a column; numbers and their text forms are the same user."""
    if places.counts(name):
        return [_number(value) for value in wanted]  # None is no number that a column holds
    # 7.0 is what the column writes so, else 7
    return [
        value if isinstance(value, str) else str(value) if str(value) in places.of(name) else said(value)
        for value in wanted
    ]


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
