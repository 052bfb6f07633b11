"""Tables from disk, read so that preparing one row never looks at another, or says that it did."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.core.errors import InputError
from expunge.data.arrays import read_arrays as read_arrays
from expunge.data.csv_files import CsvFile, open_csv
from expunge.data.declared import distinct, one_number_one_text, positions_in, positions_of, written
from expunge.data.rows import Rows, by_reader

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")  # nobody reads it in another way
_LOG = logging.getLogger(__name__)
PREPARED_ROW_BY_ROW = by_reader("fixed", "read with declared ranges and categories only")
PREPARED_TOGETHER = by_reader("fitted", "means, spreads or the set of labels were taken from the rows")


def read_csv(
    paths: Sequence[Path], *, label: str, users: Sequence[str] = (), features: Sequence[str] | None = None,
    scale: Mapping[str, tuple[float, float]] | None = None, categories: Mapping[str, Sequence[Any]] | None = None,
    classes: Sequence[Any] | None = None, standardise: bool = False,
) -> list[Rows]:  # fmt: skip
    """Tables with one row a record, all read alike; what has to be learnt from rows is learnt from the first table.

    Args:
        paths: the training table, then others to be measured on.
        label: column of the class. users: columns that name people, compared as text exactly as the file writes them;
            never features unless listed.
        features: columns that the model sees; by default all others. A first column without a name that counts the rows
            from 0, as pandas writes it, is left out and noted.
        scale: column → (low, high), mapped to [0, 1]. Declared, so that no row depends on another.
        categories: column → its values, one-hot in that order. Texts are compared with what the file writes (``01`` and
            ``1`` are two), numbers as numbers.
        classes: label values in order, compared as categories are; integer labels need none.
        standardise: subtract means and divide by spreads of the first table's rows. Convenient, and it voids
            certificates: the statistics remember the removed rows.

    Raises:
        InputError: for a missing file or column, missing values, values outside what was declared, or a table that
            cannot be read with certainty (see ``data.csv_files``).
    """
    scale, categories = scale or {}, categories or {}
    tables = [open_csv(path) for path in paths]
    names, left_out = (list(features), ()) if features else _seen(tables[0], [label, *users])
    wanted = list(dict.fromkeys([label, *users, *names, *scale, *categories]))
    if not names:
        raise InputError(f"{tables[0].name} has no column left for the model to see besides {', '.join(wanted)}.")
    for table in tables:
        if absent := [name for name in wanted if name not in table.names]:
            raise InputError(f"{table.name} has no column {', '.join(absent)}; it has {', '.join(table.names)}.")
    if classes is not None:
        distinct(classes, "classes")
    known, fitted = classes, False
    plain = [name for name in names if name not in categories]
    rows = []
    mean, spread = 0.0, 1.0
    for i, table in enumerate(tables):
        written_as = list(dict.fromkeys([*users, *(name for name in names if name in categories), label]))
        # a column that is both a number to the model and a text beside it is read in each of the two ways
        both = [name for name in plain if name in written_as]
        texts = table.read(written_as, [name for name in plain if name not in both])
        again = table.read((), both) if both else {}
        numbers = None if known is not None else _as_numbers(table, texts[label], label)
        if i == 0 and classes is None:
            known = _classes(table, texts[label], numbers, label)
            fitted = known is not None
        widths = [len(categories[name]) if name in categories else 1 for name in names]
        x = np.zeros((sum(widths), table.rows), dtype=np.float32)  # column after column, and turned at the end
        at = 0
        for name in names:
            if name in categories:
                places = positions_of(texts[name], name, categories[name], table.name)
                x[at + places, np.arange(table.rows)] = 1
                at += len(categories[name])
            else:
                x[at] = _numbers((again if name in both else texts)[name], name, scale, table.name)
                at += 1
        x = torch.from_numpy(x).t().contiguous().numpy()
        if standardise and i == 0:
            mean, spread = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1.0)
        if i == 0:  # nobody asks to be forgotten from a test table
            for name in users:
                _complete_texts(texts[name], name, table.name, _NOBODY)
        columns = {name: np.array(texts[name].tolist(), dtype=object) for name in users}
        facts = PREPARED_TOGETHER if standardise or fitted else PREPARED_ROW_BY_ROW
        if left_out:
            facts = replace(facts, note=f"{facts.note}; column 1, which has no name and counts the rows, was left out")
        if known is None:
            _complete(numbers, label, table.name, "Fill or drop them; if it is the name of a class, declare classes")
            labels, called = numbers.to_numpy().astype(np.float64), ()
        else:
            _complete_texts(texts[label], label, table.name)
            labels, called = (
                positions_in(known, texts[label], f"Label {{}} of {table.name} is not among the classes"),
                known,
            )
        rows.append(
            Rows.of(
                (x - mean) / spread if standardise else x,
                labels,
                columns,
                preprocessing=facts,
                names=tuple(map(written, called)),
            )
        )
    return rows


_NOBODY = "A row that belongs to nobody could not be found again: name its user"


def _seen(table: CsvFile, others: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The columns that a model sees where the caller lists none; row numbers without a name are left out.

    Raises:
        InputError: for another column without a name: nobody can tell what it is.
    """
    left_out = table.unnamed[:1] if table.counted and table.unnamed[:1] == table.names[:1] else ()
    if odd := [name for name in table.unnamed if name not in left_out]:
        raise InputError(
            f"Column {table.names.index(odd[0]) + 1} of {table.name} has no name, and the model would see it. Name it, take it "
            "out (pandas writes one with to_csv(); to_csv(index=False) does not), or list features."
        )
    if left_out:
        _LOG.warning("Column 1 of %s has no name and counts the rows: it is left out.", table.name)
    return [name for name in table.names if name not in (*others, *left_out)], left_out


def _classes(table: CsvFile, texts: Any, numbers: Any, label: str) -> Sequence[Any] | None:
    """What labels are positions in, learnt from the rows; ``None``: they are numbers themselves."""
    if numbers.dtype.kind in "iubf":
        one_number_one_text(texts.unique().tolist(), f"Label {{}} and {{}} of {table.name}", "Declare classes as texts")
        return None
    _complete_texts(texts, label, table.name)
    return sorted(texts.unique().tolist())


def _as_numbers(table: CsvFile, texts: Any, name: str) -> Any:
    """A column of which the texts are at hand as ``CsvFile.read`` makes numbers of it: whole numbers need no second pass."""
    distinct_texts = texts.unique().tolist()
    if all(_WHOLE.fullmatch(text) for text in distinct_texts):
        place = {text: int(text) for text in distinct_texts}
        return type(texts)(np.fromiter(map(place.__getitem__, texts.tolist()), np.int64, len(texts)))
    return table.read((), [name])[name]


def _complete(values: Any, name: str, file: str, advice: str = "Fill or drop them") -> None:
    if values.isna().any():
        first = int(np.flatnonzero(values.isna())[0])
        raise InputError(
            f"Column {name!r} of {file} has {int(values.isna().sum())} missing value(s) (NaN), the first in row {first}. "
            f"{advice}."
        )


def _complete_texts(values: Any, name: str, file: str, advice: str = "Fill or drop them") -> None:
    if any(not text.strip() for text in values.unique().tolist()):
        empty = values.str.strip() == ""
        raise InputError(
            f"Column {name!r} of {file} has {int(empty.sum())} missing value(s) (nothing is written), the first in row "
            f"{int(np.flatnonzero(empty)[0])}. {advice}."
        )


def _numbers(values: Any, name: str, scale: Mapping, file: str) -> np.ndarray:
    """One column as numbers, (n,)."""
    _complete(values, name, file)
    if values.dtype.kind not in "iufb":
        raise InputError(
            f"Column {name!r} of {file} is text; list its values under categories, or leave it out of features."
        )
    numbers = values.to_numpy(dtype=np.float64)
    if name in scale:
        low, high = scale[name]
        if not (low < high and math.isfinite(high - low)):
            raise InputError(f"Expected scale of {name!r} as [low, high] with low < high; got [{low}, {high}].")
        numbers = np.clip((numbers - low) / (high - low), 0.0, 1.0)
    return numbers
