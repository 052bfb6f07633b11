from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from expunge.core.errors import InputError
from expunge.core.files import create_once, parse_json, private_folder, read_json, read_private, write_atomic


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_write_replaces_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.bin"
    write_atomic(target, b"old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_private_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "open", b"", private=False)
        write_atomic(tmp_path / "shut", b"", private=True)
    finally:
        os.umask(before)
    assert mode(tmp_path / "open") == 0o666
    assert mode(tmp_path / "shut") == 0o600


def test_write_refuses_in_words(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / "none" / "a", tmp_path / "file" / "a", tmp_path / "folder"):
        with pytest.raises(InputError, match="cannot be written"):
            write_atomic(target, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_failing_disk_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    write_atomic(target, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_create_once_keeps_the_first(tmp_path):
    assert create_once(tmp_path / "k", b"first") == b"first"
    assert create_once(tmp_path / "k", b"second") == b"first"
    assert mode(tmp_path / "k") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_read_private_refuses_an_open_file(tmp_path):
    (tmp_path / "k").write_bytes(b"x")
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        read_private(tmp_path / "k")


def test_private_folder(tmp_path):
    assert mode(private_folder(tmp_path / "a" / "b")) == 0o700
    assert private_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide").chmod(0o750)
    (tmp_path / "file").write_bytes(b"")
    for name, words in [("link", "symbolic"), ("dangling", "symbolic"), ("wide", "chmod 700"), ("file", "exists")]:
        with pytest.raises(InputError, match=words):
            private_folder(tmp_path / name)
    assert mode(tmp_path / "wide") == 0o750, "a folder that others may need is not changed"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a":1,"a":2}', "twice"),
        (b"[" * 10**6, "n"),
    ],
)
def test_not_json(tmp_path, content, words):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_json(tmp_path / "x.json")


def test_json(tmp_path):
    (tmp_path / "x.json").write_text('{"ä": [1, 2.5, null]}', encoding="utf-8")
    assert read_json(tmp_path / "x.json") == {"ä": [1, 2.5, None]}
    assert parse_json("[]", "text") == []
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_json(missing)
