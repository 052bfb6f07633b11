"""Parts of data drawn from a seed, class by class or at random; row ids stay what they were.

Drawn with NumPy's ``RandomState``, whose stream NumPy froze: a seed names the same rows on every machine and in every
later version.
"""

from __future__ import annotations

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.data.rows import Rows


def holdout_per_class(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """The rest, and ``share`` of each class held out (rounded to whole rows).

    One ``RandomState(seed)`` goes through the classes in the order of their labels and draws from each without
    replacement: the convention of the SalUn family of code (SalUn, Unlearn-Sparse, DualOptim). There, by default, a model
    was trained on the split of seed 1 and asked to forget on the split of seed 2, so that a tenth of the rows to be kept or
    forgotten had never been seen (our count: 4,488 of 45,000). Draw once, and hand the same rows to training and to forgetting.

    Raises:
        InputError: if ``share`` is not between 0 and 1, or would hold out nothing, or all rows of a class.
    """
    if not 0 < share < 1:
        raise InputError(f"Expected a share strictly between 0 and 1; got {share}.")
    labels = rows.y.cpu().numpy()
    sizes = {int(label): int(n) for label, n in zip(*np.unique(labels, return_counts=True), strict=True)}
    for label, size in sizes.items():
        if round(share * size) >= size:
            raise InputError(
                f"A share of {share:g} of the {size} row(s) of class {label} leaves none. Take a smaller share."
            )
    held = _drawn(labels, {label: round(share * size) for label, size in sizes.items()}, seed)
    if not len(held):
        raise InputError(
            f"A share of {share:g} comes to no row in any class; the largest has {max(sizes.values())}. Take a larger one."
        )
    ids = Ids.rows(rows.ids[held])
    return rows.without(ids), rows.only(ids)


def subset(rows: Rows, *, count: int | None = None, per_class: int | None = None, seed: int = 0) -> Rows:
    """``count`` rows in all, or ``per_class`` rows of each class, drawn from ``seed``; in their old order, with their ids.

    Raises:
        InputError: unless exactly one number is given, it is at least 1, and there are so many rows.
    """
    if (count is None) == (per_class is None):
        raise InputError("Expected either a count of rows or a number per class; got both or neither.")
    return rows.only(Ids.rows(rows.ids[positions(rows.y.cpu().numpy(), count=count, per_class=per_class, seed=seed)]))


def positions(
    labels: np.ndarray, *, count: int | None = None, per_class: int | None = None, seed: int = 0
) -> np.ndarray:
    """Where a subset lies, ascending; all positions where no number is given. Readers call it before they make floats.

    Raises:
        InputError: as :func:`subset`.
    """
    if count is not None and per_class is not None:
        raise InputError(f"Expected a limit or a number per class; got both ({count} and {per_class}).")
    if count is not None:
        if not 1 <= count <= len(labels):
            raise InputError(f"Expected a number of rows from 1 to {len(labels)}; got {count}.")
        return np.sort(np.random.RandomState(seed).choice(len(labels), count, replace=False))
    if per_class is not None:
        found, sizes = np.unique(labels, return_counts=True)
        if not 1 <= per_class <= sizes.min():
            smallest = int(found[sizes.argmin()])
            raise InputError(
                f"Expected a number of rows per class from 1 to {sizes.min()}, the size of class {smallest}; got {per_class}."
            )
        return _drawn(labels, {int(label): per_class for label in found}, seed)
    return np.arange(len(labels))


def _drawn(labels: np.ndarray, wanted: dict[int, int], seed: int) -> np.ndarray:
    """Positions of ``wanted[label]`` rows of each class, ascending; one stream through the classes in order."""
    stream = np.random.RandomState(seed)
    drawn = [
        stream.choice(np.flatnonzero(labels == label), number, replace=False)
        for label, number in sorted(wanted.items())
    ]
    return np.sort(np.concatenate(drawn))
