"""Where a run wants to write: what cannot be used is refused before the first byte, and nothing is left behind."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "out is a link to an empty folder": (lambda p: (p / "out").symlink_to(p / "real"), "is a symbolic link"),
    "out is a dangling link": (lambda p: (p / "out").symlink_to(p / "nowhere"), "link"),
    "out is a file": (lambda p: (p / "out").write_text("x"), "out is (a file|no folder)"),
    "out holds a file": (lambda p: (_made(p / "out") / "x").write_text("x"), "holds something already"),
    "private is a link": (lambda p: (p / "out.private").symlink_to(p / "real"), "symbolic link"),
    "private is a file": (lambda p: (p / "out.private").write_text("x"), "is a file"),
    "private is open to others": (lambda p: _made(p / "out.private", 0o755), "must be private"),
    "private holds a journal that is a link": (
        lambda p: (_made(p / "out.private") / "journal-softmaxhead").symlink_to(p / "real"),
        "holds journal-softmaxhead already",
    ),
    "private holds a next model that is a file": (
        lambda p: (_made(p / "out.private") / "next-softmaxhead").write_text("x"),
        "holds next-softmaxhead already",
    ),
    "private holds a next model that is open to others": (
        lambda p: _made(_made(p / "out.private") / "next-softmaxhead", 0o755),
        "holds next-softmaxhead already",
    ),
    "ledger is a dangling link": (lambda p: (p / "ledger.sqlite").symlink_to(p / "real" / "l.sqlite"), "leads nowhere"),
    "ledger is a pipe": (lambda p: os.mkfifo(p / "ledger.sqlite"), "no regular file"),
    "private holds something foreign": (
        lambda p: _made(_made(p / "out.private") / "measured-softmaxhead.json"),
        "holds measured-softmaxhead.json already",
    ),
}


def _made(path: Path, mode: int = 0o700) -> Path:
    path.mkdir(mode=mode, exist_ok=True)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", CASES)
def test_places_that_cannot_be_used_are_refused_before_the_first_byte(refused, job, tmp_path, name):
    prepare, said = CASES[name]
    (tmp_path / "real").mkdir()
    path = job(ledger="ledger.sqlite")
    prepare(tmp_path)
    message = refused("run", path, out="out")
    assert re.search(said, message), message


@pytest.mark.parametrize("ledger", ["out/other.sqlite", "out/models/l.sqlite", "out.private/l.sqlite", "out", "real"])
def test_a_ledger_among_the_files_of_one_request_or_a_folder_is_refused(refused, job, tmp_path, ledger):
    (tmp_path / "real").mkdir()
    message = refused("run", job(ledger=ledger), out="out")
    assert "ledger" in message or "is a folder" in message


def test_names_that_are_too_long_and_parents_that_are_files_are_refused(refused, job, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "too long" in refused("run", job(), out="o" * 250)
    assert "file is no folder" in refused("run", job(), out="file/below")
    assert "holds something already" in refused("run", job(), out=".")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(refused, job, tmp_path):
    _made(tmp_path / "locked", 0o500)
    assert "may not be written" in refused("run", job(), out="locked/out")


def test_odd_names_that_file_systems_take_are_taken(cli, job, tmp_path):
    for out, ledger in (
        ("ünï cödé 名", "l?#%41.sqlite"),
        ("sub/../out?#%00", "x/y/l.sqlite"),
        ("x.private", "m.sqlite"),
    ):
        (tmp_path / "sub").mkdir(exist_ok=True)
        done = cli("run", job(ledger=ledger), "--out", out, "--json")
        assert done.code == 0, done.err
        assert cli("verify", out, "--ledger", ledger).code == 5  # consistent; the signer is not checked


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device", "out/x"), 75, "No space left on device"),
        (OSError(5, "Input/output error"), 75, "run the same command again"),
        (OSError(30, "Read-only file system"), 75, "Read-only"),
        (PermissionError(1, "Operation not permitted", "out"), 75, "Operation not permitted"),
        (MemoryError(), 75, "memory ran out"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 75, "memory ran out"),
        (ImportError("libx.so: failed to map segment from shared object"), 75, "memory ran out"),
        (OSError(36, "File name too long", "x" * 300), 2, "too long"),
        (KeyError("unexpected"), 70, "Traceback"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_exit_codes_tell_a_failing_machine_from_an_error_of_ours(cli, monkeypatch, tmp_path, error, code, said):
    """75: run it again; 70: an unexpected error, whose traceback is printed; 2: a name that no file system takes."""
    from expunge.jobs import requests

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(requests, "list_requests", fail)
    done = cli("requests", "list", "--ledger", tmp_path / "l.sqlite")
    assert done.code == code
    assert said in done.err
    assert ("Traceback" in done.err) == (code == 70)


def test_the_exit_code_says_it_where_nothing_can_be_printed(cli, monkeypatch, tmp_path):
    from expunge.jobs import requests

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            return fail()  # type: ignore[return-value]

    monkeypatch.setattr(requests, "list_requests", fail)
    monkeypatch.setattr(sys, "stderr", Full())
    assert cli("requests", "list", "--ledger", tmp_path / "l.sqlite").code == 75


def test_numbers_and_dates_that_nothing_can_mean_are_refused(refused, job):
    training = {"kind": "stochastic", "epochs": 1, "lr": 0.1}
    plain = {"publish": None, "method": {"name": "fine_tune", "epochs": 1}}
    for wrong in ({"l2": -3}, {"momentum": 5.0}, {"lr": -1}):
        assert "momentum in [0, 1)" in refused("run", job(training=training | wrong, **plain))
    assert "finite" in refused("run", job(training=training | {"lr": float("inf")}, **plain))
    assert "less than" in refused("run", job(seed=10**20))
    request = {"subject": "person 17", "targets": [{"kind": "user", "where": {"person": 17}}]}
    assert "today or earlier" in refused("run", job(request=request | {"received": "9999-12-31"}))
    assert "half a character" in refused(
        "requests", "add", "--ledger", "l.sqlite", "--subject", "\udcff", "--where", "a=1"
    )


def test_a_file_that_is_no_text_is_refused_as_yaml(refused, tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not readable YAML" in refused("run", tmp_path / "job.yaml")
