from __future__ import annotations

import errno
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from expunge.core.digest import digest_file
from expunge.core.errors import InputError
from expunge.core.files import write_atomic
from expunge.report import folder as folders
from expunge.report import pdf, signing
from expunge.report.verify import verify_folder

from . import worlds


@pytest.fixture(scope="session")
def record(certified) -> dict:
    """With what the ledger beside the model shows of the request."""
    excerpt, decision = certified.after.book.shown(certified.request["id"])
    return worlds.record_of(certified, ledger=excerpt, decision=decision)


def write(folder: Path, certified, record, **options):
    return folders.write_evidence(
        folder, record, {"toy head": certified}, "method: r2d\n", signing_key=worlds.KEY, **{"pdf": False, **options}
    )


def test_every_file_is_listed_and_signed(written):
    statement = signing.verify(json.loads((written / "statement.json").read_text()), worlds.KEY.public_key())
    listed = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    assert listed.keys() == folders.names_in(written) - {"statement.json"}
    assert listed.keys() >= {
        "evidence.json", "report.html", "config.yaml", "environment.json", "ledger.json", "models/toy-head.safetensors",
    }  # fmt: skip
    assert all(digest_file(written / name) == digest for name, digest in listed.items())
    assert statement["predicate"]["verdicts"] == {"toy head": "certified"}
    assert statement["predicate"]["pdf"] == (written / "report.pdf").exists() == pdf.available()


def test_private_material_is_beside_it_not_in_it(written):
    private = folders.private_path(written)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    file = private / "measured-toy-head.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["realised_epsilon"] == worlds.SECRET
    for path in written.rglob("*"):
        if path.is_file():
            assert str(worlds.SECRET).encode() not in path.read_bytes(), path


def test_nobody_is_named_anywhere(written):
    for path in written.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            content += pdf.attached(content, 2**24)
            for name in (worlds.SUBJECT, worlds.USER, "other-7"):
                assert name.encode() not in content, (path, name)


@pytest.mark.usefixtures("cheap_page")
def test_writing_it_again_is_fine_and_takes_away_what_is_gone(tmp_path, certified, record):
    out = tmp_path / "out"
    write(out, certified, record)
    (out / "report.pdf").write_bytes(b"of an earlier try")
    (out / ".0123456789abcdef.part").write_bytes(b"of a process that died")
    (out / "models" / "old.safetensors").write_bytes(b"of an earlier name")
    (out / "models" / "folder").mkdir()
    (out / "models" / "folder" / "tokenizer.json").write_bytes(b"of an earlier name")
    write(out, certified, record)
    assert verify_folder(out, worlds.KEY.public_key()).consistent
    assert not (out / "report.pdf").exists() and not (out / "models" / "old.safetensors").exists()
    assert not (out / "models" / "folder" / "tokenizer.json").exists()


@pytest.mark.usefixtures("cheap_page")
def test_what_is_not_ours_stays(tmp_path, certified, record):
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "thesis.doc").write_text("precious")
    with pytest.raises(InputError, match="holds no evidence"):
        write(busy, certified, record)
    out = tmp_path / "out"
    write(out, certified, record)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not evidence: notes\.txt"):
        write(out, certified, record)
    assert (busy / "thesis.doc").read_text() == "precious" and (out / "notes.txt").exists()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="no folder"):
        write(file, certified, record)


@pytest.mark.usefixtures("cheap_page")
def test_evidence_of_another_request_stays(tmp_path, certified, record):
    write(tmp_path / "out", certified, record)
    with pytest.raises(InputError, match="holds evidence of request"):
        write(tmp_path / "out", certified, {**record, "request": {**record["request"], "id": "req-another"}})
    (tmp_path / "out" / "evidence.json").write_text('{"format": "something else"}')
    with pytest.raises(InputError, match="not evidence of this version"):
        write(tmp_path / "out", certified, record)


@pytest.mark.usefixtures("cheap_page")
def test_only_the_release_is_taken_for_the_release(tmp_path, certified, record):
    with pytest.raises(InputError, match="Expected the release of 'toy head'"):
        folders.write_evidence(tmp_path / "out", record, {"other": certified}, "", signing_key=worlds.KEY)
    before = replace(certified.releases[0], artifact=certified.before.artifact)
    wrong = {"toy head": replace(certified, releases=(before,))}
    with pytest.raises(InputError, match="not those that the record speaks of"):
        folders.write_evidence(tmp_path / "out", record, wrong, "", signing_key=worlds.KEY)
    assert not (tmp_path / "out").exists(), "refused before the first byte"


@pytest.mark.usefixtures("cheap_page")
def test_a_folder_that_was_not_finished_does_not_verify(tmp_path, certified, record, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(signing, "sign", killed)
        write(tmp_path / "out", certified, record)
    result = verify_folder(tmp_path / "out")
    assert not result.consistent and "never finished" in result.checks[0].problem
    write(tmp_path / "out", certified, record)
    assert verify_folder(tmp_path / "out").consistent


@pytest.mark.usefixtures("cheap_page")
def test_a_folder_whose_writing_failed_at_any_file_is_written_again(tmp_path, certified, record, monkeypatch):
    """Whatever was written before is known as evidence of this request: nothing keeps the same call from ending well."""
    count = len(write(tmp_path / "whole", certified, record)) - 1  # all but the statement
    for failing in range(count):
        left = [failing]

        def fails(path, content, private=False, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            write_atomic(path, content, private)

        folder = tmp_path / f"out-{failing}"
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(folders, "write_atomic", fails)
            write(folder, certified, record)
        write(folder, certified, record)
        assert verify_folder(folder).consistent


@pytest.mark.usefixtures("cheap_page")
def test_without_the_extra_there_is_no_pdf_and_the_signature_says_so(tmp_path, certified, record, monkeypatch):
    monkeypatch.setattr(pdf, "available", lambda: False)
    paths = write(tmp_path / "out", certified, record, pdf=True)
    assert "report.pdf" not in paths and not (tmp_path / "out" / "report.pdf").exists()
    statement = signing.consistent(json.loads((tmp_path / "out" / "statement.json").read_text()))
    assert statement["predicate"]["pdf"] is False


@pytest.mark.usefixtures("cheap_page")
def test_an_open_private_folder_is_refused(tmp_path, certified, record):
    folders.private_path(tmp_path / "out").mkdir(mode=0o755)
    with pytest.raises(InputError, match="must be private"):
        write(tmp_path / "out", certified, record, private={"toy head": {"scores": [1.0]}})


@pytest.mark.usefixtures("cheap_page")
def test_one_call_from_python(tmp_path, certified, monkeypatch):
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "home"))
    import expunge

    out = tmp_path / "evidence"
    paths = expunge.write_report(worlds.evidence(certified), out, name="toy", pdf=False)
    assert {"evidence.json", "report.html", "models/toy.safetensors", "statement.json"} <= paths.keys()
    assert "rewind: 0.5" in (out / "config.yaml").read_text()
    result = verify_folder(out, signing.signing_key().public_key())
    assert (result.message, result.exit_code) == ("consistent, signer known; not checked: ledger", 6)
    assert (tmp_path / "evidence.private" / "measured-toy.json").exists()


@pytest.mark.usefixtures("cheap_page")
def test_a_control_and_an_exact_retraining_can_be_reported(tmp_path):
    for method in ("no_op", "retrain"):
        found = worlds.outcome(method)
        folders.write_report(worlds.evidence(found, None), tmp_path / method, signing_key=worlds.KEY, pdf=False)
        result = verify_folder(tmp_path / method, worlds.KEY.public_key())
        assert result.consistent, [check for check in result.checks if not check.ok]
