"""What a referee put into folders without touching the record: every file is one that the record lists, or is found."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from safetensors.torch import load_file, save

from expunge.core.errors import InputError
from expunge.ledger import Ledger
from expunge.report import signing
from expunge.report.folder import PREDICATE, as_json
from expunge.report.verify import verify_folder

from .folders import build, copy, record_of, sign


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def in_one_breath(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("breath"), published=False)


def problems(folder: Path, base: Path, **options) -> dict[str, str]:
    """Of a folder that its own owner signed: check → problem, with key and, of a published model, ledger."""
    ledger = base.parent / "model" / "ledger.sqlite"
    result = verify_folder(
        folder, signing.signing_key().public_key(), ledger=ledger if ledger.exists() else None, **options
    )
    return {check.name: check.problem for check in result.checks if check.problem}


def owned(folder: Path) -> Path:
    return sign(folder, signing.signing_key())


def config(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.yaml").write_text(change((folder / "config.yaml").read_text()))


def weights(folder: Path) -> Path:
    (path,) = (folder / "models").glob("*.safetensors")
    return path


def padded(folder: Path) -> None:
    path = weights(folder)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + b" " * 800
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


CHANGES: dict[str, Callable[[Path], object]] = {
    "another person in the settings": config(lambda text: text + "request: {subject: John Smith}\n"),
    "a comment in the settings": config(lambda text: text + "# approved by the regulator\n"),
    "a setting that no run had": config(lambda text: text + "data: {standardise: true}\n"),
    "no settings": config(lambda text: "{}\n"),
    "a page of the forger's": lambda folder: (folder / "certificate.html").write_text("approved"),
    "other weights": lambda folder: (folder / "models" / "other.safetensors").write_bytes(weights(folder).read_bytes()),
    "text in the weights": lambda folder: weights(folder).write_bytes(
        save(load_file(weights(folder)), {"format": "pt", "secret": "row 17: 52, 74.2"})
    ),
    "padding in the weights": padded,
    "white space in the excerpt": lambda folder: (folder / "ledger.json").write_text(
        (folder / "ledger.json").read_text() + " "
    ),
    "an empty folder": lambda folder: (folder / "APPROVED").mkdir(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_even_the_owner_cannot_add_to_a_folder_or_change_a_file_in_it(published, tmp_path, name):
    assert not problems(owned(copy(published, tmp_path / "untouched")), published)
    folder = copy(published, tmp_path)
    CHANGES[name](folder)
    assert problems(owned(folder), published)


@pytest.mark.parametrize("change", ["twice", "digest"])
def test_a_statement_lists_each_file_once_under_one_digest(published, tmp_path, change):
    folder = copy(published, tmp_path)
    envelope = json.loads((folder / "statement.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicateType"] == PREDICATE
    if change == "twice":
        statement["subject"].append(statement["subject"][0])
    else:
        statement["subject"][0]["digest"]["md5"] = "00"
    (folder / "statement.json").write_bytes(as_json(signing.sign(statement, signing.signing_key())))
    assert "in another way than ours" in problems(folder, published)["every file as signed, and no other"]


def test_a_ledger_that_the_record_puts_elsewhere_is_no_ledger_in_the_folder(published, tmp_path):
    key = signing.signing_key().public_key()
    for made in (b"row 17: Jane Roe", (published.parent / "model" / "ledger.sqlite").read_bytes()):
        folder = copy(published, tmp_path / str(len(made)))
        assert record_of(folder)["live_ledger"] == "elsewhere"
        (folder / "ledger.sqlite").write_bytes(made)
        assert "ledger.sqlite is not signed" in problems(folder, published)["every file as signed, and no other"]
        assert verify_folder(folder, key).exit_code == 1


def test_what_was_appended_to_a_ledger_in_the_folder_is_found_or_counted(in_one_breath, tmp_path):
    folder = copy(in_one_breath, tmp_path)
    with (folder / "ledger.sqlite").open("ab") as file:
        file.write(b"row 17: Jane Roe")
    assert "not those of its pages" in problems(folder, in_one_breath)["ledger"]
    again = copy(in_one_breath, tmp_path / "again")
    identity = record_of(again)["request"]["id"]
    with Ledger(again / "ledger.sqlite") as ledger:
        ledger.append("request", "req-later", {"id": "req-later"})
    key = signing.signing_key().public_key()
    (note,) = [check.note for check in verify_folder(again, key).checks if check.name == "ledger"]
    assert "came after the signed excerpt; only a later checkpoint speaks for them" in note
    for kind, payload in (("decision", {"decision": "refuse"}), ("fulfilment", {"evidence": "0" * 64})):
        later = copy(again, tmp_path / kind)
        with Ledger(later / "ledger.sqlite") as ledger:
            ledger.append(kind, f"{identity}/9", payload)
        assert problems(later, in_one_breath)["ledger"], kind


def test_an_index_that_hides_entries_is_damage(in_one_breath, tmp_path):
    folder = copy(in_one_breath, tmp_path)
    path = folder / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as db:
        size = db.execute("PRAGMA page_size").fetchone()[0]
        indexes = "SELECT rootpage FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'entries'"
        pages = [page for (page,) in db.execute(indexes)]
    content = bytearray(path.read_bytes())
    assert pages
    for page in pages:
        start = (page - 1) * size
        at = content.index(b"req-", start, start + size)
        content[at : at + 4] = b"rex-"
    path.write_bytes(content)
    assert "damaged" in problems(folder, in_one_breath)["ledger"]


@pytest.mark.parametrize("kind", ["device", "pipe", "large"])
def test_a_key_is_a_small_file_and_nobody_waits_for_one(tmp_path, kind):
    path = tmp_path / "key"
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(bytes(2**17))
    with pytest.raises(InputError, match=r"no regular file|no public key"):
        signing.load_public_key(path)


def test_a_file_too_large_for_one_of_ours_is_found_before_it_is_read(published, tmp_path):
    folder = copy(published, tmp_path)
    with (folder / "evidence.json").open("r+b") as file:
        file.truncate(2**40)  # takes no room
    assert "evidence.json has more than" in problems(folder, published)["every file as signed, and no other"]
