"""The ledger of requests: one SQLite file, append-only, hash-chained, whole after any crash.

Every entry is sealed in two steps: a salted digest of its payload, then a digest of the header that carries it. The
chain links these digests, so that an excerpt shows some entries in full and of all others only a digest, which nobody
can test guesses against without the salt. Personal data never enters: payloads carry keyed hashes.

What the chain does not show: who owns the file can write all of it anew, or cut off its end. Hand out or sign the head
(or an excerpt), and `Ledger.extends` finds either.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expunge.core.chain import GENESIS, link, verify_chain
from expunge.core.digest import canonical_json, digest_bytes, digest_json
from expunge.core.errors import InputError, TamperedError

EXCERPT_FORMAT = "expunge/ledger-excerpt/1"
_APPLICATION = 0x45585047  # "EXPG" in the file's header
_VERSION = 1
_WAIT = 30.0  # seconds for which a writer waits for another one
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,199}")  # no blanks, no @: keys are ids, not names of people
_SALT = re.compile(r"[0-9a-f]{32}")
_COLUMNS = "sequence, kind, key, time, salt, payload, previous, hash"

_REFUSE = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
_SCHEMA = {
    "entries": """CREATE TABLE entries (
        sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, time TEXT NOT NULL, salt TEXT NOT NULL,
        payload TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (kind, key)) STRICT""",
    "no_update": f"CREATE TRIGGER no_update BEFORE UPDATE ON entries {_REFUSE}",
    "no_delete": f"CREATE TRIGGER no_delete BEFORE DELETE ON entries {_REFUSE}",
    # INSERT OR REPLACE deletes without asking the trigger above: only the next entry may come in
    "no_insert_between": f"""CREATE TRIGGER no_insert_between BEFORE INSERT ON entries
        WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM entries)
          OR NEW.previous IS NOT coalesce((SELECT hash FROM entries ORDER BY sequence DESC LIMIT 1), '{GENESIS}')
          OR EXISTS (SELECT 1 FROM entries WHERE kind = NEW.kind AND key = NEW.key) {_REFUSE}""",
}


@dataclass(frozen=True)
class Entry:
    """One entry. ``time`` is UTC (ISO 8601); ``salt`` hides the payload from who knows only the entry's digest."""

    sequence: int
    kind: str
    key: str
    time: str
    salt: str
    payload: dict[str, Any]
    previous: str
    hash: str

    def record(self) -> dict[str, Any]:
        """The entry as JSON-like values, as an excerpt shows it."""
        return asdict(self)


class Ledger:
    """An open ledger file; a context manager. All of it is verified when it is opened.

    Args:
        path: the SQLite file.
        create: make the file (private to its owner) where there is none; an existing ledger is opened as it is.

    Raises:
        InputError: if there is no ledger at ``path`` (missing, a folder, no SQLite file, the file of another program),
            or another process holds it for longer than half a minute.
        TamperedError: if an entry, the chain, or the guards against changes were altered.

    Guarantee: an entry that `append` returned survives SIGKILL and power cuts (rollback journal and
    ``synchronous=EXTRA``); one that it did not return is there entirely or not at all. Any number of processes may
    append.
    """

    def __init__(self, path: Path, create: bool = False):
        self.path = Path(path)
        if sqlite3.sqlite_version_info < (3, 37):
            raise InputError(f"the ledger needs SQLite 3.37 or newer, Python brings {sqlite3.sqlite_version}")
        self._find_file(create)
        with self._in_words():
            self._db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=_WAIT, isolation_level=None
            )
        try:
            with self._in_words():
                self._prepare(create)
            self.verify()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a transaction that is open is rolled back."""
        self._db.close()

    def append(self, kind: str, key: str, payload: Mapping[str, Any], time: datetime | str | None = None) -> Entry:
        """Append an entry and return it; a repetition with equal payload returns the old entry and writes nothing.

        Args:
            kind: what the entry is, for example ``release``; with ``key`` it names the entry.
            key: for example the id of a request.
            payload: JSON-like. Must not hold personal data: it cannot be taken back.
            time: when it happened, with a UTC offset; now where ``None``. A repetition keeps the first time.

        Raises:
            InputError: if kind, key, payload or time cannot be written, or kind and key are taken by another payload.
        """
        if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
            raise InputError(f"kind and key must be plain ids without blanks, got {kind!r} and {key!r}")
        text, moment, salt = canonical_payload(payload), _utc(time), secrets.token_hex(16)
        with self.transaction():
            for old in self._select("kind = ? AND key = ?", (kind, key)):
                if canonical_payload(old.payload) == text:
                    return old
                raise InputError(
                    f"{kind} {key!r} is in the ledger since {old.time} with another content, and the ledger is "
                    "append-only; record the change as a new entry under another key"
                )
            length, previous = self.head()
            head = link(previous, _sealed(length + 1, kind, key, moment, salt, text))
            row = (length + 1, kind, key, moment, salt, text.decode(), previous, head)
            self._db.execute(f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            return _entry(row)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep other writers out: what is read inside is still true when something is appended. May be nested.

        Raises:
            InputError: if another process keeps the ledger busy, or the file cannot be written.
        """
        if self._db.in_transaction:
            yield
            return
        with self._in_words():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def entries(self, kind: str | None = None, prefix: str = "") -> list[Entry]:
        """Entries in order: all, or those of one ``kind``, or those whose key begins with ``prefix``."""
        condition = "(?1 IS NULL OR kind = ?1) AND substr(key, 1, length(?2)) = ?2"
        with self._in_words():
            return self._select(condition, (kind, prefix))

    def head(self) -> tuple[int, str]:
        """Number of entries and hash of the last one: with it, a reader finds later that the ledger was rewritten."""
        with self._in_words():
            row = self._db.execute("SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()
        return row or (0, GENESIS)

    def verify(self) -> None:
        """Check every entry, the chain, and that the guards against changes are in place.

        Raises:
            TamperedError: naming the first entry that breaks, or the guard that is missing.
        """
        with self._in_words(), closing(self._db.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY sequence")) as rows:
            self._named(verify_chain, (_chained(row) for row in rows))
        with self._in_words():
            found = dict(self._db.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"))
        for name in sorted(_SCHEMA.keys() | found.keys()):
            if found.get(name) != _SCHEMA.get(name):
                raise TamperedError(f"the ledger {self.path}: {name!r}, part of its structure, was changed or removed")

    def excerpt(self, keys: Iterable[str]) -> dict[str, Any]:
        """The ledger as one may hand it out: entries of ``keys`` in full, of all others only a digest.

        An entry belongs to a key if its own key is equal to it or continues it after a slash.

        Raises:
            InputError: if a key has no entry.

        Guarantee: `verify_excerpt` finds any change. Of a hidden entry the reader learns only that there is one; an
        excerpt therefore cannot show that *all* entries of a key are in it.
        """
        if isinstance(keys, str):
            raise InputError(f"keys must be a collection of keys, got the text {keys!r}")
        wanted, seen, shown = set(keys), set(), []
        with self._in_words(), closing(self._db.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY sequence")) as rows:
            for row in rows:
                belongs = {key for key in wanted if row[2] == key or row[2].startswith(f"{key}/")}
                seen |= belongs
                if belongs:
                    shown.append(_entry(row).record())
                else:
                    shown.append({"sequence": row[0], **_chained(row)["payload"], "hash": row[7]})
        if wanted - seen:
            raise InputError(f"the ledger {self.path} has no entry of {sorted(wanted - seen)}")
        head = shown[-1]["hash"] if shown else GENESIS
        return {"format": EXCERPT_FORMAT, "length": len(shown), "head": head, "entries": shown}

    def extends(self, excerpt: Mapping[str, Any]) -> None:
        """Check that this ledger still begins with everything that ``excerpt`` showed or counted.

        Raises:
            TamperedError: if the excerpt does not verify, or naming the first entry that is gone or differs here.
            InputError: if ``excerpt`` is none.
        """
        verify_excerpt(excerpt)
        with self._in_words():
            here = dict(self._db.execute("SELECT sequence, hash FROM entries"))
        for entry in excerpt["entries"]:
            if here.get(entry["sequence"]) != entry["hash"]:
                what = "differs" if entry["sequence"] in here else "is gone"
                raise TamperedError(
                    f"the ledger {self.path} is not the one of the excerpt: entry {entry['sequence']} {what}; "
                    "it was rewritten or cut since the excerpt was made"
                )

    def _find_file(self, create: bool) -> None:
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder; a ledger is one file")
        if self.path.exists():
            return
        if not create:
            raise InputError(f"there is no ledger at {self.path}; create one explicitly, or name the right file")
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass  # another process was faster; both prepare it
        except OSError as error:
            raise InputError(f"the ledger {self.path} cannot be created: {error.strerror}") from None

    def _prepare(self, create: bool) -> None:
        application = self._pragma("application_id")
        self._db.execute("PRAGMA journal_mode = DELETE")  # one file holds everything
        self._db.execute("PRAGMA synchronous = EXTRA")  # FULL may lose the last entry when power fails
        self._db.execute("PRAGMA trusted_schema = OFF")
        if create and application == 0:
            with self.transaction():
                if not self._pragma("application_id") and not self._pragma("schema_version"):
                    for statement in _SCHEMA.values():
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {_VERSION}")
                    self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
            application = self._pragma("application_id")
        if application != _APPLICATION:
            raise InputError(f"{self.path} is an SQLite file of another program (or an empty one), not a ledger")
        if self._pragma("user_version") != _VERSION:
            raise InputError(
                f"the ledger {self.path} has version {self._pragma('user_version')}, this program reads {_VERSION}; "
                "use the program that wrote it"
            )

    def _pragma(self, name: str) -> int:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _select(self, condition: str, values: tuple[Any, ...]) -> list[Entry]:
        query = f"SELECT {_COLUMNS} FROM entries WHERE {condition} ORDER BY sequence"
        return [_entry(row) for row in self._db.execute(query, values)]

    def _named(self, check: Any, *arguments: Any) -> None:
        try:
            check(*arguments)
        except TamperedError as error:
            raise TamperedError(f"the ledger {self.path} was tampered with: {error}") from None

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what SQLite raises into our errors."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InputError(f"another process keeps the ledger {self.path} busy; try again later") from None
            if code == sqlite3.SQLITE_NOTADB:
                raise InputError(f"{self.path} is not a ledger: it is no SQLite file") from None
            if code in _ENVIRONMENT:
                raise InputError(f"the ledger {self.path} cannot be used: {error}") from None
            raise TamperedError(f"the ledger {self.path} is damaged: {error}") from None


_ENVIRONMENT = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)


def verify_excerpt(excerpt: Mapping[str, Any]) -> list[Entry]:
    """Check an excerpt without the ledger and return the entries it shows in full.

    Raises:
        TamperedError: naming the first entry that breaks, or if length or head do not fit.
        InputError: if ``excerpt`` is no excerpt.
    """
    if not isinstance(excerpt, Mapping) or excerpt.get("format") != EXCERPT_FORMAT:
        raise InputError(f"expected an excerpt of a ledger (format {EXCERPT_FORMAT!r})")
    if excerpt.keys() != {"format", "length", "head", "entries"}:
        raise InputError(f"an excerpt has the fields format, length, head and entries, got {sorted(excerpt)}")
    shown: list[Entry] = []
    chained: list[dict[str, Any]] = []
    try:
        for item in excerpt["entries"]:
            previous = chained[-1]["hash"] if chained else GENESIS
            if set(item) == {"sequence", "content", "hash"}:
                sequence, seal, written = item["sequence"], {"content": item["content"]}, item["hash"]
            else:
                entry = Entry(**item)
                shown.append(entry)
                sequence, previous, written = entry.sequence, entry.previous, entry.hash
                text = canonical_payload(entry.payload)
                seal = _sealed(entry.sequence, entry.kind, entry.key, entry.time, entry.salt, text)
            chained.append({"sequence": sequence, "previous": previous, "payload": seal, "hash": written})
        length, claimed = excerpt["length"], excerpt["head"]
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the excerpt is incomplete or has unknown fields: {error}") from None
    head = verify_chain(chained)
    if length != len(chained) or claimed != head:
        raise TamperedError("the excerpt does not end with the length and head it names: its end was changed")
    return shown


def _sealed(sequence: int, kind: str, key: str, time: str, salt: str, payload: bytes) -> dict[str, str]:
    """What the chain links: one digest over the header, which carries the salted digest of the payload."""
    if not isinstance(salt, str) or not _SALT.fullmatch(salt):  # its fixed length keeps salt and payload apart
        raise TamperedError(f"entry {sequence} has the salt {salt!r}, expected 32 hex digits")
    sealed = digest_bytes(salt.encode() + payload)
    header = {"sequence": sequence, "kind": kind, "key": key, "time": time, "payload": sealed}
    return {"content": digest_json(header)}


def _chained(row: tuple[Any, ...]) -> dict[str, Any]:
    sequence, kind, key, time, salt, payload, previous, written = row
    seal = _sealed(sequence, kind, key, time, salt, payload.encode())
    return {"sequence": sequence, "previous": previous, "payload": seal, "hash": written}


def _entry(row: tuple[Any, ...]) -> Entry:
    sequence, kind, key, time, salt, payload, previous, written = row
    return Entry(sequence, kind, key, time, salt, json.loads(payload), previous, written)


def canonical_payload(payload: Mapping[str, Any]) -> bytes:
    """The bytes a payload is sealed and compared by: equal bytes, equal payload.

    Raises:
        InputError: if ``payload`` is no mapping or cannot be written as JSON.
    """
    if not isinstance(payload, Mapping):
        raise InputError(f"a payload must be a mapping, got {type(payload).__name__}")
    try:
        return canonical_json(dict(payload))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the payload cannot be written as JSON: {error}") from None


def _utc(time: datetime | str | None) -> str:
    try:
        moment = datetime.now(UTC) if time is None else datetime.fromisoformat(time) if isinstance(time, str) else time
    except ValueError:
        raise InputError(f"expected a time like 2026-11-21T12:00:00Z, got {time!r}") from None
    if moment.utcoffset() is None:
        raise InputError(f"the time {time} names no offset from UTC; write for example 2026-11-21T12:00:00Z")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
