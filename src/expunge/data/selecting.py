"""Which rows a target names: shared by every kind of data whose rows are independent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Target


def samples(target: Target, ids: np.ndarray) -> Ids:
    """The rows that a target of kind ``samples`` names by their ids.

    Raises:
        InputError: unless it says ``ids`` in whole numbers.
    """
    return Ids.rows(np.intersect1d(numbers(target, "ids"), ids))


def user(target: Target, ids: np.ndarray, columns: Mapping[str, np.ndarray]) -> Ids:
    """The rows whose columns hold all values that a target of kind ``user`` names.

    Raises:
        InputError: for a column that the data do not have.
    """
    mask = np.ones(len(ids), dtype=bool)
    for name, value in target.where.items():
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise InputError(f"Expected a column that names the user; {name!r} is not one. Columns: {known}.")
        mask &= _equal(columns[name], value)
    return Ids.rows(ids[mask])


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
        return found.astype(np.int64)
    except ValueError:
        raise InputError(
            f"A {target.kind} target says {key} in whole numbers; got {target.where[key]!r:.60}."
        ) from None


def _equal(values: np.ndarray, wanted: object) -> np.ndarray:
    """Where ``values`` equal ``wanted``; numbers and their text forms are the same user."""
    if values.dtype.kind in "iufb" and isinstance(wanted, int | float):
        return values == wanted
    return values.astype(str) == str(wanted)
