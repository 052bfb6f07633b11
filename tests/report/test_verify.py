from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from expunge.core.digest import digest_file
from expunge.core.errors import InputError
from expunge.ledger import Ledger
from expunge.ledger.schema import SCHEMA
from expunge.report import html, pdf, signing
from expunge.report.folder import PREDICATE, as_json, names_in, predicate
from expunge.report.verify import verify_folder

from . import worlds

FILES = [
    "evidence.json", "report.html", "config.yaml", "environment.json", "ledger.json", "models/toy-head.safetensors",
    "statement.json",
]  # fmt: skip


def problems(folder: Path, key=None) -> dict[str, str]:
    return {check.name: check.problem for check in verify_folder(folder, key).checks if not check.ok}


def shown_measurement(record: dict) -> dict:
    return next(item for item in record["runs"][0]["evidence"]["measurements"] if not item.get("withheld"))


def rewrite(folder: Path, change: Callable[[dict], object], key=worlds.OTHER) -> None:
    """What a forger does: change the record, draw the page anew, sign everything with a key of his own."""
    record = json.loads((folder / "evidence.json").read_text())
    change(record)
    record["pdf"] = False
    (folder / "evidence.json").write_bytes(as_json(record))
    try:
        (folder / "report.html").write_text(html.render(record))
    except Exception:
        (folder / "report.html").write_text("")
    (folder / "report.pdf").unlink(missing_ok=True)
    resign(folder, key)


def resign(folder: Path, key=worlds.OTHER) -> None:
    record = json.loads((folder / "evidence.json").read_text())
    subjects = {name: digest_file(folder / name) for name in names_in(folder) - {"statement.json"}}
    said = predicate(record, (folder / "report.pdf").exists())
    envelope = signing.sign(signing.statement(subjects, PREDICATE, said), key)
    (folder / "statement.json").write_bytes(as_json(envelope))


def test_with_the_key_the_signer_is_known(written):
    result = verify_folder(written, worlds.KEY.public_key())
    assert result.consistent and result.message == "consistent, signer known" and result.exit_code == 0
    assert json.loads(json.dumps(result.to_json()))["consistent"] is True
    assert any("certificate" in check.name for check in result.checks)
    assert not result.skipped


def test_without_a_key_the_signer_is_unknown(copied):
    result = verify_folder(copied)
    assert (result.message, result.exit_code) == ("consistent, signer unknown", 5)


def test_another_key_is_not_the_signers(copied):
    result = verify_folder(copied, worlds.OTHER.public_key())
    assert not result.consistent and result.signer == "unknown"
    assert list(problems(copied, worlds.OTHER.public_key())) == ["signature"]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(bytes(content))
    result = verify_folder(copied, worlds.KEY.public_key())
    assert not result.consistent and result.message.startswith("NOT consistent")


@pytest.mark.skipif(not pdf.available(), reason="the optional extra pdf (typst) is not installed")
def test_a_changed_pdf_is_found(whole):
    copied = whole
    content = (copied / "report.pdf").read_bytes()
    (copied / "report.pdf").write_bytes(content[:-1] + b" ")
    assert "report.pdf was changed" in problems(copied)["every file as signed, and no other"]
    resign(copied)
    record = json.loads((copied / "evidence.json").read_text())
    (copied / "report.pdf").write_bytes(pdf.render(record, as_json({**record, "title": "another"})))
    resign(copied)
    assert list(problems(copied)) == ["report.pdf"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(copied, name):
    (copied / name).unlink()
    assert problems(copied)


def test_an_added_file_or_link_is_found(copied, tmp_path):
    (copied / "models" / "extra.safetensors").write_bytes(b"")
    assert "extra.safetensors is not signed" in problems(copied)["every file as signed, and no other"]
    (copied / "models" / "extra.safetensors").unlink()
    outside = tmp_path / "outside.yaml"
    outside.write_bytes((copied / "config.yaml").read_bytes())
    (copied / "config.yaml").unlink()
    (copied / "config.yaml").symlink_to(outside)
    assert "config.yaml is a link" in problems(copied)["every file as signed, and no other"]


def certificate(record: dict) -> dict:
    return record["runs"][0]["certificate"]


def test_a_rewrite_that_only_drops_the_pdf_contradicts_the_ledger_and_is_not_the_signers(whole):
    rewrite(whole, lambda record: None)
    assert list(problems(whole, worlds.KEY.public_key())) == ["signature", "ledger"]


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (lambda r: certificate(r).update(epsilon=0.01), "certificate", "epsilon is written as 0.01"),
        (lambda r: certificate(r).update(sigma=99.0), "certificate", "sigma is written as 99.0"),
        (lambda r: certificate(r)["curve"][0].__setitem__(1, 0.5), "certificate", "curve (1) (2) is written"),
        (lambda r: certificate(r)["assumptions"].pop(0), "certificate", "missing"),
        (lambda r: certificate(r)["assumptions"][0].update(status="violated"), "certificate", "written as 'violated'"),
        (lambda r: certificate(r)["binds"].update(release="0" * 64), "certificate", "another release"),
        (lambda r: certificate(r).update(binds={}), "certificate", "cannot be read"),
        (lambda r: r["request"].update(ground="changed"), "certificate", "another request"),
        (lambda r: r["data"].update(retained_digest="0" * 64), "certificate", "another retained"),
        (lambda r: r["runs"][0].update(verdict="as-claimed"), "certificate", "amount to certified"),
        (lambda r: r["runs"][0]["model"].update(digest="0" * 64), "released model", "does not hold"),
        (lambda r: r["runs"][0]["model"].update(file="../../x.safetensors"), "released model", "missing"),
        (lambda r: r["runs"][0]["evidence"].update(verdict="refuted"), "measurements", "amount to"),
        (lambda r: shown_measurement(r).update(ideal=0.1), "measurements", "agrees"),
        (lambda r: r["environment"].update(torch="0.1"), "copies", "environment.json differs"),
        (lambda r: r["request"].update(due="2099-01-01"), "ledger", "filed is not the record's"),
        (lambda r: r["request"]["decision"].update(by="nobody"), "ledger", "decision in the ledger"),
        (lambda r: r["ledger"]["entries"][1]["payload"].update(due="2099-01-01"), "ledger", "changed"),
        (lambda r: r.update(format="expunge-evidence/0"), "evidence record", "expunge-evidence/3"),
        (lambda r: r.pop("environment"), "evidence record", "lacks environment"),
    ],
)  # fmt: skip
def test_a_forger_who_signs_anew_is_caught_by_the_numbers(copied, change, check, says):
    rewrite(copied, change)
    found = {name: text for name, text in problems(copied).items() if check in name}
    assert any(says in text for text in found.values()), problems(copied)


def test_a_page_that_says_something_else_is_found(whole):
    page = (whole / "report.html").read_text()
    (whole / "report.html").write_text(page.replace("at most", "at least", 1))
    resign(whole)
    assert list(problems(whole)) == ["report.html"]


def test_a_page_of_another_version_is_skipped_with_the_reason(copied):
    def older(record):
        record["environment"]["expunge"] = record["expunge"] = "0.0.1"
        (copied / "environment.json").write_bytes(as_json(record["environment"]))

    rewrite(copied, older)
    result = verify_folder(copied)
    (check,) = [check for check in result.checks if check.name == "report.html"]
    assert check.ok and "made with expunge 0.0.1" in check.skipped
    assert "report.html" in result.skipped


def test_words_of_another_source_are_skipped_and_numbers_are_not(copied, monkeypatch):
    """Between two releases of one version number the words of certificates and pages may change."""
    from expunge.report import record as records

    monkeypatch.setattr(records, "source_digest", lambda: "0" * 64)
    checked = verify_folder(copied)
    assert checked.consistent and checked.exit_code == 6
    skipped = {check.name for check in checked.checks if check.skipped}
    assert "report.html" in skipped and any("certificate" in name for name in skipped)
    rewrite(copied, lambda record: certificate(record).update(epsilon=0.01))
    assert any("certificate" in name for name in problems(copied))


def test_the_statement_must_agree_with_the_record(copied):
    envelope = json.loads((copied / "statement.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["verdicts"] = {"toy head": "void"}
    (copied / "statement.json").write_bytes(as_json(signing.sign(statement, worlds.KEY)))
    assert list(problems(copied)) == ["statement agrees with the record"]


def test_a_live_ledger_may_grow_but_not_change(copied):
    with Ledger(copied / "ledger.sqlite") as ledger:
        ledger.append("request", "req-third", {"id": "req-third"})
    assert not problems(copied)
    with sqlite3.connect(copied / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER no_update")
        db.execute("UPDATE entries SET payload = '{}' WHERE sequence = 1")
        db.execute(SCHEMA["no_update"])
    assert "tampered" in problems(copied)["ledger"]
    (copied / "ledger.sqlite").unlink()
    assert "is gone" in problems(copied)["ledger"]
    with Ledger(copied / "ledger.sqlite", create=True) as ledger:
        ledger.append("request", "req-anew", {"id": "req-anew"})
    assert "not the one of the excerpt" in problems(copied)["ledger"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b'{"runs": 3}', b'{"runs": [1, null, {}]}', b"\xff", b"{" * 100_000]
)
def test_garbage_is_a_finding_not_a_crash(copied, content):
    (copied / "evidence.json").write_bytes(content)
    assert problems(copied)
    (copied / "statement.json").write_bytes(content)
    assert problems(copied)


def test_what_is_no_evidence_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        verify_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no evidence folder"):
        verify_folder(tmp_path)


def test_a_folder_of_the_first_format_verifies_and_says_what_its_version_did_not_promise(tmp_path):
    """Written by the version before: its rules were fewer, and its numbers told more."""
    source = Path(__file__).parents[1] / "inputs" / "evidence_of_format_1"
    folder = Path(shutil.copytree(source, tmp_path / "old"))
    found = verify_folder(folder)
    assert found.consistent, [check for check in found.checks if not check.ok]
    assert "did not establish" in found.note and found.note in found.message
    path = folder / "evidence.json"
    path.write_text(path.read_text().replace('"epsilon": 1.0', '"epsilon": 0.5', 1))
    assert not verify_folder(folder).consistent


@pytest.mark.parametrize("version", ["17cc780", "98bee24", "dc9f561"])
def test_folders_and_ledgers_of_earlier_versions_verify(version, tmp_path):
    """One of each form that a record had: first and last of the first two formats. Their pages are left out: they are large."""
    source = Path(__file__).parents[1] / "inputs" / "evidence_of_earlier_versions" / version
    folder = Path(shutil.copytree(source, tmp_path / "old"))
    result = verify_folder(folder)
    assert (result.exit_code, result.skipped) == (6, ("report.html",)), [c for c in result.checks if not c.ok]
    assert result.note and result.note in result.message
    with Ledger(folder / "ledger.sqlite") as ledger:  # carried over
        ledger.append("request", "req-later", {"id": "req-later"})
    assert not problems(folder)
    rewrite(folder, lambda record: certificate(record)["parameters"].update(forget=1))
    assert any("certificate" in name for name in problems(folder))
