from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from expunge.core.cache import Cache, default_folder
from expunge.core.digest import digest_json


def never():
    raise AssertionError("computed a second time")


def only_file(folder: Path) -> Path:
    [path] = (path for path in folder.rglob("*") if path.is_file())
    return path


def test_equal_keys_share_a_result(tmp_path):
    cache = Cache(tmp_path / "c")
    assert cache.get_or_compute({"a": 1, "b": 2}, lambda: b"x\ny") == b"x\ny"
    assert cache.get_or_compute({"b": 2, "a": 1}, never) == b"x\ny"
    assert Cache(tmp_path / "c").get_or_compute({"b": 2, "a": 1}, never) == b"x\ny"
    assert cache.get_or_compute({"a": 1, "b": 2.5}, lambda: b"other") == b"other"
    assert cache.get_or_compute("text", lambda: b"") == b""
    assert cache.get_or_compute("text", never) == b""


def test_entries_are_private(tmp_path):
    Cache(tmp_path / "c").get_or_compute("k", lambda: b"x")
    for path in [tmp_path / "c", *(tmp_path / "c").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [lambda old: b"", lambda old: old[:-1], lambda old: old + b"x", lambda old: b"{}\nx", lambda old: b"\xff" + old],
)
def test_a_damaged_entry_is_logged_and_computed_again(tmp_path, caplog, damage):
    cache = Cache(tmp_path)
    cache.get_or_compute("k", lambda: b"good", tags=["t"])
    path = only_file(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get_or_compute("k", lambda: b"good", tags=["t"]) == b"good"
    assert "damaged" in caplog.text
    assert cache.get_or_compute("k", never, tags=["t"]) == b"good"


def test_purge_removes_what_derives_from_the_data(tmp_path):
    cache = Cache(tmp_path)
    for name, tags in [("a", ["old"]), ("b", ["new"]), ("c", ["old", "new"]), ("d", [])]:
        cache.get_or_compute(name, name.encode, tags)
    gone = sorted([digest_json("a"), digest_json("c")])
    assert [entry.digest for entry in cache.entries("old")] == gone
    assert cache.purge("old") == gone
    assert cache.purge("old") == []
    assert [entry.digest for entry in cache.entries()] == sorted([digest_json("b"), digest_json("d")])
    assert cache.get_or_compute("b", never, ["new"]) == b"b"


def test_a_second_user_adds_tags(tmp_path):
    cache = Cache(tmp_path)
    cache.get_or_compute("k", lambda: b"x", ["one"])
    cache.get_or_compute("k", never, ["two"])
    assert cache.entries()[0].tags == ("one", "two")
    assert cache.purge("one") == [digest_json("k")]


def test_purge_also_takes_what_it_cannot_read_and_unfinished_files(tmp_path, caplog):
    cache = Cache(tmp_path)
    cache.get_or_compute("k", lambda: b"x", ["t"])
    path = only_file(tmp_path)
    path.write_bytes(b"\x00")
    part = path.parent / ".0123.part"
    part.write_bytes(b"half a header")
    assert cache.purge("another tag") == [digest_json("k")]
    assert not path.exists()
    assert not part.exists()
    assert "cannot be read" in caplog.text


def test_prune_removes_what_was_used_longest_ago(tmp_path):
    cache = Cache(tmp_path)
    for number, name in enumerate("abc"):
        cache.get_or_compute(name, lambda: bytes(1000))
        digest = digest_json(name)
        os.utime(tmp_path / digest[:2] / digest, (number, number))
    cache.get_or_compute("a", never)  # used now
    assert cache.prune(10**6) == []
    assert cache.prune(2500) == [digest_json("b")]
    assert cache.get_or_compute("a", never) == bytes(1000)
    assert len(cache.prune(0)) == 2


def test_a_cache_that_cannot_be_written_does_not_stop_the_work(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert Cache(folder).get_or_compute("k", lambda: b"x") == b"x"
    assert "was not kept" in caplog.text


def test_the_folder_is_asked_late(tmp_path, monkeypatch):
    cache = Cache()
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "chosen"))
    assert cache.folder == tmp_path / "chosen"
    assert cache.entries() == []
    assert not (tmp_path / "chosen").exists()
    monkeypatch.delenv("EXPUNGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "expunge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "expunge"


def test_wrong_use_is_named(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(TypeError, match="collection of texts"):
        cache.get_or_compute("k", never, tags="one")
    with pytest.raises(TypeError, match="must give bytes"):
        cache.get_or_compute("k", lambda: "text")
    with pytest.raises(TypeError):
        cache.get_or_compute({"k": object()}, never)
