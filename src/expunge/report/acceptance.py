"""A person accepts a result after it was delivered: the ledger's entry of it, signed, and how it is checked.

Ledgers are chains of hashes that anybody can make or lengthen, and the one that lies in an evidence folder grows after signing.
Who accepted is therefore the owner's word only where the entry bears the owner's signature.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from expunge.core.digest import canonical_json, digest_bytes
from expunge.report.folder import as_json
from expunge.report.outcome import ACCEPTED_SINCE, is_accepted
from expunge.report.signing import key_id, pae

Record = Mapping[str, Any]
ENTRY_TYPE = "application/vnd.expunge.acceptance+json"
PERSON = ("by", "reason")


def as_delivered(record: Record) -> dict[str, Any]:
    """The record as it was before anybody accepted it."""
    return {name: value for name, value in record.items() if name != ACCEPTED_SINCE}


def as_accepted(record: Record, person: Record) -> dict[str, Any]:
    """The record with who accepted it, and why."""
    return {**as_delivered(record), ACCEPTED_SINCE: {name: person[name] for name in PERSON}}


def signature(request: str, person: Record, evidence: str, key: Ed25519PrivateKey) -> str:
    """The owner's word (hex) that ``person`` accepted the result of ``request``, and which record says so.

    Args:
        evidence: digest of evidence.json as it stands from then on.

    Guarantee: who lacks the key cannot make one, nor use one for another request, person, reason or record (Ed25519).
    """
    return key.sign(_message(request, person, evidence)).hex()


def signed_by(request: str, entry: Record, key: Ed25519PublicKey | Ed25519PrivateKey) -> bool:
    """Whether an entry of a ledger bears the signature of ``key``."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    try:
        public.verify(bytes.fromhex(entry["signature"]), _message(request, entry, entry["evidence"]))
    except (InvalidSignature, KeyError, TypeError, ValueError):
        return False
    return True


def problems(
    record: Record, entries: Collection[Record], evidence: Collection[str], key: Ed25519PublicKey | None
) -> list[str]:
    """What the ledger's entries of an acceptance and the record say of each other.

    Args:
        entries: payloads, of this request.
        evidence: digests under which the record may be named.
        key: the expected signer's; ``None``: signatures are not judged.
    """
    identity, said = record["request"]["id"], record.get(ACCEPTED_SINCE)
    found = ["the request was accepted more than once"] if len(entries) > 1 else []
    for entry in entries:
        before, told = as_delivered(record), as_accepted(record, entry)
        if entry.get("evidence") not in {None, *evidence, *(digest_bytes(as_json(each)) for each in (before, told))}:
            found.append("the ledger says that a person accepted other evidence than this")
        if is_accepted(before) or not is_accepted(told):
            found.append("the ledger says that a person accepted this result, which is not one that waits for a person")
        if key is not None and not _named(record, entry) and not signed_by(identity, entry, key):
            found.append(f"the entry by which a person accepted the result is not signed by {key_id(key)[:12]}…")
    if said is not None and not any(_named(record, entry) for entry in entries):
        found.append("the ledger does not say that the person whom the record names accepted this result")
    return found


def in_words(record: Record, entry: Record, key: Ed25519PublicKey | None) -> str:
    """An entry in words, with what stands behind it."""
    said = f"the request was accepted after it was delivered by {entry['by']:.100}: {entry['reason']:.300}"
    if _named(record, entry) or (key is not None and signed_by(record["request"]["id"], entry, key)):
        return said
    return f"an entry whose signature was not checked says that {said}"


def _named(record: Record, entry: Record) -> bool:
    """Whether the record, which is signed, names the person of the entry itself."""
    return record.get(ACCEPTED_SINCE) == {name: entry.get(name) for name in PERSON}


def _message(request: str, person: Record, evidence: str) -> bytes:
    content = {"request": request, **{name: person[name] for name in PERSON}, "evidence": evidence}
    return pae(ENTRY_TYPE, canonical_json(content))
