"""Tables and arrays from disk, read so that preparing one row never looks at another, or says that it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.core.trained import Fact, Origin
from expunge.data.rows import Rows

PREPARED_ROW_BY_ROW = Fact("fixed", Origin.ENFORCED, "read with declared ranges and categories only")
PREPARED_TOGETHER = Fact("fitted", Origin.ENFORCED, "means, spreads or the set of labels were taken from the rows")


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
        features: columns that the model sees; by default all others.
        scale: column → (low, high), mapped to [0, 1]. Declared, so that no row depends on another.
        categories: column → its values, one-hot in that order.
        classes: label values in order; integer labels need none.
        standardise: subtract means and divide by spreads of the first table's rows. Convenient, and it voids
            certificates: the statistics remember the removed rows (R2D spec 6.2).

    Raises:
        InputError: for a missing file or column, missing values, or values outside what was declared.
    """
    scale, categories = scale or {}, categories or {}
    as_text = [name for name in users if name not in (features or [])]
    tables = [_table(path, as_text) for path in paths]
    names = list(features) if features else [c for c in tables[0].columns if c != label and c not in users]
    wanted = list(dict.fromkeys([label, *users, *names, *scale, *categories]))
    if not names:
        raise InputError(f"{paths[0].name} has no column left for the model to see besides {', '.join(wanted)}.")
    for path, table in zip(paths, tables, strict=True):
        if absent := [name for name in wanted if name not in table.columns]:
            has = ", ".join(map(str, table.columns))
            raise InputError(f"{path.name} has no column {', '.join(absent)}; it has {has}.")
    for name in users:
        for path, table in zip(paths[:1], tables, strict=False):  # nobody asks to be forgotten from a test table
            _complete(
                table[name], name, path.name, "A row that belongs to nobody could not be found again: name its user"
            )
    fitted = classes is None and tables[0][label].dtype.kind not in "iubf"
    if fitted:
        _complete(tables[0][label], label, paths[0].name)
        classes = sorted(tables[0][label].unique())
    rows = []
    mean, spread = 0.0, 1.0
    for i, (path, table) in enumerate(zip(paths, tables, strict=True)):
        x = np.concatenate([_encoded(table[n], n, scale, categories, path.name) for n in names], 1).astype(np.float32)
        if standardise and i == 0:
            mean, spread = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1.0)
        columns = {name: table[name].to_numpy() for name in users}
        facts = PREPARED_TOGETHER if standardise or fitted else PREPARED_ROW_BY_ROW
        rows.append(
            Rows.of((x - mean) / spread, _labels(table[label], label, classes, path.name), columns, preprocessing=facts)
        )
    return rows


def _table(path: Path, as_text: Sequence[str]) -> Any:
    import pandas as pd

    if not path.is_file():
        raise InputError(f"There is no file {path}; give the path of a CSV table.")
    try:
        # users as text: "007" and "7" are two people
        table = pd.read_csv(path, dtype=dict.fromkeys(as_text, str))
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:  # UnicodeDecodeError is a ValueError
        raise InputError(f"{path.name} cannot be read as a CSV table: {error}.") from None
    if table.empty:
        raise InputError(f"{path.name} has no rows; give a table with at least one.")
    return table


def _complete(values: Any, name: str, file: str, advice: str = "Fill or drop them") -> None:
    if values.isna().any():
        first = int(np.flatnonzero(values.isna())[0])
        raise InputError(
            f"Column {name!r} of {file} has {int(values.isna().sum())} missing value(s) (NaN), the first in row {first}. "
            f"{advice}."
        )


def _encoded(values: Any, name: str, scale: Mapping, categories: Mapping, file: str) -> np.ndarray:
    """One column as floating-point columns, (n, 1) or one-hot (n, values)."""
    _complete(values, name, file)
    if name in categories:
        known = list(categories[name])
        codes = np.array([known.index(v) if v in known else -1 for v in values.tolist()])
        if (codes < 0).any():
            raise InputError(
                f"Column {name!r} of {file} holds {values[codes < 0].iloc[0]!r}, which is not in its categories."
            )
        return np.eye(len(known))[codes]
    if values.dtype.kind not in "iufb":
        raise InputError(
            f"Column {name!r} of {file} is text; list its values under categories, or leave it out of features."
        )
    numbers = values.to_numpy(dtype=np.float64)
    if name in scale:
        low, high = scale[name]
        if not low < high:
            raise InputError(f"Expected scale of {name!r} as [low, high] with low < high; got [{low}, {high}].")
        numbers = np.clip((numbers - low) / (high - low), 0.0, 1.0)
    return numbers[:, None]


def _labels(values: Any, name: str, classes: Sequence[Any] | None, file: str) -> np.ndarray:
    """Labels as positions in ``classes``, or as the numbers that they are."""
    _complete(values, name, file)
    if classes is None:
        return values.to_numpy().astype(np.float64)
    known = list(classes)
    codes = np.array([known.index(v) if v in known else -1 for v in values.tolist()], dtype=np.int64)
    if (codes < 0).any():
        raise InputError(
            f"Label {values[codes < 0].iloc[0]!r} of {file} is not among the classes {', '.join(map(str, known))}."
        )
    return codes


def read_arrays(path: Path) -> Rows:
    """``x``, ``y`` and user columns from an ``.npz`` (no pickled objects) or ``.safetensors`` file.

    Raises:
        InputError: for a missing file, a missing array, or arrays that would need unpickling.
    """
    from zipfile import BadZipFile

    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise InputError(f"There is no file {path}; give an .npz or .safetensors file with arrays x and y.")
    try:
        if path.suffix == ".safetensors":
            arrays = dict(load_file(path))
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            raise InputError(f"Expected an .npz or .safetensors file; got {path.name}.")
    except (ValueError, EOFError, BadZipFile, SafetensorError) as error:
        raise InputError(
            f"{path.name} is damaged or holds pickled objects, which are not read ({error}). Save plain arrays."
        ) from None
    if absent := {"x", "y"} - arrays.keys():
        raise InputError(f"{path.name} has no array {', '.join(sorted(absent))}; it has {', '.join(sorted(arrays))}.")
    users = {name: values for name, values in arrays.items() if name not in ("x", "y")}
    return Rows.of(arrays["x"], arrays["y"], users)
