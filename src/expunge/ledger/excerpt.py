"""A part of a ledger that one may hand out: some entries in full, each with a proof that it is under one root.

The first version showed a digest for every other entry instead; such excerpts are still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core import merkle
from expunge.core.chain import GENESIS, verify_chain
from expunge.core.errors import InputError, TamperedError
from expunge.ledger.entries import Entry, canonical_payload, leaf_of, seal_of

FORMAT, FORMAT_1 = "expunge/ledger-excerpt/2", "expunge/ledger-excerpt/1"


def verify_excerpt(excerpt: Mapping[str, Any]) -> list[Entry]:
    """Check an excerpt without the ledger and return the entries it shows in full, in order.

    Raises:
        TamperedError: naming the first entry that is not under the root (of the first version: that breaks the chain).
        InputError: if ``excerpt`` is no excerpt.

    Guarantee: no entry can be changed, and none of another ledger shown, without changing root or length. That a shown entry
    is the last one of its request, and that the root is the one that others were shown, a checkpoint or the ledger decides.
    """
    found = excerpt.get("format") if isinstance(excerpt, Mapping) else None
    try:
        if found == FORMAT:
            return _proved(excerpt)
        if found == FORMAT_1:
            return _linked(excerpt)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"the excerpt is incomplete or has unknown fields: {error}") from None
    raise InputError(f"expected an excerpt of a ledger (format {FORMAT!r})")


def _proved(excerpt: Mapping[str, Any]) -> list[Entry]:
    if excerpt.keys() != {"format", "length", "head", "root", "entries"}:
        raise InputError(f"an excerpt has the fields format, length, head, root and entries, got {sorted(excerpt)}")
    length, root, shown = excerpt["length"], bytes.fromhex(excerpt["root"]), list[Entry]()
    if type(length) is not int or length < 0 or excerpt["root"] != root.hex():
        raise InputError("the length of an excerpt is a count, its root 64 hex digits")
    for item in excerpt["entries"]:
        entry = Entry(**{name: value for name, value in item.items() if name != "proof"})
        if shown and entry.sequence <= shown[-1].sequence:
            raise TamperedError(f"entry {entry.sequence} does not follow the entry before it")
        if entry.sealed() != entry.hash:
            raise TamperedError(
                f"entry {entry.sequence} was changed: its content does not give the hash written beside it"
            )
        proof = [bytes.fromhex(step) for step in item["proof"]]
        if [step.hex() for step in proof] != item["proof"] or (
            merkle.root_from(leaf_of(entry.hash), entry.sequence - 1, length, proof) != root
        ):
            raise TamperedError(f"entry {entry.sequence} is not under the root that the excerpt names")
        shown.append(entry)
    if (shown and shown[-1].sequence == length and shown[-1].hash != excerpt["head"]) or (
        not length and (root, excerpt["head"]) != (merkle.EMPTY, GENESIS)
    ):
        raise TamperedError("the excerpt does not end with the head it names: its end was changed")
    if length and not shown:
        raise TamperedError("the excerpt shows no entry, and so nothing that its root could be of")
    return shown


def _linked(excerpt: Mapping[str, Any]) -> list[Entry]:
    """The first version: the whole chain, most of it as digests."""
    if excerpt.keys() != {"format", "length", "head", "entries"}:
        raise InputError(f"an excerpt has the fields format, length, head and entries, got {sorted(excerpt)}")
    shown: list[Entry] = []
    chained: list[dict[str, Any]] = []
    for item in excerpt["entries"]:
        previous = chained[-1]["hash"] if chained else GENESIS
        if set(item) == {"sequence", "content", "hash"}:
            sequence, seal, written = item["sequence"], {"content": item["content"]}, item["hash"]
        else:
            entry = Entry(**item)
            shown.append(entry)
            sequence, previous, written = entry.sequence, entry.previous, entry.hash
            text = canonical_payload(entry.payload)
            seal = seal_of(entry.sequence, entry.kind, entry.key, entry.time, entry.salt, text)
        chained.append({"sequence": sequence, "previous": previous, "payload": seal, "hash": written})
    head = verify_chain(chained)
    if excerpt["length"] != len(chained) or excerpt["head"] != head:
        raise TamperedError("the excerpt does not end with the length and head it names: its end was changed")
    return shown
