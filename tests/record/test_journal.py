from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import expunge.core
from expunge.core.errors import InputError, TamperedError
from expunge.core.journal import Journal

ENV = os.environ | {"PYTHONPATH": str(Path(next(iter(expunge.core.__path__))).parents[1])}


def never():
    raise AssertionError("computed a second time")


def stage_file(folder: Path, name: str) -> Path:
    [path] = (folder / "stages").glob(f"{name}.*")
    return path


def test_a_stage_is_computed_once_and_resumed(tmp_path):
    with Journal(tmp_path / "run") as journal:
        journal.bind("f")
        assert not journal.has("noise")
        assert journal.once("noise", lambda: b"abc") == b"abc"
        assert journal.once("noise", never) == b"abc"
        assert journal.once_json("facts", lambda: {"b": (1, 2)}) == {"b": [1, 2]}
    with Journal(tmp_path / "run") as journal:
        journal.bind("f")
        assert journal.once("noise", never) == b"abc"
        assert journal.once_json("facts", never) == {"b": [1, 2]}
        assert [(stage.name, stage.size) for stage in journal.entries()] == [("noise", 3), ("facts", 11)]


def test_works_without_with_and_inside_itself(tmp_path):
    journal = Journal(tmp_path)
    assert journal.once("outer", lambda: journal.once("inner", lambda: b"1") + b"2") == b"12"
    assert [stage.name for stage in journal.entries()] == ["inner", "outer"]
    with Journal(tmp_path) as other:  # nothing is locked any more
        assert other.once("outer", never) == b"12"


def test_a_failed_stage_is_not_stored(tmp_path):
    with Journal(tmp_path) as journal:
        with pytest.raises(ZeroDivisionError):
            journal.once("a", lambda: b"%d" % (1 // 0))
        with pytest.raises(TypeError, match="must give bytes"):
            journal.once("a", lambda: "text")
        assert not journal.has("a")


def test_files_are_private(tmp_path):
    with Journal(tmp_path / "run") as journal:
        journal.once("a", lambda: b"1")
    for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_folder_serves_one_run(tmp_path):
    with Journal(tmp_path) as journal:
        journal.bind("a" * 64)
        journal.bind("a" * 64)
        with pytest.raises(InputError, match="belongs to another run"):
            journal.bind("b" * 64)
        journal.clear()
        journal.bind("b" * 64)


def test_stages_of_a_run_without_a_name_are_not_taken_over(tmp_path):
    with Journal(tmp_path) as journal:
        journal.once("a", lambda: b"1")
        with pytest.raises(InputError, match="unnamed"):
            journal.bind("f")


@pytest.mark.parametrize("content", [b"", b"12", b"0"])
def test_a_changed_stage_is_found(tmp_path, content):
    with Journal(tmp_path) as journal:
        journal.once("a", lambda: b"1")
        stage_file(tmp_path, "a").write_bytes(content)
        with pytest.raises(TamperedError, match="'a'"):
            journal.once("a", never)


def test_a_removed_stage_is_not_drawn_again(tmp_path):
    with Journal(tmp_path) as journal:
        journal.once("a", lambda: b"1")
        stage_file(tmp_path, "a").unlink()
        with pytest.raises(TamperedError, match="gone"):
            journal.once("a", never)


def test_a_stage_that_had_not_reached_the_index_is_taken_over(tmp_path):
    with Journal(tmp_path) as journal:
        journal.bind("f")
        before = (tmp_path / "index.json").read_bytes()
        journal.once("noise", lambda: b"drawn")
    (tmp_path / "index.json").write_bytes(before)  # as after a crash between the two writes
    with Journal(tmp_path) as journal:
        assert journal.once("noise", never) == b"drawn"


def test_a_second_content_of_a_stage_is_found(tmp_path):
    with Journal(tmp_path) as journal:
        journal.once("a", lambda: b"1")
    (tmp_path / "stages" / f"a.{'0' * 64}").write_bytes(b"2")
    with pytest.raises(TamperedError, match="second content"), Journal(tmp_path):
        pass
    (tmp_path / "index.json").unlink()
    with pytest.raises(TamperedError, match="changed"), Journal(tmp_path):
        pass


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a b", "ä", "a" * 101, "a\n"])
def test_names_that_are_no_file_names(tmp_path, name):
    with pytest.raises(InputError, match="a stage is named by"):
        Journal(tmp_path).once(name, never)


def test_not_a_journal(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be made a folder"), Journal(tmp_path / "file"):
        pass
    for content in ("[]", "{}", "{", '{"format": "other"}', '{"format": "expunge/journal/1", "stages": [{}]}'):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(InputError):
            Journal(tmp_path).entries()


def test_the_folder_is_locked(tmp_path):
    with Journal(tmp_path) as journal:
        journal.once("a", lambda: b"1")
        with pytest.raises(InputError, match=f"process {os.getpid()}"), Journal(tmp_path):
            pass
        assert Journal(tmp_path).has("a"), "watching needs no lock"
    with Journal(tmp_path):
        pass


def test_without_locks_it_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("expunge.core.journal.fcntl", None)
    with Journal(tmp_path) as journal:
        assert journal.once("a", lambda: b"1") == b"1"
    assert "no file locks" in caplog.text


def test_clear_names_what_went(tmp_path):
    with Journal(tmp_path) as journal:
        journal.bind("f")
        journal.once("a", lambda: b"1")
        assert [stage.name for stage in journal.clear()] == ["a"]
        assert journal.entries() == []
        assert list((tmp_path / "stages").iterdir()) == []
        assert journal.once("a", lambda: b"2") == b"2"


# Forks one process for each file operation of a whole run, stops it dead there, and lets a second one resume.
EVERY_POINT = """
import os, sys
from pathlib import Path
from expunge.core.journal import Journal

base = Path(sys.argv[1])
real = {name: getattr(os, name) for name in ("open", "fsync", "replace", "rename", "unlink", "ftruncate", "close")}

def die_at(point):
    count = 0
    def wrap(call):
        def counted(*args, **kwargs):
            nonlocal count
            count += 1
            if count == point:
                os._exit(66)
            return call(*args, **kwargs)
        return counted
    for name, call in real.items():
        setattr(os, name, wrap(call))

def run(folder, seen):
    def draw(name):
        noise = os.urandom(8)
        return noise
    with Journal(folder) as journal:
        journal.bind("f")
        for name in ("a", "b"):
            value = journal.once(name, lambda: draw(name))
            with open(seen, "a") as log:   # what anybody can have used
                log.write(name + " " + value.hex() + chr(10))
        if sys.argv[2] == "clear":
            journal.clear()

def outcome(work):
    child = real_fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

real_fork, point = os.fork, 0
while True:
    point += 1
    folder, seen = base / str(point), base / f"{point}.log"
    first = outcome(lambda: (die_at(point), run(folder, seen)))
    assert first in (0, 66), first
    assert outcome(lambda: run(folder, seen)) == 0, point
    used = {}
    for line in seen.read_text().splitlines():
        name, value = line.split()
        used.setdefault(name, []).append(value)
    if sys.argv[2] != "clear":
        assert all(len(set(values)) == 1 for values in used.values()), (point, used)
        assert len(list((folder / "stages").iterdir())) == 2, point
    else:
        assert not list((folder / "stages").iterdir()), point
    if first == 0:
        break
print("points", point)
"""


@pytest.mark.parametrize("how", ["keep", "clear"])
def test_a_run_resumes_from_a_crash_at_every_file_operation(tmp_path, how):
    command = [sys.executable, "-c", EVERY_POINT, str(tmp_path), how]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 20, "the run must have been stopped at many points"


WRITER = """
import os, sys
from pathlib import Path
from expunge.core.journal import Journal
from expunge.ledger import Ledger

base = Path(sys.argv[1])
with Journal(base / "run") as journal, Ledger(base / "ledger.db", create=True) as ledger:
    journal.bind("f")
    for number in range(10**6):
        noise = journal.once(f"noise-{number}", lambda: os.urandom(16)).hex()
        ledger.append("release", f"r{number}", {"noise": noise})
        print(number, noise, flush=True)
"""


def test_sigkill_at_random_moments_loses_nothing_and_doubles_nothing(tmp_path):
    from expunge.ledger import Ledger

    pick, used = random.Random(7), {}
    for _ in range(6):
        lines = len(used) + pick.randrange(1, 12)
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            env=ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout and child.stderr
        with child.stdout, child.stderr:
            for _ in range(lines):  # the moment is where the child happens to be after this line
                number, noise = child.stdout.readline().split()
                assert used.setdefault(int(number), noise) == noise, "noise was drawn twice"
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:
                if line.endswith("\n"):
                    number, noise = line.split()
                    assert used.setdefault(int(number), noise) == noise
            assert child.stderr.read() == ""
        assert child.wait() == -signal.SIGKILL
        with Ledger(tmp_path / "ledger.db") as ledger:  # verifies the chain
            entries = ledger.entries()
        assert [entry.key for entry in entries] == [f"r{number}" for number in range(len(entries))]
        assert len(used) <= len(entries) <= len(used) + 1
        assert all(entries[number].payload == {"noise": noise} for number, noise in used.items())
        with Journal(tmp_path / "run") as journal:  # the lock died with its process
            names = [stage.name for stage in journal.entries()]
        assert names == [f"noise-{number}" for number in range(len(names))]
        index = json.loads((tmp_path / "run" / "index.json").read_text())
        assert index["fingerprint"] == "f"
