from __future__ import annotations

import copy
import errno
import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import expunge.core
from expunge.core import merkle
from expunge.core.chain import GENESIS, link
from expunge.core.digest import canonical_json
from expunge.core.errors import InputError, TamperedError
from expunge.ledger import Ledger, verify_excerpt
from expunge.ledger.entries import leaf_of, seal_of
from expunge.ledger.schema import SCHEMA

ENV = os.environ | {"PYTHONPATH": str(Path(next(iter(expunge.core.__path__))).parents[1])}
LAST = "(SELECT hash FROM entries WHERE sequence = 5)"
INSERT = "INSERT {} INTO entries SELECT {} FROM entries WHERE key = 'r2'"
GUARDS = ("no_update", "no_delete", "no_insert_between")
TREE_GUARDS = ("no_node_update", "no_node_delete", "no_node_replaced")


@pytest.fixture
def path(tmp_path) -> Path:
    with Ledger(tmp_path / "ledger.db", create=True) as ledger:
        for number in range(1, 6):
            ledger.append("request", f"r{number}", {"number": number, "word": "größe"})
    return tmp_path / "ledger.db"


def edit(path: Path, statement: str, values=(), guards=True) -> None:
    """What someone with a database tool can do; ``guards``: put the triggers back afterwards."""
    with closing(sqlite3.connect(path)) as database:
        here = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
        for name in here:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(statement, values)
        if guards:
            for name in SCHEMA:
                if name in here:
                    database.execute(SCHEMA[name])
        database.commit()


def test_entries_come_back(path):
    with Ledger(path) as ledger:
        entries = ledger.entries()
        assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]
        assert entries[0].previous == GENESIS
        assert [e.previous for e in entries[1:]] == [e.hash for e in entries[:-1]]
        assert entries[2].payload == {"number": 3, "word": "größe"}
        assert ledger.head() == (5, entries[-1].hash)
        assert ledger.entries(kind="request") == entries
        assert ledger.entries(kind="decision") == []
        assert ledger.entries(prefix="r3") == [entries[2]]
        assert ledger.entries(prefix="_") == [], "a prefix is no pattern"


def test_one_private_file_holds_everything(path):
    assert [found.name for found in path.parent.iterdir()] == ["ledger.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert database.execute("PRAGMA application_id").fetchone() == (0x45585047,)
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_repetition_is_a_no_op_and_a_contradiction_an_error(path):
    with Ledger(path) as ledger:
        head = ledger.head()
        again = ledger.append("request", "r2", {"word": "größe", "number": 2}, time="2030-01-01T00:00:00Z")
        assert again == ledger.entries()[1]
        with pytest.raises(InputError, match="another content"):
            ledger.append("request", "r2", {"number": 2})
        assert ledger.head() == head
        assert ledger.append("decision", "r2", {"number": 2}).sequence == 6


def test_times_are_utc(path):
    with Ledger(path) as ledger:
        east = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        assert ledger.append("note", "a", {}, east).time == "2026-01-01T10:00:00.000000Z"
        assert ledger.append("note", "b", {}, "2026-01-01T12:00+02:00").time == "2026-01-01T10:00:00.000000Z"
        before = datetime.now(UTC)
        now = datetime.fromisoformat(ledger.append("note", "c", {}).time)
        assert before <= now <= datetime.now(UTC)
        for bad in ("yesterday", "2026-01-01T12:00", datetime(2026, 1, 1)):
            with pytest.raises(InputError, match=r"2026-11-21T12:00:00Z|expected a time"):
                ledger.append("note", "d", {}, bad)


@pytest.mark.parametrize(
    ("kind", "key", "payload"),
    [
        ("", "k", {}),
        ("Kind", "k", {}),
        ("note", "", {}),
        ("note", "Jane Doe", {}),
        ("note", "jane@example.org", {}),
        ("note", "k\n", {}),
        ("note", "k", [1]),
        ("note", "k", {"x": float("nan")}),
        ("note", "k", {"x": object()}),
        ("note", "k", {"x": "\ud800"}),
        ("note", "k", {1: 1, "1": 2}),
    ],
)
def test_what_cannot_be_written_is_refused(path, kind, key, payload):
    with Ledger(path) as ledger:
        with pytest.raises(InputError):
            ledger.append(kind, key, payload)
        assert ledger.head()[0] == 5


def test_a_transaction_is_all_or_nothing(path):
    with Ledger(path) as ledger:
        with pytest.raises(ZeroDivisionError), ledger.transaction():
            ledger.append("note", "a", {})
            raise ZeroDivisionError
        assert ledger.head()[0] == 5
        with ledger.transaction(), ledger.transaction():
            ledger.append("note", "a", {})
            ledger.append("note", "b", {})
        assert ledger.head()[0] == 7


def test_opening_what_is_no_ledger(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be read as a header of one" * 20)
    (tmp_path / "empty").write_bytes(b"")
    with closing(sqlite3.connect(tmp_path / "other")) as database:
        database.execute("CREATE TABLE t (x)")
        database.commit()
    for create in (False, True):
        for name, words in [("text", "no SQLite file"), ("other", "another program"), ("", "is a folder")]:
            with pytest.raises(InputError, match=words):
                Ledger(tmp_path / name, create=create)
    with pytest.raises(InputError, match="not a ledger"):
        Ledger(tmp_path / "empty")
    with pytest.raises(InputError, match="create one explicitly") as caught:
        Ledger(tmp_path / "missing")
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="cannot be created"):
        Ledger(tmp_path / "none" / "ledger.db", create=True)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["empty", "other", "text"]
    with Ledger(tmp_path / "empty", create=True) as ledger:  # a creation that was killed is finished
        assert ledger.head() == (0, GENESIS)


def test_a_ledger_that_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        Ledger(tmp_path / "pipe", create=True)


@pytest.mark.parametrize(("code", "number"), [("SQLITE_FULL", errno.ENOSPC), ("SQLITE_IOERR", errno.EIO)])
def test_a_failing_disk_is_no_bad_input(path, monkeypatch, code, number):
    """It comes out as what it is, so that the same command can be run again later."""
    failing = sqlite3.OperationalError("the disk does not do it")
    failing.sqlite_errorcode = getattr(sqlite3, code)
    with Ledger(path) as ledger, pytest.raises(OSError, match="does not do it") as seen, ledger._in_words():
        raise failing
    assert seen.value.errno == number


def test_a_newer_version_is_left_alone(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 3")
    with pytest.raises(InputError, match="version 3"):
        Ledger(path)


def test_names_that_urls_mistake(tmp_path):
    for name in ("a b?c#d.db", "100%.db", "mode=ro&x.db"):
        with Ledger(tmp_path / name, create=True) as ledger:
            ledger.append("note", "a", {})
        assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET payload = '{}' WHERE sequence = 2",
        "DELETE FROM entries WHERE sequence = 5",
        INSERT.format("OR REPLACE", "2, kind, key, time, salt, '{}', previous, hash"),
        INSERT.format("OR REPLACE", f"6, kind, key, time, salt, '{{}}', {LAST}, hash"),
        INSERT.format("", "9, kind, 'x', time, salt, payload, previous, hash"),
        INSERT.format("", "6, kind, 'x', time, salt, payload, previous, hash"),
    ],
)
def test_sql_cannot_change_the_past_by_accident(path, statement):
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)
    with Ledger(path) as ledger:
        assert ledger.head()[0] == 5


@pytest.mark.parametrize("guards", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        "payload = '{}'",
        "payload = payload || ' '",
        "payload = 'no json'",
        "kind = 'decision'",
        "key = 'r33'",
        "time = '2020-01-01T00:00:00.000000Z'",
        "salt = replace(salt, substr(salt, 1, 1), '_')",
        "salt = '00000000000000000000000000000000'",
        "hash = replace(hash, substr(hash, 1, 1), '_')",
        "previous = 'x'",
        "payload = CAST(X'FF' AS TEXT)",
    ],
)
def test_any_edit_is_found_and_named(path, change, guards):
    edit(path, f"UPDATE entries SET {change} WHERE sequence = 3", guards=guards)
    with pytest.raises(TamperedError, match="entry 3"):
        Ledger(path)


def test_removed_or_moved_entries_are_found(path):
    saved = path.read_bytes()
    for statement, words in [
        ("DELETE FROM entries WHERE sequence = 1", "entry 1"),
        ("DELETE FROM entries WHERE sequence = 3", "entry 3"),
        ("UPDATE entries SET sequence = 7 WHERE sequence = 5", "entry 5"),
    ]:
        path.write_bytes(saved)
        edit(path, statement)
        with pytest.raises(TamperedError, match=words):
            Ledger(path)


def test_missing_or_foreign_guards_are_found(path):
    edit(path, "SELECT 1", guards=False)
    with pytest.raises(TamperedError, match="no_delete"):
        Ledger(path)
    edit_back = [SCHEMA[name] for name in (*GUARDS, *TREE_GUARDS)] + ["CREATE TABLE guests (x)"]
    with closing(sqlite3.connect(path)) as database:
        for statement in edit_back:
            database.execute(statement)
        database.commit()
    with pytest.raises(TamperedError, match="guests"):
        Ledger(path)


def test_a_damage_that_sqlite_cannot_put_into_words_is_a_damage(path):
    """Its message holds a name of the damaged schema, whose bytes are no text."""
    content = path.read_bytes()
    for name in (b"no_update", b"by_key", b"entries"):
        at = content.index(name)
        path.write_bytes(content[:at] + b"\xcb" + content[at + 1 :])
        with pytest.raises(TamperedError):
            Ledger(path)


def test_a_damaged_file_is_found(path):
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(TamperedError):
        Ledger(path)


def test_an_edit_while_the_ledger_is_open_is_found_by_verify(path):
    with Ledger(path) as ledger:
        edit(path, "UPDATE entries SET payload = '{}' WHERE sequence = 3")
        with pytest.raises(TamperedError, match="entry 3"):
            ledger.verify()


def rewrite(path: Path) -> None:
    """The strongest forger: changes an entry and computes every hash after it, and the tree, anew."""
    with Ledger(path) as ledger:
        entries, previous = ledger.entries(), GENESIS
    nodes: dict[tuple[int, int], bytes] = {}
    for entry in entries:
        text = "{}" if entry.sequence == 3 else json.dumps(entry.payload, ensure_ascii=False, separators=(",", ":"))
        head = link(previous, seal_of(entry.sequence, entry.kind, entry.key, entry.time, entry.salt, text.encode()))
        values = (text, previous, head, entry.sequence)
        edit(path, "UPDATE entries SET payload = ?, previous = ?, hash = ? WHERE sequence = ?", values)
        for level, at, digest in merkle.completed(entry.sequence - 1, leaf_of(head), lambda *place: nodes[place]):
            nodes[level, at] = digest
            edit(path, "UPDATE nodes SET hash = ? WHERE level = ? AND position = ?", (digest, level, at))
        previous = head


def cut(path: Path, length: int) -> None:
    """Take away everything after the first ``length`` entries, the tree's part of it too."""
    edit(path, "DELETE FROM entries WHERE sequence > ?", (length,))
    edit(path, "DELETE FROM nodes WHERE (position + 1) << level > ?", (length,))


def test_an_earlier_excerpt_or_checkpoint_finds_a_rewritten_or_cut_ledger(path):
    with Ledger(path) as ledger:
        excerpt = ledger.excerpt(["r5"])
        ledger.extends(excerpt)
        ledger.append("note", "a", {})
        ledger.extends(excerpt)
        longer = ledger.excerpt(["a"])
        point = {"length": 6, "root": ledger.root()}
        ledger.extends(point)
    cut(path, 5)
    with Ledger(path) as ledger:  # chain and tree alone cannot know
        ledger.extends(excerpt)
        for later in (longer, point):
            with pytest.raises(TamperedError, match="entry 6 is gone"):
                ledger.extends(later)
    rewrite(path)
    with Ledger(path) as ledger:
        with pytest.raises(TamperedError, match="its first 5 entries are others"):
            ledger.extends(excerpt)
        with pytest.raises(InputError):
            ledger.extends({})


def test_an_excerpt_shows_its_keys_and_nothing_of_the_rest(path):
    with Ledger(path) as ledger:
        ledger.append("decision", "r2/1", {"decision": "grant"})
        ledger.append("decision", "r22", {"decision": "refuse"})
        excerpt = json.loads(json.dumps(ledger.excerpt(["r2"])))
        with pytest.raises(InputError, match="r9"):
            ledger.excerpt(["r2", "r9"])
        with pytest.raises(InputError, match="collection"):
            ledger.excerpt("r2")
        assert [entry.sequence for entry in verify_excerpt(excerpt)] == [2, 6]
        assert verify_excerpt(excerpt)[0] == ledger.entries()[1]
        assert (excerpt["length"], excerpt["head"]) == ledger.head() and excerpt["root"] == ledger.root()
        others = [entry for entry in ledger.entries() if entry.sequence not in (2, 6)]
    assert len({entry.salt for entry in others}) == 5, "each entry has its own salt"
    assert [len(entry["proof"]) for entry in excerpt["entries"]] == [3, 3]
    assert not any(entry.salt in json.dumps(excerpt) or entry.time in json.dumps(excerpt) for entry in others)


def test_an_excerpt_grows_with_the_logarithm_of_the_ledger(tmp_path):
    sizes = []
    for count in (10, 1000):
        with Ledger(tmp_path / f"{count}.db", create=True) as ledger, ledger.transaction():
            for number in range(count):
                ledger.append("request", f"r{number:04}", {})
            sizes.append(len(json.dumps(ledger.excerpt(["r0003"]))))
    assert sizes[1] - sizes[0] <= 7 * 70, "seven more digests in the proof"


def test_an_excerpt_of_the_first_version_is_still_read(path):
    with Ledger(path) as ledger:
        entries = [entry.record() for entry in ledger.entries()]
        hidden = [
            {"sequence": e.sequence, **seal_of(e.sequence, e.kind, e.key, e.time, e.salt, canonical_json(e.payload)),
             "hash": e.hash}
            for e in ledger.entries()
        ]  # fmt: skip
        shown = [*hidden[:2], entries[2], *hidden[3:]]
        old = {"format": "expunge/ledger-excerpt/1", "length": 5, "head": ledger.head()[1], "entries": shown}
        assert [entry.key for entry in verify_excerpt(old)] == ["r3"]
        ledger.extends(old)
    rewrite(path)
    with Ledger(path) as ledger, pytest.raises(TamperedError, match="entry 3 differs"):
        ledger.extends(old)
    with pytest.raises(TamperedError, match="end"):
        verify_excerpt({**old, "entries": shown[:-1]})


def as_the_first_version(path: Path) -> None:
    """What an earlier program wrote: the same entries, without tree and index."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript("DROP TABLE nodes; DROP INDEX by_key; PRAGMA user_version = 1;")


def test_a_ledger_of_the_first_version_is_carried_over_once(path):
    with Ledger(path) as ledger:
        entries, root = ledger.entries(), ledger.root()
    as_the_first_version(path)
    before = path.read_bytes()
    with Ledger(path, read_only=True) as ledger:
        assert (ledger.entries(), ledger.root()) == (entries, root)
        assert verify_excerpt(ledger.excerpt(["r2"]))
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
    with Ledger(path) as ledger:
        assert (ledger.entries(), ledger.root()) == (entries, root)
        ledger.append("note", "a", {})
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_tampered_ledger_is_not_carried_over(path):
    as_the_first_version(path)
    edit(path, "UPDATE entries SET payload = '{}' WHERE sequence = 3")
    before = path.read_bytes()
    for options in ({}, {"read_only": True}):
        with pytest.raises(TamperedError, match="entry 3"):
            Ledger(path, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nodes SET hash = zeroblob(32) WHERE level = 1 AND position = 0",
        "UPDATE nodes SET position = 9 WHERE level = 1 AND position = 1",
        "DELETE FROM nodes WHERE level = 2",
        "INSERT INTO nodes VALUES (7, 0, zeroblob(32))",
    ],
)
def test_a_tree_that_does_not_follow_from_the_entries_is_found(path, statement):
    edit(path, statement)
    for options in ({}, {"read_only": True}):
        with pytest.raises(TamperedError, match="tree"):
            Ledger(path, **options)


def test_a_ledger_that_is_only_read_is_not_touched(path):
    for name in ("-wal", "-shm"):
        assert not path.with_name(path.name + name).exists()
    path.chmod(0o400)
    with Ledger(path, read_only=True) as ledger, pytest.raises((InputError, TamperedError)):
        ledger.append("note", "a", {})
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_what_was_verified_here_is_not_read_again(path, monkeypatch):
    looked = []
    monkeypatch.setattr(Ledger, "verify", lambda self: looked.append(self.path))
    for _ in range(3):
        with Ledger(path) as ledger:
            ledger.append("note", f"a{len(ledger.entries())}", {})
    assert not looked, "written and verified here"
    os.utime(path)
    with Ledger(path):
        pass
    assert looked == [path]


def test_an_empty_ledger_has_an_excerpt(tmp_path):
    with Ledger(tmp_path / "l.db", create=True) as ledger:
        assert verify_excerpt(ledger.excerpt([])) == []
        ledger.extends(ledger.excerpt([]))


def places(value, at=()):
    """Every leaf of a JSON value, by the path to it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))
    else:
        yield at


@pytest.fixture(scope="module")
def an_excerpt(tmp_path_factory) -> dict:
    with Ledger(tmp_path_factory.mktemp("excerpt") / "ledger.db", create=True) as ledger:
        for number in range(4):
            ledger.append("request", f"r{number}", {"number": number, "inner": {"list": [1, "two"]}})
        return ledger.excerpt(["r1", "r3"])


@settings(deadline=None)
@given(st.data())
def test_any_change_of_an_excerpt_is_found(an_excerpt, data):
    changed = copy.deepcopy(an_excerpt)
    *way, last = data.draw(st.sampled_from(list(places(changed))))
    holder = changed
    for step in way:
        holder = holder[step]
    what = data.draw(st.sampled_from(["other", "null", "gone", "extra"]))
    if what == "gone":
        del holder[last]
    elif what == "extra":
        holder.append("x") if isinstance(holder, list) else holder.update(extra="x")
    else:
        old = holder[last]
        holder[last] = None if what == "null" else old + 1 if isinstance(old, int) else old[::-1] + "0"
    with pytest.raises((TamperedError, InputError)):
        verify_excerpt(changed)


@pytest.mark.parametrize(
    "bad", [None, [], {}, {"format": "x"}, {"entries": 1}, {"entries": [1]}, {"entries": ["content"]}]
)
def test_what_is_no_excerpt_is_refused(bad):
    if isinstance(bad, dict) and "entries" in bad:
        for version in (
            {"format": "expunge/ledger-excerpt/1"},
            {"format": "expunge/ledger-excerpt/2", "root": GENESIS},
        ):
            with pytest.raises(InputError):
                verify_excerpt(version | {"length": 1, "head": GENESIS} | bad)
    with pytest.raises(InputError):
        verify_excerpt(bad)


APPENDER = """
import sys
from expunge.core.errors import InputError
from expunge.ledger import Ledger

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
wins = 0
sys.stdin.readline()
with Ledger(path, create=True) as ledger:
    for number in range(count):
        ledger.append("own", f"{name}-{number}", {"by": name})
        ledger.append("shared", f"s{number}", {"number": number})
        try:
            ledger.append("contest", f"c{number}", {"by": name})
            wins += 1
        except InputError:
            pass
print(wins)
"""


def test_processes_append_at_once(tmp_path):
    count = 25
    options = {"env": ENV, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    arguments = [[sys.executable, "-c", APPENDER, str(tmp_path / "l.db"), name, str(count)] for name in "ab"]
    children = [subprocess.Popen(argument, **options) for argument in arguments]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate() for child in children]
    assert [err for _, err in outputs] == ["", ""]
    assert sum(int(out) for out, _ in outputs) == count, "of two contradictory entries exactly one is taken"
    with Ledger(tmp_path / "l.db") as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
    assert (kinds.count("own"), kinds.count("shared"), kinds.count("contest")) == (2 * count, count, count)


def test_a_busy_ledger_says_so(path, monkeypatch):
    monkeypatch.setattr("expunge.ledger.file._WAIT", 0.05)
    with Ledger(path) as one, Ledger(path) as two, one.transaction():
        one.append("note", "a", {})
        with pytest.raises(InputError, match="busy"):
            two.append("note", "b", {})
    with Ledger(path) as ledger:
        assert ledger.head()[0] == 6
