"""Folders that are meant to harm whoever checks them: nothing is written, no link followed, nothing inflated or looped over."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from safetensors.torch import save_file

import expunge.core
from expunge.auditing import chosen_by_key
from expunge.core.digest import digest_arrays, digest_json
from expunge.core.errors import TamperedError
from expunge.report import html
from expunge.report.verify import reading, verify_folder
from expunge.report.verify.findings import found as made
from expunge.report.verify.reading import UntrustedFolder, digest_of_tensors

from .folders import build, copy, record_of, rewrite, sign


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")
        yield build(tmp_path_factory.mktemp("hostile"), published=False)


@pytest.fixture
def folder(honest, tmp_path) -> Path:
    return copy(honest, tmp_path)


def found(folder: Path) -> dict[str, str]:
    return {check.name: check.problem for check in verify_folder(folder).checks if check.problem}


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in sorted(folder.rglob("*"))}


def test_nothing_is_written(folder):
    before = states(folder.parent)
    verify_folder(folder)
    (folder / "models" / "extra").write_bytes(b"")
    (folder / "models" / "extra").unlink()
    before = states(folder.parent)
    verify_folder(folder)
    assert states(folder.parent) == before


def test_everybody_may_read_what_may_be_shown(honest):
    mask = os.umask(0)
    os.umask(mask)
    for path in (honest, honest / "models"):
        assert path.stat().st_mode & 0o777 == 0o777 & ~mask


def test_settings_that_nest_without_end_are_refused_before_they_are_composed(folder):
    """PyYAML takes minutes over some ten thousand open brackets; the depth is known after fifty."""
    (folder / "config.yaml").write_text("a: " + "[" * 60_000)
    assert "nested too deeply" in found(folder)["copies of the record"]


def test_giant_and_deep_json_is_refused_before_it_is_parsed(folder):
    for content in (
        b"[" * 40_000_000,
        b"[" * 1_000_000,
        b"[[]," * 2_000_000 + b"[]]",
        b'{"a":' * 100_000,
        b"1" * 5_000_000,
    ):
        for name in ("evidence.json", "statement.json", "ledger.json"):
            kept = (folder / name).read_bytes()
            (folder / name).write_bytes(content)
            assert found(folder)
            (folder / name).write_bytes(kept)


def test_a_pdf_that_inflates_is_not_inflated(folder):
    machine = zlib.compressobj(9)
    bomb = b"".join(machine.compress(bytes(2**20)) for _ in range(300)) + machine.flush()
    head = b"%%PDF-1.7\n1 0 obj\n<</Length %d/Type/EmbeddedFile/Filter/FlateDecode>>\nstream\n" % len(bomb)
    (folder / "report.pdf").write_bytes(head + bomb + b"\nendstream\nendobj\n")
    assert "report.pdf" in found(sign(folder))
    with pytest.raises(TamperedError, match="more than"):
        reading.inflated(bomb, 2**20)


def header(**tensors) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"", struct.pack("<Q", 2**62), struct.pack("<Q", 2**30) + b"{}", header(),
        header(a={"dtype": "F64", "shape": [2**62], "data_offsets": [0, 8]}) + bytes(8),
        header(**{name: {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]} for name in "ab"}) + bytes(8),
        header(a={"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}) + bytes(16),
        header(a={"dtype": "F64", "shape": [-1, -1], "data_offsets": [0, 8]}) + bytes(8),
        header(a={"dtype": "F64", "shape": [True], "data_offsets": [0, 8]}) + bytes(8),
        header(a={"dtype": "X", "shape": [1], "data_offsets": [0, 8]}) + bytes(8),
        header(a=[1]), struct.pack("<Q", 8) + b"[" * 8,
    ],
)  # fmt: skip
def test_weights_that_are_none_are_refused_from_their_header(folder, content):
    name = record_of(folder)["runs"][0]["model"]["file"]
    (folder / name).write_bytes(content)
    assert any("released model" in place for place in found(sign(folder)))


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "bool"])
def test_weights_read_in_blocks_have_the_digest_of_tensors(tmp_path, kind, monkeypatch):
    import torch

    monkeypatch.setattr(reading, "_BLOCK", 7)
    tensors = {
        "b": torch.arange(12).reshape(3, 4).to(getattr(torch, kind)), "a": torch.ones((), dtype=getattr(torch, kind)),
        "c": torch.zeros(0, 5, dtype=getattr(torch, kind)),
    }  # fmt: skip
    save_file(tensors, tmp_path / "w.safetensors", {"format": "pt"})
    assert digest_of_tensors(UntrustedFolder(tmp_path), "w.safetensors") == digest_arrays(tensors)


def test_a_ledger_with_code_of_its_own_is_refused_before_it_runs(folder):
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        db.execute("CREATE TRIGGER own AFTER INSERT ON entries BEGIN SELECT randomblob(1000000000); END")
    assert "own" in found(folder)["ledger"]
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        db.executescript("DROP TRIGGER own; ALTER TABLE entries RENAME TO hidden; CREATE VIEW entries AS "
                         "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n;")  # fmt: skip
    assert "structure" in found(folder)["ledger"]


def test_a_value_of_a_ledger_may_not_be_huge(folder):
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        db.executescript(
            "DROP TRIGGER no_update; UPDATE entries SET payload = zeroblob(20000000) || '' WHERE sequence = 1;"
        )
    assert "ledger" in found(folder)


@pytest.mark.parametrize("name", ["-wal", "-shm", "-journal"])
def test_files_beside_a_ledger_are_not_read(folder, name):
    (folder / f"ledger.sqlite{name}").write_bytes(b"x" * 100)
    before = states(folder)
    assert f"ledger.sqlite{name} is not signed" in found(folder)["every file as signed, and no other"]
    assert states(folder) == before


def test_links_pipes_and_too_many_files_are_not_opened(folder, tmp_path):
    (folder / "config.yaml").unlink()
    os.mkfifo(folder / "config.yaml")  # opening it would wait for ever
    problems = found(folder)
    assert "no regular file" in problems["every file as signed, and no other"] and "copies of the record" in problems
    (folder / "ledger.sqlite").rename(tmp_path / "elsewhere")
    (folder / "ledger.sqlite").symlink_to(tmp_path / "elsewhere")
    assert "is gone" in found(folder)["ledger"]
    (folder / "loop").symlink_to(folder)
    assert "loop is a link" in found(folder)["every file as signed, and no other"]
    deep = folder / "/".join("d" * 1 for _ in range(12))
    deep.mkdir(parents=True)
    assert "deeper" in found(folder)["files"]


def test_too_many_files_are_refused(folder, monkeypatch):
    monkeypatch.setattr(reading, "MOST_FILES", 5)
    assert "more than 5 files" in found(folder)["files"]


def test_a_check_that_takes_too_long_is_stopped_and_so_are_those_after_it():
    def forever():
        while True:
            pass

    clock = reading.Clock(0.05)
    for _ in range(2):
        assert "0.05 seconds of processor time" in made("loop", forever, clock).problem


def test_weights_that_the_time_does_not_suffice_for_are_skipped_by_name_and_accuse_nobody(folder):
    seen = {check.name: check for check in verify_folder(folder, seconds=60).checks}
    assert all(check.ok and not check.skipped for check in seen.values())
    name = record_of(folder)["runs"][0]["model"]["file"]
    files = UntrustedFolder(folder, reading.Clock(-1))
    found = made("released model", lambda: digest_of_tensors(files, name), files.clock)
    assert found.ok and f"{name} is too large" in found.skipped and "--seconds" in found.skipped


def test_weights_have_no_more_bytes_than_the_numbers_of_the_record_take(folder, monkeypatch):
    """A sparse file of any size costs nothing: it is refused before its first byte is read."""
    record = record_of(folder)
    model = record["runs"][0]["model"]
    (folder / model["file"]).touch()
    os.truncate(folder / model["file"], 2**20 + 8 * model["parameters"] + 1)
    monkeypatch.setattr("expunge.report.verify.LARGEST", 2**20)
    problems = found(sign(folder))
    assert any("takes at most" in problem for name, problem in problems.items() if "released model" in name)
    assert "takes at most" in problems["every file as signed, and no other"]


def test_settings_that_refer_to_themselves_are_refused(folder):
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    (folder / "config.yaml").write_text(bomb)
    assert "refers to parts of itself" in found(sign(folder))["copies of the record"]


def fact(value):
    return {"value": value, "origin": "declared", "note": ""}


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda record: record.update(title="W " * 30_000), "letters in one text"),
        (
            lambda record: record["runs"][0]["facts"].update({f"f{i}": fact("W " * 24_000) for i in range(45)}),
            "letters",
        ),
        (lambda record: record["runs"][0]["facts"].update(many=fact([0] * 300_000)), "values"),
    ],
)
def test_a_record_that_would_choke_its_pages_is_refused_before_they_are_made(folder, monkeypatch, change, said):
    """Libraries that set text cannot be stopped: 20 MB of words take minutes and gigabytes."""
    rewrite(folder, change)
    monkeypatch.setattr("expunge.report.sheet.sheet", lambda *_: pytest.fail("a page was made"))
    monkeypatch.setattr(html, "render", lambda *_: pytest.fail("a page was made"))
    problems = found(folder)
    assert said in problems["evidence record"] and "none of ours has" in problems["evidence record"]
    assert problems["report.html"] == problems["evidence record"]


def test_who_matched_stands_on_no_page_and_may_be_many(folder):
    rewrite(folder, lambda record: record["request"]["matched"].update(ids=["0" * 64] * 40_000))
    assert "evidence record" not in found(folder)


BOUNDED = """
import resource, sys
from expunge.report.verify import verify_folder
result = verify_folder(sys.argv[1])
used = resource.getrusage(resource.RUSAGE_SELF)
print(result.exit_code, used.ru_maxrss // 1024, used.ru_utime + used.ru_stime)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["values", "pdf", "weights", "measurements"])
def test_hostile_folders_cost_less_than_a_minute_and_a_gigabyte(folder, kind):
    if kind == "values":
        (folder / "evidence.json").write_bytes(b"[" + b"[]," * 2_900_000 + b"[]]")
    elif kind == "pdf":
        test_a_pdf_that_inflates_is_not_inflated(folder)
    elif kind == "weights":
        name = record_of(folder)["runs"][0]["model"]["file"]
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", 31 * 2**20) + b" " * (31 * 2**20))
            file.truncate(3 * 2**30)
        sign(folder)
    else:
        record = record_of(folder)
        record["runs"][0]["evidence"]["measurements"] *= 1500
        (folder / "evidence.json").write_text(json.dumps(record))
    env = os.environ | {"PYTHONPATH": str(Path(next(iter(expunge.core.__path__))).parents[1])}
    done = subprocess.run([sys.executable, "-c", BOUNDED, folder], capture_output=True, text=True, env=env, check=True)
    code, megabytes, seconds = done.stdout.split()
    assert code == "1" and int(megabytes) < 1024 and float(seconds) < 60, done.stdout


def test_which_examples_an_audit_chooses_follows_from_request_and_key_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "one"))
    first, same, other = chosen_by_key("req-1"), chosen_by_key("req-1"), chosen_by_key("req-2")
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "two"))
    assert first == same and len({first, other, chosen_by_key("req-1")}) == 3
