"""CSV tables whose columns stand where their header says: each row has as many fields, and each column a name of its own."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from expunge.core.errors import InputError
from expunge.data.bounds import PACKED, unpacked

MISSING = ("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "NULL", "null", "None", "NaN", "nan", "-NaN", "-nan", "#N/A N/A",
           "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")  # fmt: skip  # of numbers; in texts only the empty one is missing
_UNNAMED = re.compile(r"\s*|Unnamed: [0-9]+")  # what pandas calls a column without a name when it writes it again
_LONGEST = 2**31 - 1  # of a field
_CHUNK = 2**24  # bytes that are looked through at a time
_NEWLINE, _COMMA = b"\n,"


@dataclass(frozen=True)
class CsvFile:
    """A table whose shape was checked; columns are read by what they are: texts, or numbers.

    Attributes:
        name: of the file, for messages.
        names: of the columns in order; a column without a name is called ``Unnamed: 0`` by its place.
        unnamed: names of the columns that have none.
        counted: whether the first column counts the rows from 0.
        rows: how many there are.
    """

    name: str
    names: tuple[str, ...]
    unnamed: tuple[str, ...]
    counted: bool
    rows: int
    _content: Path | bytes = field(repr=False)

    def read(self, texts: Sequence[str], numbers: Sequence[str] = ()) -> Any:
        """Columns, in one pass through the file.

        Args:
            texts: columns exactly as the file writes them; ``NA`` is a text, and an empty field an empty one.
            numbers: columns as pandas understands them: numbers where all are, missing ones as NaN.
        """
        import pandas as pd

        columns = [*texts, *numbers]
        how = {"dtype": dict.fromkeys(texts, str), "keep_default_na": False}
        how |= {"na_values": {name: list(MISSING) for name in numbers}} if numbers else {"na_filter": False}

        source = io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content
        try:
            found = pd.read_csv(
                source, header=0, names=list(self.names), usecols=list(dict.fromkeys(columns)), index_col=False,
                compression=None, low_memory=False, **how,
            )  # fmt: skip
        except (ValueError, OverflowError, pd.errors.ParserError) as error:  # UnicodeDecodeError is a ValueError
            raise InputError(f"{self.name} cannot be read as a CSV table: {error}.") from None
        if len(found) != self.rows:
            raise InputError(
                f"{self.name} cannot be read as a CSV table with certainty: two ways to read it find {self.rows} and "
                f"{len(found)} rows. Look for stray quotation marks, and save it anew."
            )
        return found

    @contextmanager
    def fields(self) -> Iterator[Iterator[list[str]]]:
        """The header and then each row, as the texts of its fields; blank lines are no rows."""
        with _lines(self._content) as stream:
            yield _filled(csv.reader(stream))


def open_csv(path: Path) -> CsvFile:
    """A table with its header, looked through once; what has to be guessed is refused.

    Raises:
        InputError: for a missing or empty file, one that is not UTF-8, or rows with more or fewer fields than the header
            has names (pandas would shift their columns by one); for a name that comes twice.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give the path of a CSV table.")
    if path.suffix.lower() in (".tar", ".zst"):
        raise InputError(f"{path.name} is an archive that is not read. Unpack it, or pack the table with gzip.")
    content = unpacked(path) if path.suffix.lower() in PACKED else path
    try:
        try:
            found = _without_quotes(content, path.name) or _looked_through(content, path.name, strict=True)
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise
            found = _looked_through(content, path.name, strict=False)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read as a CSV table: {error}. Save it as CSV in UTF-8.") from None
    if not found.rows:
        raise InputError(f"{path.name} has no rows; give a table with at least one.")
    return found


def _looked_through(content: Path | bytes, name: str, strict: bool) -> CsvFile:
    with _lines(content) as stream:
        rows = _filled(csv.reader(stream, strict=strict))
        header = next(rows, None)
        if header is None:
            raise InputError(f"{name} cannot be read as a CSV table: it is empty.")
        names, unnamed = _names(header, name)
        count, counted = 0, True
        for count, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise InputError(
                    f"Expected {len(header)} fields in each row of {name}, as its header has; row {count} has {len(row)}, and "
                    "nobody can tell which column is which. Quote fields that hold a comma, and fill up short rows."
                )
            counted = counted and row[0] == str(count - 1)
    return CsvFile(name, names, unnamed, counted, count, content)


def _without_quotes(content: Path | bytes, name: str) -> CsvFile | None:
    """The same for a table that quotes nothing, whose every line is a row of as many fields; ``None`` for any other.

    Commas are counted many lines at a time, where the ``csv`` module makes a text of each field.
    """
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
        first = stream.readline()
        if first.startswith(codecs.BOM_UTF8):
            first = first[len(codecs.BOM_UTF8) :]
        fields, rows = first.count(b",") + 1, 0
        if fields == 1 or not _plain(first):
            return None
        names, unnamed = _names(first.decode().rstrip("\r\n").split(","), name)
        if unnamed:  # the slower way also looks whether the first column counts the rows
            return None
        while lines := stream.read(_CHUNK) + stream.readline():
            if not _plain(lines):
                return None
            array = np.frombuffer(lines if lines.endswith(b"\n") else lines + b"\n", dtype=np.uint8)
            ends = array[np.flatnonzero((array == _COMMA) | (array == _NEWLINE))] == _NEWLINE  # of fields, in order
            if len(ends) % fields or not ends[fields - 1 :: fields].all() or ends.sum() * fields != len(ends):
                return None
            rows += len(ends) // fields
    return CsvFile(name, names, unnamed, False, rows, content) if rows else None


def _plain(lines: bytes) -> bool:
    """Whether lines hold nothing that two ways to read them could take differently."""
    try:
        lines.decode()
    except UnicodeDecodeError:
        return False
    return not (b'"' in lines or b"\0" in lines or (b"\r" in lines and lines.count(b"\r") != lines.count(b"\r\n")))


def _names(header: Sequence[str], name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if twice := [each for each, count in Counter(header).items() if count > 1 and each.strip()]:
        raise InputError(f"The header of {name} names column {twice[0]!r} twice. Give each column a name of its own.")
    unnamed = [i for i, each in enumerate(header) if _UNNAMED.fullmatch(each)]
    names = [f"Unnamed: {i}" if i in unnamed else each for i, each in enumerate(header)]
    return tuple(names), tuple(names[i] for i in unnamed)


def _filled(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Without blank lines, which pandas does not count either."""
    return (row for row in rows if len(row) > 1 or (row and row[0].strip()))


@contextmanager
def _lines(content: Path | bytes) -> Iterator[TextIO]:
    before = csv.field_size_limit(_LONGEST)
    raw = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
    try:
        with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as stream:
            yield stream
    finally:
        csv.field_size_limit(before)
