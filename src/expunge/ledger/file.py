"""The ledger of requests: one SQLite file, append-only, hash-chained, whole after any crash.

Every entry is sealed (``ledger.entries``); the chain links the seals, and a Merkle tree over the chain gives short proofs: an
excerpt shows some entries and proves that they are under one root, and of all others it shows nothing. Personal data never
enters: payloads carry keyed hashes.

What neither shows: who owns the file can write all of it anew, or cut off its end. Keep or publish a checkpoint (length and
root), and `Ledger.extends` finds either.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from expunge.core import merkle
from expunge.core.chain import GENESIS, link, verify_chain
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import in_words
from expunge.ledger import known, schema
from expunge.ledger.entries import (
    COLUMNS,
    SEALED,
    Entry,
    canonical_payload,
    chained,
    checked_names,
    entry_of,
    leaf_of,
    seal_of,
    utc,
)
from expunge.ledger.excerpt import FORMAT, verify_excerpt

_WAIT = 30.0  # seconds for which a writer waits for another one
_LARGEST = 16 * 2**20  # bytes of one value in a file that is only read, and that somebody else may have made


class Ledger:
    """An open ledger file; a context manager. A state of the file that this installation has not seen yet is verified as a
    whole when it is opened; one that it verified or wrote itself (``ledger.known``) is not read again.

    Args:
        path: the SQLite file.
        create: make the file (private to its owner) where there is none; an existing ledger is opened as it is.
        read_only: touch nothing, neither the file nor its folder, and believe nothing of it: all of it is verified. Ledgers of
            the first version are read as they are; otherwise opening carries them over, once.

    Raises:
        InputError: if there is no ledger at ``path`` (missing, a folder, no SQLite file, the file of another program),
            or another process holds it for longer than half a minute.
        TamperedError: if an entry, the chain, the tree, or the guards against changes were altered.

    Guarantee: an entry that `append` returned survives SIGKILL and power cuts (rollback journal and
    ``synchronous=EXTRA``); one that it did not return is there entirely or not at all. Any number of processes may
    append. Opening a known ledger and appending cost O(log n) for n entries.
    """

    def __init__(self, path: Path, create: bool = False, *, read_only: bool = False):
        self.path, self._writes = Path(path), not read_only
        if sqlite3.sqlite_version_info < (3, 37):
            raise InputError(f"the ledger needs SQLite 3.37 or newer, Python brings {sqlite3.sqlite_version}")
        self._tree: dict[tuple[int, int], bytes] = {}  # of a first version that is only read
        self._state: list[int] | None = None  # of the file, as it was when it was last known to be verified
        self._noted: list[int] | None = None
        self._find_file(create)
        place = f"{self.path.absolute().as_uri()}?{'mode=ro&immutable=1' if read_only else 'mode=rw'}"
        with self._in_words():
            self._db = sqlite3.connect(place, uri=True, timeout=_WAIT, isolation_level=None)
        try:
            with self._in_words():
                if read_only:
                    self._prepare_to_read()
                else:
                    self._prepare(create)
            if read_only:
                self.verify()
            elif known.is_known(self.path):
                self._state = self._noted = known.state(self.path)
            else:
                self._state = self._verified_state()
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
        if self._state is not None and self._state != self._noted:
            known.keep(self.path, self._state)
            self._noted = self._state

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
        checked_names(kind, key)
        text, moment, salt = canonical_payload(payload), utc(time), secrets.token_hex(16)
        with self.transaction():
            for old in self._select("kind = ? AND key = ?", (kind, key)):
                if canonical_payload(old.payload) == text:
                    return old
                raise InputError(
                    f"{kind} {key!r} is in the ledger since {old.time} with another content, and the ledger is "
                    "append-only; record the change as a new entry under another key"
                )
            length, previous = self.head()
            head = link(previous, seal_of(length + 1, kind, key, moment, salt, text))
            row = (length + 1, kind, key, moment, salt, text.decode(), previous, head)
            self._db.execute(f"INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            schema.add_leaf(self._db, length, head)
            return entry_of(row)

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
                verified = known.state(self.path) == self._state or known.is_known(self.path)
                others = self._pragma("data_version")
                yield
                self._db.execute("COMMIT")
                now = known.state(self.path)
                alone = self._pragma("data_version") == others  # nobody else wrote before the state was read
                self._state = now if verified and alone else None
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def entries(self, kind: str | None = None, prefix: str = "") -> list[Entry]:
        """Entries in order: all, or those of one ``kind``, or those whose key begins with ``prefix``."""
        conditions, values = ["1"], list[str]()
        if kind is not None:
            conditions, values = [*conditions, "kind = ?"], [*values, kind]
        if prefix:  # as a range, so that the index is used
            conditions, values = [*conditions, "key >= ?", "key < ?"], [*values, prefix, _after(prefix)]
        with self._in_words():
            return self._select(" AND ".join(conditions), tuple(values))

    def head(self) -> tuple[int, str]:
        """Number of entries and hash of the last one: with it, a reader finds later that the ledger was rewritten."""
        with self._in_words():
            row = self._db.execute("SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()
        return row or (0, GENESIS)

    def root(self, length: int | None = None) -> str:
        """Root (hex) of the tree over the first ``length`` entries, over all where not given.

        Raises:
            InputError: if there are fewer.
        """
        here, _ = self.head()
        if not 0 <= (length := here if length is None else length) <= here:
            raise InputError(f"the ledger {self.path} has {here} entries, not {length}")
        with self._in_words():
            return merkle.root(length, self._node).hex()

    def verify(self) -> None:
        """Check every entry, chain and tree, and that the guards against changes are in place.

        Raises:
            TamperedError: naming the first entry that breaks, or the guard that is missing.
        """
        with self._in_words(), closing(self._db.execute(f"SELECT {SEALED} FROM entries ORDER BY sequence")) as rows:
            self._named(verify_chain, (chained(row) for row in rows))
            self._verify_structure()
            self._named(self._verify_tree)

    def excerpt(self, keys: Iterable[str]) -> dict[str, Any]:
        """The ledger as one may hand it out: entries of ``keys`` in full, each with a proof of log n digests, and the root.

        An entry belongs to a key if its own key is equal to it or continues it after a slash.

        Raises:
            InputError: if a key has no entry.

        Guarantee: `verify_excerpt` finds any change. Of the other entries the reader learns only how many there are; an
        excerpt therefore cannot show that *all* entries of a key are in it.
        """
        if isinstance(keys, str):
            raise InputError(f"keys must be a collection of keys, got the text {keys!r}")
        shown: dict[int, Entry] = {}
        for key in set(keys):
            own = [entry for entry in self.entries(prefix=key) if entry.key == key or entry.key.startswith(f"{key}/")]
            if not own:
                raise InputError(f"the ledger {self.path} has no entry of {key!r}")
            shown |= {entry.sequence: entry for entry in own}
        length, head = self.head()
        entries = []
        with self._in_words():
            for sequence, entry in sorted(shown.items()):
                proof = [step.hex() for step in merkle.inclusion(sequence - 1, length, self._node)]
                entries.append({**entry.record(), "proof": proof})
        return {"format": FORMAT, "length": length, "head": head, "root": self.root(length), "entries": entries}

    def extends(self, earlier: Mapping[str, Any]) -> None:
        """Check that this ledger still begins with everything that an earlier excerpt or checkpoint showed or counted.

        Args:
            earlier: an excerpt, or anything else with ``length`` and ``root``.

        Raises:
            TamperedError: if the excerpt does not verify, or the ledger was cut or rewritten since.
            InputError: if ``earlier`` is neither.
        """
        if "entries" in earlier or "root" not in earlier:
            verify_excerpt(earlier)
        length, here = earlier["length"], self.head()[0]
        rewritten = f"the ledger {self.path} is not the one of the excerpt or checkpoint"
        if length > here:
            raise TamperedError(
                f"{rewritten}: entry {here + 1} is gone, {here} are left of {length}; it was cut since, or is an old copy"
            )
        if "root" in earlier:
            if self.root(length) != earlier["root"]:
                raise TamperedError(f"{rewritten}: its first {length} entries are others; it was rewritten since")
            return
        with self._in_words():
            written = dict(self._db.execute("SELECT sequence, hash FROM entries WHERE sequence <= ?", (length,)))
        for entry in earlier["entries"]:
            if written.get(entry["sequence"]) != entry["hash"]:
                raise TamperedError(f"{rewritten}: entry {entry['sequence']} differs; it was rewritten since")

    def consistency(self, length: int) -> list[str]:
        """Proof (hex digests) that the ledger as it is now continues its first ``length`` entries; see ``core.merkle``."""
        self.root(length)
        with self._in_words():
            return [step.hex() for step in merkle.consistency(length, self.head()[0], self._node)]

    def _find_file(self, create: bool) -> None:
        if self.path.exists() and not self.path.is_file():
            kind = "a folder" if self.path.is_dir() else "no regular file"
            raise InputError(f"{self.path} is {kind}; a ledger is one file")
        if self.path.exists():
            return
        if not create:
            raise InputError(f"there is no ledger at {self.path}; create one explicitly, or name the right file")
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass  # another process was faster; both prepare it
        except OSError as error:
            raise in_words(error, f"the ledger {self.path} cannot be created") from None

    def _prepare(self, create: bool) -> None:
        application = self._pragma("application_id")
        self._db.execute("PRAGMA journal_mode = DELETE")  # one file holds everything
        self._db.execute("PRAGMA synchronous = EXTRA")  # FULL may lose the last entry when power fails
        self._db.execute("PRAGMA trusted_schema = OFF")
        if create and application == 0:
            with self.transaction():
                if not self._pragma("application_id") and not self._pragma("schema_version"):
                    schema.create(self._db)
        self._must_be_ours()
        if self._pragma("user_version") < schema.VERSION:
            with self.transaction():
                if self._pragma("user_version") < schema.VERSION:  # another process may have been faster
                    self.verify()
                    schema.carry_over(self._db)

    def _prepare_to_read(self) -> None:
        if (journal := self.path.with_name(f"{self.path.name}-journal")).exists():
            raise InputError(
                f"{journal} says that the ledger is being written, or that a write was interrupted; try again, or open the "
                "ledger once with expunge requests list"
            )
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
        for setting in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
            self._db.execute(f"PRAGMA {setting}")
        self._must_be_ours()
        if (size := self.path.stat().st_size) != self._pragma("page_count") * self._pragma("page_size"):
            raise TamperedError(f"the ledger {self.path} has {size:,} bytes, which are not those of its pages")
        self._verify_structure()
        if self._pragma("user_version") < schema.VERSION:
            for position, (written,) in enumerate(self._db.execute("SELECT hash FROM entries ORDER BY sequence")):
                for level, at, digest in merkle.completed(position, leaf_of(written), self._node):
                    self._tree[level, at] = digest

    def _must_be_ours(self) -> None:
        if self._pragma("application_id") != schema.APPLICATION:
            raise InputError(f"{self.path} is an SQLite file of another program (or an empty one), not a ledger")
        if self._pragma("user_version") not in schema.OF_VERSION:
            raise InputError(
                f"the ledger {self.path} has version {self._pragma('user_version')}, this program reads up to "
                f"{schema.VERSION}; use the program that wrote it"
            )

    def _verified_state(self) -> list[int] | None:
        """Verify all of it; the state of the file if nobody wrote meanwhile."""
        self._db.execute("BEGIN")
        try:
            before = known.state(self.path)
            self.verify()
            return before if known.state(self.path) == before else None
        finally:
            self._db.execute("ROLLBACK")

    def _verify_structure(self) -> None:
        found = {name: row for name, *row in self._db.execute("SELECT name, type, tbl_name, sql FROM sqlite_schema")}
        expected = schema.rows(self._pragma("user_version"))
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise TamperedError(f"the ledger {self.path}: {name!r}, part of its structure, was changed or removed")
        (said,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()  # an index that hides entries, for example
        if said != "ok":
            raise TamperedError(f"the ledger {self.path} is damaged: {said}")

    def _verify_tree(self) -> None:
        """The stored tree against one that is made from the entries."""
        if self._pragma("user_version") < schema.VERSION:
            return  # the first version has none
        made: dict[tuple[int, int], bytes] = {}
        get = lambda *place: made[place]  # noqa: E731
        for position, (written,) in enumerate(self._db.execute("SELECT hash FROM entries ORDER BY sequence")):
            for level, at, digest in merkle.completed(position, leaf_of(written), get):
                made[level, at] = digest
        for level, position, digest in self._db.execute("SELECT level, position, hash FROM nodes"):
            if made.pop((level, position), None) != digest:
                raise TamperedError(f"node {position} on level {level} of its tree does not follow from its entries")
        if made:
            raise TamperedError(f"{len(made)} nodes of its tree are missing")

    def _node(self, level: int, position: int) -> bytes:
        return self._tree[level, position] if self._tree else schema.stored_node(self._db, level, position)

    def _pragma(self, name: str) -> int:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _select(self, condition: str, values: tuple[Any, ...]) -> list[Entry]:
        query = f"SELECT {COLUMNS} FROM entries WHERE {condition} ORDER BY sequence"
        return [entry_of(row) for row in self._db.execute(query, values)]

    def _may_be_written(self) -> bool:
        """Whether nobody forbids it: then it is the machine that does not do it."""
        return os.access(self.path, os.R_OK | os.W_OK) and os.access(self.path.parent, os.W_OK | os.X_OK)

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
        except UnicodeDecodeError:  # of a name in a message of SQLite, or of a text in the file
            raise TamperedError(f"the ledger {self.path} is damaged: a text in it is not UTF-8") from None
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InputError(f"another process keeps the ledger {self.path} busy; try again later") from None
            if code == sqlite3.SQLITE_NOTADB:
                raise InputError(f"{self.path} is not a ledger: it is no SQLite file") from None
            if code in _FAILED or (code in _FORBIDDEN and self._writes):
                why = _FAILED.get(code, errno.EIO if self._may_be_written() else errno.EACCES)
                raise OSError(why, str(error), str(self.path)) from None
            if code in _FORBIDDEN:
                raise InputError(f"the ledger {self.path} cannot be used: {error}") from None
            raise TamperedError(f"the ledger {self.path} is damaged: {error}") from None


_FAILED = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}
_FORBIDDEN = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)  # or what a failing disk comes to


def _after(prefix: str) -> str:
    """The least text above everything that begins with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
