"""Language records as data: questions with answers, or plain texts, with persistent ids and columns that name subjects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.core.files import parse_json
from expunge.core.request import Kind, Target
from expunge.core.texts import Record, check_records
from expunge.core.trained import Fact
from expunge.data import selecting
from expunge.data.arrow import is_arrow, read_arrow
from expunge.data.chats import as_records
from expunge.data.csv_files import open_csv
from expunge.data.rows import ROWS_AS_GIVEN
from expunge.data.values import column, person

CONVERSATION = "conversation"  # the column that says which records come from one conversation


@dataclass(frozen=True, eq=False)
class Texts:
    """Records (see ``core.texts``) in a fixed order. Build it with :meth:`of`, which checks; slicing trusts.

    Attributes:
        records: each ``{"question", "answer", …}`` or ``{"text", …}``.
        ids: (n,) int64, unique; record 7 is record 7 however many went before it.
        columns: (n,) each, what names the subject of a record: an author, a document, a user.
        preprocessing: whether a record was prepared without looking at others, and who says so.
    """

    records: tuple[Record, ...]
    ids: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    preprocessing: Fact = ROWS_AS_GIVEN

    @classmethod
    def of(cls, records: Sequence[Any], columns: Mapping[str, Any] | None = None) -> Texts:
        """Check and wrap.

        Args:
            columns: what names the subjects of records; a record may name several as a list, and belongs to each of them.

        Raises:
            InputError: for records of neither form, empty ones, or columns of another length or that name nobody.
        """
        checked = tuple(check_records(records))
        arrays = {str(name): column(str(name), values, len(checked)) for name, values in (columns or {}).items()}
        return cls(checked, np.arange(len(checked), dtype=np.int64), arrays)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def digest(self) -> str:
        """Content digest of records and ids."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_json([[dict(record) for record in self.records], self.ids.tolist()])

    @cached_property
    def _places(self) -> selecting.Places:
        return selecting.Places(self.columns)

    def select(self, target: Target) -> Ids:
        """Ids that ``target`` names (kinds: samples, user, concept); a concept stands in a column as a user does."""
        if target.kind == Kind.SAMPLES:
            return selecting.samples(target, self.ids)
        if target.kind in (Kind.USER, Kind.CONCEPT):
            return selecting.user(target, self.ids, self._places)
        raise InputError(f"Texts can lose samples, users or concepts; a {target.kind} target has no meaning here.")

    def unmatched(self, target: Target) -> tuple[str, ...]:
        """Each value that ``target`` names and no record has, in words."""
        return selecting.unmatched(target, self._places)

    def named(self) -> dict[str, list[tuple[str, ...]]]:
        """What targets may call each record: the people in its columns."""
        return selecting.people(self.columns)

    def contents(self, at: Sequence[int] | None = None) -> list[str]:
        """A digest of each record's words, and of its picture where it has one."""
        keys, records = (
            ("question", "answer", "text", "image"),
            self.records if at is None else [self.records[i] for i in at],
        )
        return [digest_json({key: record[key] for key in keys if key in record}) for record in records]

    def at(self, positions: Any) -> Texts:
        """The records at ``positions``, in that order; a record may come more than once."""
        index = np.asarray(positions, dtype=np.int64).ravel()
        columns = {name: values[index] for name, values in self.columns.items()}
        return replace(self, records=tuple(self.records[i] for i in index), ids=self.ids[index], columns=columns)

    def without(self, ids: Ids) -> Texts:
        """The records that stay."""
        return self.at(np.flatnonzero(~np.isin(self.ids, ids["row"])))

    def only(self, ids: Ids) -> Texts:
        """The records that go."""
        return self.at(np.flatnonzero(np.isin(self.ids, ids["row"])))

    def conversations_in(self, ids: Ids | None = None) -> int | None:
        """Of how many conversations the records ``ids`` are, or all, by the column ``conversation``; ``None`` without one."""
        if (of := self.columns.get(CONVERSATION)) is None:
            return None
        return len(set((of if ids is None else of[np.isin(self.ids, ids["row"])]).tolist()))

    def touched(self, ids: Ids) -> Ids:
        """Independent records do not change when others go."""
        return Ids.none()

    def worded(self, records: Sequence[Record]) -> Texts:
        """The same ids and columns with other ``records``, one for each: what a request calls them, a paraphrase.

        Raises:
            InputError: for another number of records.
        """
        if len(records) != len(self):
            raise InputError(f"Expected {len(self)} records, one for each that is replaced; got {len(records)}.")
        return replace(self, records=tuple(check_records(records)))

    def first(self, count: int) -> Texts:
        """At most ``count`` records from the front."""
        return self.at(range(min(count, len(self))))


def read_records(path: Path, answer: bool = True, keys: Mapping[str, str] | None = None) -> list[Record]:
    """The records of a file, in any form that ``data.chats`` knows; see :func:`read_texts` on files.

    Args:
        answer: whether questions must have answers.
        keys: our names of keys → those of the file.

    Raises:
        InputError: with the number of the line; or for a file that is missing, empty or not UTF-8.
    """
    return [record for _, record in _numbered(path, answer, keys)]


def _numbered(path: Path, answer: bool, keys: Mapping[str, str] | None) -> list[tuple[int, Record]]:
    """Each record with the place in its file (from 0, blank lines not counted) of what it was made of."""
    found: list[tuple[int, Record]] = []
    for place, (where, value) in enumerate(objects_of(path)):
        found += [(place, record) for record in as_records(value, where, answer=answer, keys=keys)]
    return found


def objects_of(path: Path) -> Iterator[tuple[str, Any]]:
    """What stands on each line of JSON lines, or in each row of a table, and how messages call its place."""
    if path.suffix.lower() == ".csv":
        table = open_csv(path)
        columns = table.read(table.names).to_dict("list")
        for i in range(table.rows):
            yield f"row {i + 1} of {path.name}", {name: values[i] for name, values in columns.items()}
        return
    if is_arrow(path):
        for i, row in enumerate(read_arrow(path).to_dict("records"), 1):
            yield f"row {i} of {path.name}", {name: _as_json(value) for name, value in row.items()}
        return
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a JSONL file, one object on a line.")
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} cannot be read as text in UTF-8: {error}. Save it in UTF-8.") from None
    if not any(line.strip() for line in lines):
        raise InputError(f"{path.name} has no records: Expected one JSON object on a line, at least one; it is empty.")
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"line {number} of {path.name}"
            yield where, _object(line, where)


def _as_json(value: Any) -> Any:
    """A cell of a table of Arrow's as JSON has it: arrays are lists, and numbers Python's own."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def read_jsonl(path: Path, columns: Sequence[str] = (), keys: Mapping[str, str] | None = None) -> Texts:
    """Records from the JSON lines of the file ``path``; each of ``columns`` is a key that every record has.

    Under such a key stands a text, a number, or a list of them where a record is about several people: it belongs to each.
    Numbers are compared as texts without an empty fraction, since whoever writes ids with gaps makes 1 a 1.0.

    ``path`` may also be a CSV table, a Parquet file or a folder of ``datasets`` (extra ``arrow``) whose columns are the keys.
    Where one conversation makes several records, the column ``conversation`` says which they are of: its place in the file,
    from 0. Ids count records.

    Args:
        keys: our names (``question``, ``answer``, ``text``, ``messages``) → those of the file, where it has others.

    Raises:
        InputError: as :func:`read_records`, or for a record without a column's key, or with nobody under it.
    """
    numbered = _numbered(path, True, keys)
    records = [record for _, record in numbered]
    named: dict[str, Any] = {name: people_of(records, name, path.name) for name in columns}
    places = [place for place, _ in numbered]
    if len(set(places)) < len(places):
        named.setdefault(CONVERSATION, [str(place) for place in places])
    return Texts.of(records, named)


def left_out(whole: Texts, kept: Texts) -> Ids:
    """Ids of ``whole`` that ``kept`` has no more, for example because the context of a model does not hold their records.

    With the ids of a deletion (``left_out(whole, kept) & deletion.ids``) it says how much of what was asked for would be
    left out unseen.
    """
    return Ids.rows(np.setdiff1d(whole.ids, kept.ids))


def people_of(records: Sequence[Record], name: str, file: str) -> list[Any]:
    """Who or what stands under the key ``name`` of each record; ``file`` is for messages.

    Raises:
        InputError: for a record without the key, or with nobody under it.
    """
    found = []
    for number, record in enumerate(records, 1):
        if name not in record:
            raise InputError(
                f"Expected a key {name!r} in every record of {file}, as data.users says; record {number} has none."
            )
        found.append(person(record[name], f"{name!r} of record {number} of {file}"))
    return found


def _object(line: str, where: str) -> Any:
    if line.lstrip().startswith("[") and where.startswith("line 1 "):
        raise InputError(
            f"Expected one JSON object on a line; {where} begins a list. Write each object on its own line."
        )
    try:
        value = parse_json(line, where)
        if "\\u" in line:  # the only way to write half of a surrogate pair in what was UTF-8
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"Expected text on {where}; it holds half of a surrogate pair. Repair or drop it.") from None
    except InputError as error:
        problem = str(error).replace("line 1 column", "column")  # of its own line, not of the file
        raise InputError(f"{problem}. Expected one JSON object on each line: mend or drop this one.") from None
    return value
