"""A checkpoint: length and root of a ledger at some moment, signed. Whoever keeps one notices later that the ledger was cut,
rolled back or rewritten; the operator publishes it, or hands it to somebody who keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from expunge.core.errors import InputError
from expunge.ledger import Ledger
from expunge.report import signing

PREDICATE = "urn:expunge:ledger-checkpoint:1"


def checkpoint(ledger: Ledger, key: Ed25519PrivateKey, *, since: Iterable[int] = ()) -> dict[str, Any]:
    """The signed checkpoint of a ledger as it is now.

    Args:
        since: lengths of earlier states, for example of excerpts: the checkpoint proves that it continues them, so that whoever
            has such an excerpt and no ledger can compare.

    Raises:
        InputError: if the ledger never had such a length.
    """
    length, head = ledger.head()
    said = {
        "length": length, "root": ledger.root(length), "head": head,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "proofs": {str(earlier): ledger.consistency(earlier) for earlier in since},
    }  # fmt: skip
    return signing.sign(signing.statement({"ledger": said["root"]}, PREDICATE, said), key)


def opened(envelope: Any, key: Ed25519PublicKey | None) -> dict[str, Any]:
    """What a checkpoint says: ``length``, ``root``, ``head``, ``created`` and ``proofs``.

    Args:
        key: whose signature it must bear; without it, that of the key that it carries.

    Raises:
        InputError: if it is no checkpoint. TamperedError: if it does not verify.
    """
    statement = signing.consistent(envelope) if key is None else signing.verify(envelope, key)
    said = statement["predicate"]
    if (
        statement.get("predicateType") != PREDICATE
        or type(said.get("length")) is not int
        or not isinstance(said["root"], str)
        or statement["subject"] != signing.listed({"ledger": said["root"]})
    ):
        raise InputError("Expected a checkpoint that expunge ledger checkpoint wrote; got another signed statement.")
    return said
