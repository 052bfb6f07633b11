from __future__ import annotations

import base64
import copy
import hashlib
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from expunge.core.errors import InputError, TamperedError
from expunge.report.signing import (
    consistent,
    key_id,
    load_public_key,
    pae,
    public_pem,
    sign,
    signing_key,
    statement,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
STATEMENT = statement({"model.safetensors": "a" * 64, "evidence.json": "b" * 64}, "urn:expunge:evidence:1", {"ε": 1.0})
ENVELOPE = sign(STATEMENT, KEY)


def with_payload(payload: bytes, **changes) -> dict:
    return ENVELOPE | {"payload": base64.b64encode(payload).decode()} | changes


def test_round_trip():
    assert verify(json.loads(json.dumps(ENVELOPE)), KEY.public_key()) == STATEMENT
    assert consistent(ENVELOPE) == STATEMENT
    assert [subject["name"] for subject in STATEMENT["subject"]] == ["evidence.json", "model.safetensors"]
    assert STATEMENT["_type"] == "https://in-toto.io/Statement/v1"
    assert ENVELOPE["payloadType"] == "application/vnd.in-toto+json"


def test_the_encoding_is_the_one_of_dsse():
    # example of the DSSE protocol text
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", "ä".encode()) == b"DSSEv1 0  2 \xc3\xa4"


def test_the_signature_is_plain_ed25519_over_it():
    payload = base64.b64decode(ENVELOPE["payload"])
    KEY.public_key().verify(base64.b64decode(ENVELOPE["signatures"][0]["sig"]), pae(ENVELOPE["payloadType"], payload))
    raw = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert ENVELOPE["signatures"][0]["keyid"] == hashlib.sha256(raw).hexdigest() == key_id(KEY)
    assert sign(STATEMENT, KEY) == ENVELOPE, "Ed25519 is deterministic"


def test_every_changed_byte_is_found():
    payload = base64.b64decode(ENVELOPE["payload"])
    for position in range(len(payload)):
        changed = bytearray(payload)
        changed[position] ^= 1
        with pytest.raises(TamperedError, match="changed after"):
            verify(with_payload(bytes(changed)), KEY.public_key())
    signature = base64.b64decode(ENVELOPE["signatures"][0]["sig"])
    for position in range(len(signature)):
        changed = bytearray(signature)
        changed[position] ^= 1
        envelope = copy.deepcopy(ENVELOPE)
        envelope["signatures"][0]["sig"] = base64.b64encode(changed).decode()
        with pytest.raises(TamperedError):
            verify(envelope, KEY.public_key())


def test_another_signer_is_named():
    with pytest.raises(TamperedError, match="another key"):
        verify(ENVELOPE, OTHER.public_key())
    forged = sign(STATEMENT, OTHER)
    forged["signatures"][0] |= {"keyid": key_id(KEY), "publicKey": public_pem(KEY)}
    with pytest.raises(TamperedError, match="changed after"):
        verify(forged, KEY.public_key())
    with pytest.raises(TamperedError):
        consistent(forged)


def test_consistent_does_not_know_the_signer():
    assert consistent(sign(STATEMENT, OTHER)) == STATEMENT
    envelope = copy.deepcopy(ENVELOPE)
    envelope["signatures"][0]["publicKey"] = public_pem(OTHER)
    with pytest.raises(TamperedError, match="keyid"):
        consistent(envelope)
    del envelope["signatures"][0]["publicKey"]
    with pytest.raises(InputError, match="carries no public key"):
        consistent(envelope)


def test_one_good_signature_among_several_is_enough():
    envelope = copy.deepcopy(ENVELOPE)
    envelope["signatures"].insert(0, sign(STATEMENT, OTHER)["signatures"][0])
    assert verify(envelope, KEY.public_key()) == STATEMENT


def test_url_safe_base64_is_read():
    envelope = copy.deepcopy(ENVELOPE)
    for holder, field in ((envelope, "payload"), (envelope["signatures"][0], "sig")):
        holder[field] = base64.urlsafe_b64encode(base64.b64decode(holder[field])).decode()
    assert verify(envelope, KEY.public_key()) == STATEMENT


@pytest.mark.parametrize(
    "envelope",
    [
        None,
        [],
        {},
        ENVELOPE | {"signatures": []},
        ENVELOPE | {"signatures": [1]},
        ENVELOPE | {"signatures": [{"sig": 1}]},
        ENVELOPE | {"signatures": [{"sig": "*"}]},
        ENVELOPE | {"payload": "*"},
        ENVELOPE | {"payload": 1},
        ENVELOPE | {"payloadType": "text/plain"},
        sign({"_type": "other"}, KEY),
    ],
)
def test_what_is_no_envelope_is_refused(envelope):
    with pytest.raises(InputError):
        verify(envelope, KEY.public_key())


@pytest.mark.parametrize(
    ("subjects", "kind"),
    [({}, "urn:x"), ({"a": "A" * 64}, "urn:x"), ({"a": None}, "urn:x"), ({"a": "a" * 64}, "no uri")],
)
def test_a_statement_is_about_something(subjects, kind):
    with pytest.raises(InputError):
        statement(subjects, kind, {})


def test_a_statement_is_json():
    with pytest.raises(InputError, match="not JSON"):
        sign(STATEMENT | {"predicate": {"x": float("inf")}}, KEY)


def test_the_signing_key_is_made_once_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "state"))
    with pytest.raises(InputError, match="no signing key"):
        signing_key(create=False)
    key = signing_key()
    assert key_id(signing_key(create=False)) == key_id(key)
    path = tmp_path / "state" / "signing-key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        signing_key()
    path.chmod(0o600)
    for content in (b"", b"nonsense", pem(generate_private_key(SECP256R1()))):
        path.write_bytes(content)
        with pytest.raises(InputError):
            signing_key()


def pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_public_keys_are_read_in_three_forms(tmp_path):
    raw = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for content in (public_pem(KEY).encode(), raw, raw.hex().encode() + b"\n", raw.hex().upper().encode()):
        (tmp_path / "key").write_bytes(content)
        assert key_id(load_public_key(tmp_path / "key")) == key_id(KEY)


def test_what_is_no_public_key_is_refused(tmp_path):
    path: Path = tmp_path / "key"
    curve = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for content, words in [
        (b"", "no Ed25519"),
        (b"zz" * 32, "no Ed25519"),
        (b"\xff" * 64, "no Ed25519"),
        (b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", "no Ed25519"),
        (pem(KEY), "private key"),
        (curve, "another kind"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            load_public_key(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_public_key(tmp_path / "missing")
