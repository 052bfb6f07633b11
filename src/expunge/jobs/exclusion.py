"""Never again: who was forgotten stays out of the next training, also where expunge is not what trains.

A ledger's marks recognise people, classes and single examples in any data (``data.marks``). Here they are looked for in
tables, JSON lines and image folders, and in whatever a training script has in memory.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.files import parse_json
from expunge.core.keys import subject_key
from expunge.core.texts import check_record
from expunge.data.arrow import PARQUET, is_arrow, read_arrow, write_parquet
from expunge.data.csv_files import open_csv
from expunge.data.image_files import content_of
from expunge.data.images import columns_of, images_below
from expunge.data.marks import recogniser_of
from expunge.data.selecting import people
from expunge.data.texts import Texts
from expunge.data.values import column, person, said
from expunge.ledger import Ledger
from expunge.requests_book import RequestBook

VARIABLE = "EXPUNGE_LEDGER"
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Excluded:
    """What a ledger's marks find in data.

    Attributes:
        mask: (n,) bool, True for examples that must not be learnt again.
        requests: those behind them.
        elsewhere: granted requests of which nothing was found: they are about other data, or name people by other columns, or
            single examples, which only data in the same form show.
    """

    mask: np.ndarray
    requests: tuple[str, ...]
    elsewhere: tuple[str, ...]


def excluded(frame: Any, *users: str, label: str | None = None, ledger: Paths | None = None) -> np.ndarray:
    """Which rows of ``frame`` belong to somebody for whom a deletion was granted.

    ``frame[~expunge.excluded(frame, "patient")]`` is what may be learnt.

    Args:
        frame: anything with columns by name: a pandas frame, a mapping of arrays or lists, a dataset of ``datasets``.
        users: columns that name people, as the jobs on the ledger call them (``data.users``). Values are compared as texts:
            read ids with zeros in front as text.
        label: the column with the class, where a class may have been forgotten.
        ledger: the ledger, or several; by default the file that the environment variable ``EXPUNGE_LEDGER`` names.

    Returns:
        (n,) bool, True for what must stay out of training.

    Raises:
        InputError: for a column that is not there, a row that names nobody, or a ledger that cannot be used.

    Formal guarantee: none; it finds what is named as the ledger's jobs named it.
    """
    if not users and label is None:
        raise InputError("Expected a column that names people, for example excluded(frame, 'patient'); none was given.")
    columns = {name: _values(frame, name) for name in (*users, *([] if label is None else [label]))}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise InputError(f"Expected columns of one length; got {', '.join(map(str, sorted(lengths)))}.")
    return _found(_named(columns, users, label), lengths.pop(), ledger).mask


def exclude(
    source: Path, out: Path, *, users: Sequence[str] = (), label: str | None = None, ledger: Paths | None = None
) -> dict[str, Any]:
    """Write ``source`` to ``out`` without everybody for whom a deletion was granted.

    Args:
        source: a CSV table, a Parquet file or a folder of ``datasets`` (``out`` is then Parquet), JSON lines, or a folder of
            images, which is copied.
        users: columns or keys that name people; of images, one regular expression with named groups over each path. Images that
            a request for single images or for a person matched are recognised without it, by the bytes of their files.
        label: the column with the class. Of images the class is the folder.
        ledger: see :func:`excluded`.

    Returns:
        ``examples``, ``excluded`` and ``kept``, how many; the ``requests`` behind them; and ``elsewhere``, granted requests of
        which nothing was found here.

    Raises:
        InputError: as :func:`excluded`; for another kind of file, an ``out`` that exists, or where nothing would be kept.
    """
    if out.exists():
        raise InputError(f"{out} is there already; name a new file or folder: nothing is written over.")
    kind = _images if source.is_dir() and not is_arrow(source) else _KINDS.get(_ending(source))
    if kind is None and not is_arrow(source):
        raise InputError(f"Expected .csv, {PARQUET}, .jsonl or a folder of images; got {source.name}.")
    if not source.exists():
        raise InputError(f"There is no file or folder {source}.")
    named, contents, write = (kind or _arrow)(source, users, label)
    count = len(next(iter(named.values()))) if named else len(contents())
    found = _found(named, count, ledger, contents)
    kept = np.flatnonzero(~found.mask)
    if not len(kept):
        raise InputError(
            f"All {count} examples of {source.name} are excluded: nothing would be kept, and nothing was written."
        )
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        write(part, kept)
        part.rename(out)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
    return {
        "source": str(source), "out": str(out), "examples": count, "excluded": count - len(kept), "kept": len(kept),
        "requests": list(found.requests), "elsewhere": list(found.elsewhere),
    }  # fmt: skip


Named = Mapping[str, Sequence[Sequence[str]]]
Contents = Callable[[], Sequence[str]]
Reading = tuple[Named, Contents, Callable[[Path, np.ndarray], None]]  # names, contents, how what is kept is written


def _found(named: Named, count: int, ledger: Paths | None, contents: Contents = tuple) -> Excluded:
    """What the marks of the ledgers recognise among ``count`` examples."""
    ids = np.arange(count)
    find = recogniser_of(ids, lambda: named, contents, subject_key())
    by: dict[str, Ids] = {}
    for path in _ledgers(ledger):
        with Ledger(path) as opened:
            for item in RequestBook(opened).granted({}):
                by[item.request] = by.get(item.request, Ids.none()) | find(item.marks)
    mask = np.isin(ids, Ids.union(by.values())["row"])
    here = tuple(request for request, found in by.items() if len(found))
    return Excluded(mask, here, tuple(request for request in by if request not in here))


def _ledgers(given: Paths | None) -> list[Path]:
    if given is None:
        if not (name := os.environ.get(VARIABLE)):
            raise InputError(f"Expected a ledger (ledger=…), or the environment variable {VARIABLE} with its path.")
        given = name
    paths = [Path(path) for path in ([given] if isinstance(given, str | Path) else given)]
    if absent := [path for path in paths if not path.is_file()]:
        raise InputError(f"There is no ledger {absent[0]}: without it nobody can be recognised, and all would be kept.")
    return paths


def _values(frame: Any, name: str) -> Any:
    """One column of ``frame``."""
    try:
        values = frame[name]
    except (KeyError, IndexError, TypeError, ValueError):
        known = getattr(frame, "columns", None)
        known = (
            getattr(frame, "column_names", frame.keys() if isinstance(frame, Mapping) else ())
            if known is None
            else known
        )
        raise InputError(f"Expected a column {name!r}; there are {', '.join(map(str, known)) or 'none'}.") from None
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    return [list(item) if isinstance(item, np.ndarray | tuple) else item for item in values]


def _named(columns: Mapping[str, Sequence[Any]], users: Iterable[str], label: str | None) -> Named:
    """What targets may call each example."""
    named = people({name: column(name, columns[name], len(columns[name])) for name in users})
    return named if label is None else {**named, "class": [(said(value),) for value in columns[label]]}


def _ending(path: Path) -> str:
    return path.suffix.lower() or path.name


def _csv(source: Path, users: Sequence[str], label: str | None) -> Reading:
    table = open_csv(source)
    wanted: list[str] = list(dict.fromkeys([*users, *(() if label is None else (label,))]))
    if absent := [name for name in wanted if name not in table.names]:
        raise InputError(f"{table.name} has no column {', '.join(absent)}; it has {', '.join(table.names)}.")
    if not wanted:
        raise InputError("Name the columns that name people (--users), or the column of the class (--label).")
    texts = table.read(wanted)
    for name in users:
        if (empty := texts[name].str.strip() == "").any():
            raise InputError(f"Column {name!r} of {table.name} names nobody in row {int(np.flatnonzero(empty)[0])}.")

    def write(out: Path, kept: np.ndarray) -> None:
        stays = np.zeros(table.rows, dtype=bool)
        stays[kept] = True
        with table.fields() as rows, out.open("w", encoding="utf-8", newline="") as target:
            writer = csv.writer(target, lineterminator="\n")
            writer.writerow(next(rows))
            writer.writerows(row for row, stay in zip(rows, stays, strict=True) if stay)

    return _named({name: texts[name].tolist() for name in wanted}, users, label), tuple, write


def _arrow(source: Path, users: Sequence[str], label: str | None) -> Reading:
    frame = read_arrow(source)
    wanted = [*users, *([] if label is None else [label])]
    if not wanted:
        raise InputError("Name the columns that name people (--users), or the column of the class (--label).")
    named = _named({name: _values(frame, name) for name in wanted}, users, label)
    return named, tuple, lambda out, kept: write_parquet(frame.iloc[kept], out)


def _jsonl(source: Path, users: Sequence[str], label: str | None) -> Reading:
    try:
        lines = [line for line in source.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{source.name} cannot be read as text in UTF-8: {error}.") from None
    records = [parse_json(line, f"record {i} of {source.name}") for i, line in enumerate(lines, 1)]
    if not records or not all(isinstance(record, dict) for record in records):
        raise InputError(f"Expected one JSON object on each line of {source.name}, at least one.")
    columns: dict[str, list[Any]] = {}
    for name in [*users, *([] if label is None else [label])]:
        if absent := next((i for i, record in enumerate(records, 1) if name not in record), None):
            raise InputError(f"Expected a key {name!r} in every record of {source.name}; record {absent} has none.")
        columns[name] = [person(each[name], f"{name!r} of record {i}") for i, each in enumerate(records, 1)]

    def write(out: Path, kept: np.ndarray) -> None:
        out.write_text("".join(lines[i] + "\n" for i in kept), encoding="utf-8")

    return _named(columns, users, label), lambda: [_content(record, i) for i, record in enumerate(records, 1)], write


def _content(record: Any, number: int) -> str:
    """What single records are recognised by; empty for one in another form than language jobs read."""
    try:
        return Texts.of([check_record(record, f"record {number}")]).contents()[0]
    except InputError:
        return ""


def _images(source: Path, users: Sequence[str], label: str | None) -> Reading:
    if label is not None or len(users) > 1:
        raise InputError(
            "Of a folder of images the class is the folder, and users are one regular expression "
            "over each path, or one table of paths and users."
        )
    names = images_below(source)
    if not names:
        raise InputError(f"There is no image below {source}.")
    columns = {
        name: list(values) for name, values in (columns_of(_image_users(users[0]), names) if users else {}).items()
    }
    named = {**_named(columns, columns, None), "class": [(name.rpartition("/")[0],) for name in names]}

    def write(out: Path, kept: np.ndarray) -> None:
        for i in kept:
            place = out / names[i]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / names[i], place)

    return named, lambda: [content_of(source / name) for name in names], write


def _image_users(text: str) -> str | Path:
    """A regular expression, or the table that says whose each path is."""
    return Path(text) if text.lower().endswith(".csv") and Path(text).is_file() else text


_KINDS: Mapping[str, Callable[[Path, Sequence[str], str | None], Reading]] = {
    ".csv": _csv, ".gz": _csv, ".bz2": _csv, ".xz": _csv, ".zip": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl,
}  # fmt: skip
