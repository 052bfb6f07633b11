"""One entry of a ledger, and how it is sealed.

An entry is sealed in two steps: a salted digest of its payload, then a digest of the header that carries it. Chain and tree
hold only the second one, so that whoever sees it cannot test guesses of the payload without the salt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from expunge.core import merkle
from expunge.core.chain import link
from expunge.core.digest import canonical_json, digest_json
from expunge.core.errors import InputError, TamperedError

COLUMNS = "sequence, kind, key, time, salt, payload, previous, hash"
SEALED = COLUMNS.replace("payload", "CAST(payload AS BLOB)")  # the bytes that were sealed, without a copy as text
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,199}")  # no blanks, no @: keys are ids, not names of people
_SALT = re.compile(r"[0-9a-f]{32}")


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

    def sealed(self) -> str:
        """Its hash, computed again from everything else that it says.

        Raises:
            TamperedError: if it says something that no entry says.
        """
        try:
            seal = seal_of(self.sequence, self.kind, self.key, self.time, self.salt, canonical_payload(self.payload))
            return link(self.previous, seal)
        except (TypeError, ValueError, InputError):
            raise TamperedError(f"entry {self.sequence} holds something that was never written as JSON") from None


def entry_of(columns: tuple[Any, ...]) -> Entry:
    """The entry in these columns of the table."""
    sequence, kind, key, time, salt, payload, previous, written = columns
    return Entry(sequence, kind, key, time, salt, json.loads(payload), previous, written)


def chained(columns: tuple[Any, ...]) -> dict[str, Any]:
    """A row of :data:`SEALED` columns as a link of the chain; see ``core.chain``."""
    sequence, kind, key, time, salt, payload, previous, written = columns
    seal = seal_of(sequence, kind, key, time, salt, payload)
    return {"sequence": sequence, "previous": previous, "payload": seal, "hash": written}


def seal_of(sequence: int, kind: str, key: str, time: str, salt: str, payload: bytes) -> dict[str, str]:
    """What the chain links: one digest over the header, which carries the salted digest of the payload."""
    if not isinstance(salt, str) or not _SALT.fullmatch(salt):  # its fixed length keeps salt and payload apart
        raise TamperedError(f"entry {sequence} has the salt {salt!r}, expected 32 hex digits")
    sealed = hashlib.sha256(salt.encode())
    sealed.update(payload)  # by itself: a payload may be large, and a sum of both would be a copy
    header = {"sequence": sequence, "kind": kind, "key": key, "time": time, "payload": sealed.hexdigest()}
    return {"content": digest_json(header)}


def leaf_of(written: str) -> bytes:
    """The leaf of the tree for an entry with this hash, which names everything before it too.

    Raises:
        TamperedError: if it is no hash.
    """
    try:
        return merkle.leaf(bytes.fromhex(written))
    except (TypeError, ValueError):
        raise TamperedError(f"{written!r} is no hash of an entry") from None


def checked_names(kind: str, key: str) -> None:
    """Raise InputError unless kind and key are plain ids."""
    if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
        raise InputError(f"kind and key must be plain ids without blanks, got {kind!r} and {key!r}")


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


def utc(time: datetime | str | None) -> str:
    """A moment as entries write it; now where ``None``.

    Raises:
        InputError: if it is no time, or names no offset from UTC.
    """
    try:
        moment = datetime.now(UTC) if time is None else datetime.fromisoformat(time) if isinstance(time, str) else time
    except ValueError:
        raise InputError(f"expected a time like 2026-11-21T12:00:00Z, got {time!r}") from None
    if moment.utcoffset() is None:
        raise InputError(f"the time {time} names no offset from UTC; write for example 2026-11-21T12:00:00Z")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
