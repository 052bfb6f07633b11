"""A hash chain: every entry carries the hash of the one before, so that no past entry changes unseen.

What a chain does not show: that entries were cut off at its end, or that all of it was written anew. For that, compare
with a head (the last hash) that was signed or handed out earlier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from expunge.core.digest import canonical_json
from expunge.core.errors import TamperedError

GENESIS = "0" * 64  # what the first entry names as the hash before it

_FIELDS = {"sequence", "previous", "payload", "hash"}


def link(previous: str, payload: Mapping[str, Any]) -> str:
    """SHA-256 (hex) that ties ``payload`` to the entry before it.

    Args:
        previous: hash of the entry before (64 hex digits), `GENESIS` for the first one.
        payload: what the entry says, JSON-like.

    Raises:
        ValueError: if ``previous`` is no hash, or ``payload`` holds NaN or infinity. ``TypeError`` if ``payload`` holds
            something JSON cannot say.
    """
    if len(previous) != 64:
        raise ValueError(f"expected the hash of the previous entry (64 hex digits), got {previous!r}")
    return hashlib.sha256(previous.encode() + canonical_json(payload)).hexdigest()


def verify_chain(entries: Iterable[Mapping[str, Any]]) -> str:
    """Check a whole chain and return its head: the hash of the last entry, `GENESIS` where there is none.

    Args:
        entries: in order, each with ``previous``, ``payload``, ``hash`` and, where wanted, ``sequence`` (1, 2, …).

    Raises:
        TamperedError: naming the first entry that breaks, and how.

    Guarantee: a change of any field of any entry, an entry inserted, left out before the end, or moved, is found
    (unless every hash after it was recomputed, which changes the head).
    """
    head = GENESIS
    for position, entry in enumerate(entries, start=1):
        if not entry.keys() <= _FIELDS or not entry.keys() >= _FIELDS - {"sequence"}:
            raise TamperedError(f"entry {position} has the fields {sorted(entry)}, expected {sorted(_FIELDS)}")
        if entry.get("sequence", position) != position:
            raise TamperedError(f"entry {position} says that it is number {entry['sequence']}: entries are missing")
        if entry["previous"] != head:
            raise TamperedError(
                f"entry {position} does not follow the entry before it: an entry was changed or removed"
            )
        try:
            expected = link(head, entry["payload"])
        except (TypeError, ValueError, RecursionError):
            raise TamperedError(f"entry {position} holds something that was never written as JSON") from None
        if entry["hash"] != expected:
            raise TamperedError(f"entry {position} was changed: its content does not give the hash written beside it")
        head = expected
    return head
