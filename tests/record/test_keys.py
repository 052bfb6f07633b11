from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import expunge.core
from expunge.core.errors import InputError
from expunge.core.keys import key_path, state_folder, subject_key


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_one_key_for_ever(home):
    key = subject_key()
    assert len(key) == 32
    assert subject_key() == key
    assert stat.S_IMODE(key_path("subject.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("EXPUNGE_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder() == tmp_path / "xdg" / "expunge"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "expunge"


def test_a_damaged_or_open_key_is_refused(home):
    path = key_path("subject.key")
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(InputError, match="backup"):
        subject_key()
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        subject_key()


def test_processes_that_ask_at_once_get_one_key(home):
    env = os.environ | {"PYTHONPATH": str(Path(next(iter(expunge.core.__path__))).parents[1])}
    code = "import sys; from expunge.core.keys import subject_key as k; sys.stdin.readline(); print(k().hex())"
    options = {"env": env, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(4)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    keys = {child.communicate()[0] for child in children}
    assert keys == {subject_key().hex() + "\n"}
    assert [path.name for path in home.iterdir()] == ["subject.key"]
