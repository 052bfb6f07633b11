"""Signatures over evidence: an in-toto Statement v1 inside a DSSE envelope, signed with Ed25519.

The envelope carries the public key too. A reader who knows the signer's key calls `verify`; one who does not calls
`consistent`, which finds later changes and says nothing about who signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from expunge.core.digest import canonical_json
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import create_once, in_words, parse_json, read_private
from expunge.core.keys import key_path

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_KEY_FILE = "signing-key.pem"
_LARGEST_KEY = 2**16  # bytes of a file that holds a public key
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:\S+")


def listed(subjects: Mapping[str, str]) -> list[dict[str, Any]]:
    """Files by name and SHA-256 (hex), as our statements list them: each once, sorted, under one digest."""
    return [{"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)]


def statement(subjects: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """An in-toto Statement v1: ``predicate`` is said of files with these SHA-256 digests.

    Args:
        subjects: name of each file → SHA-256 (hex); at least one.
        predicate_type: a URI that names the form of the predicate.
        predicate: what is said, JSON-like.

    Raises:
        InputError: if there is no subject, a digest is no SHA-256, or the type is no URI.
    """
    if not subjects:
        raise InputError("a statement needs at least one subject: a signature over nothing says nothing")
    for name, digest in subjects.items():
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise InputError(f"the subject {name!r} needs a SHA-256 (64 lower-case hex digits), got {digest!r}")
    if not _URI.fullmatch(predicate_type):
        raise InputError(f"a predicate type is a URI, got {predicate_type!r}")
    return {
        "_type": STATEMENT_TYPE,
        "subject": listed(subjects),
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


def sign(statement: Mapping[str, Any], private_key: Ed25519PrivateKey) -> dict[str, Any]:
    """The DSSE envelope of a statement, signed, with the public key (PEM) beside the signature.

    Raises:
        InputError: if the statement cannot be written as JSON.
    """
    try:
        payload = canonical_json(dict(statement))
    except (TypeError, ValueError) as error:
        raise InputError(f"the statement cannot be signed, it is not JSON: {error}") from None
    public = private_key.public_key()
    return _envelope(payload, private_key.sign(pae(PAYLOAD_TYPE, payload)), public)


def _envelope(payload: bytes, signature: bytes, public: Ed25519PublicKey) -> dict[str, Any]:
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": key_id(public), "sig": base64.b64encode(signature).decode(), "publicKey": public_pem(public)}
        ],
    }


def verify(envelope: Mapping[str, Any], public_key: Ed25519PublicKey) -> dict[str, Any]:
    """The statement, if ``public_key`` signed it. The key that the envelope carries plays no part.

    Raises:
        InputError: if ``envelope`` is no DSSE envelope around an in-toto statement.
        TamperedError: if no signature in it is by this key over this content.

    Guarantee: who lacks the private key cannot make an envelope that passes (Ed25519). That the statement is true, or
    that it was signed before some date, is not shown.
    """
    payload, signatures = _opened(envelope)
    message = pae(PAYLOAD_TYPE, payload)
    for signature in signatures:
        try:
            public_key.verify(_decoded(signature["sig"], "sig"), message)
            return _statement(payload)
        except InvalidSignature:
            continue
    named = ", ".join(str(signature.get("keyid"))[:12] for signature in signatures)
    if all(signature.get("keyid") != key_id(public_key) for signature in signatures):
        raise TamperedError(f"the envelope is signed by another key ({named}…), expected {key_id(public_key)[:12]}…")
    raise TamperedError("the signature does not fit: the content was changed after it was signed")


def consistent(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The statement, if it was signed by the key that the envelope itself carries: consistent, *signer unknown*.

    Raises:
        InputError: if ``envelope`` is no envelope, or carries no key.
        TamperedError: if the signature does not fit, or the key is not the one its keyid names.

    Guarantee: none against someone who signs a changed statement anew with a key of his own; use `verify` for that.
    """
    _, signatures = _opened(envelope)
    if len(signatures) != 1:
        raise TamperedError(f"the envelope bears {len(signatures)} signatures, ours bear one")
    carried = signatures[0].get("publicKey")
    if not isinstance(carried, str):
        raise InputError("the envelope carries no public key; ask the signer for it and verify with that")
    key = _public(carried.encode(), "the key in the envelope")
    if signatures[0].get("keyid") != key_id(key):
        raise TamperedError("the key that the envelope carries is not the one that its keyid names")
    return verify(envelope, key)


def written_again(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope as :func:`sign` writes it, from what it decodes to: anything else in it is somebody else's.

    Raises:
        InputError: if ``envelope`` is no envelope, or carries no key.
    """
    payload, signatures = _opened(envelope)
    key = _public(str(signatures[0].get("publicKey")).encode(), "the key in the envelope")
    return _envelope(canonical_json(_statement(payload)), _decoded(signatures[0]["sig"], "sig"), key)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed, with type and lengths, so nothing can shift."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """SHA-256 (hex) of the raw public key."""
    raw = _public_of(key).public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def public_pem(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The public key as PEM text, to be handed out."""
    return _public_of(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signing_key(create: bool = True) -> Ed25519PrivateKey:
    """This installation's private key, from the state folder (mode 0600); made on first use if ``create``.

    Raises:
        InputError: if there is none and ``create`` is false, others have access to the file, or it holds no unencrypted
            Ed25519 key.
    """
    path = key_path(_KEY_FILE)
    if path.exists():
        content = read_private(path)
    elif create:
        fresh = Ed25519PrivateKey.generate()
        content = create_once(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    else:
        raise InputError(f"there is no signing key at {path}; create one first, or set EXPUNGE_HOME to where yours is")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} holds no private key that can be used: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} holds a key of another kind, expected Ed25519")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """A public key from a file: PEM, 64 hex digits, or 32 raw bytes.

    Raises:
        InputError: if the file is missing or holds anything else; a private key is refused by name.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path} is no regular file; name the file that holds the public key")
            content = file.read(_LARGEST_KEY + 1)
    except OSError as error:
        raise in_words(error, f"{path} cannot be read") from None
    if len(content) > _LARGEST_KEY:
        raise InputError(f"{path} has more than {_LARGEST_KEY:,} bytes; it is no public key")
    return _public(content, str(path))


def _without_waiting(path: str, flags: int) -> int:
    """An opener for files that may be pipes: nobody waits for their other end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _public(content: bytes, name: str) -> Ed25519PublicKey:
    if b"PRIVATE KEY" in content:
        raise InputError(f"{name} is a private key; verifying needs the public one, and the private one is for nobody")
    try:
        if content.lstrip().startswith(b"-----BEGIN"):
            key = load_pem_public_key(content)
            if not isinstance(key, Ed25519PublicKey):
                raise InputError(f"{name} is a key of another kind, expected Ed25519")
            return key
        raw = content if len(content) == 32 else bytes.fromhex(content.decode("ascii").strip())
        return Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{name} is no Ed25519 public key; expected PEM, 64 hex digits or 32 bytes") from None


def _public_of(key: Ed25519PrivateKey | Ed25519PublicKey) -> Ed25519PublicKey:
    return key.public_key() if isinstance(key, Ed25519PrivateKey) else key


def _opened(envelope: Mapping[str, Any]) -> tuple[bytes, list[Mapping[str, Any]]]:
    try:
        kind, payload, signatures = envelope["payloadType"], envelope["payload"], list(envelope["signatures"])
        if not signatures or not all(isinstance(signature["sig"], str) for signature in signatures):
            raise InputError("the envelope carries no signature")
    except (TypeError, KeyError, AttributeError):
        raise InputError("expected a DSSE envelope with payload, payloadType and signatures") from None
    if kind != PAYLOAD_TYPE:
        raise InputError(f"the envelope holds {kind!r}, expected {PAYLOAD_TYPE!r}")
    return _decoded(payload, "payload"), signatures


def _decoded(text: Any, name: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii").translate(_URL_SAFE), validate=True)
    except (AttributeError, ValueError, binascii.Error):
        raise InputError(f"the {name} of the envelope is not base64") from None


_URL_SAFE = bytes.maketrans(b"-_", b"+/")  # DSSE allows both alphabets


def _statement(payload: bytes) -> dict[str, Any]:
    value = parse_json(payload, "the signed statement")
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise InputError(f"the envelope holds no in-toto statement of type {STATEMENT_TYPE}")
    return value
