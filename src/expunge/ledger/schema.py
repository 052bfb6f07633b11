"""The tables of a ledger file, the guards that keep them append-only, and how a ledger of the first version is carried over."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache

from expunge.core import merkle
from expunge.core.chain import GENESIS
from expunge.ledger.entries import leaf_of

APPLICATION = 0x45585047  # "EXPG" in the file's header
VERSION = 2

_REFUSE = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
_ENTRIES = {
    "entries": """CREATE TABLE entries (
        sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, time TEXT NOT NULL, salt TEXT NOT NULL,
        payload TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (kind, key)) STRICT""",
    "no_update": f"CREATE TRIGGER no_update BEFORE UPDATE ON entries {_REFUSE}",
    "no_delete": f"CREATE TRIGGER no_delete BEFORE DELETE ON entries {_REFUSE}",
    # INSERT OR REPLACE deletes without asking the trigger above: only the next entry may come in
    "no_insert_between": f"""CREATE TRIGGER no_insert_between BEFORE INSERT ON entries
        WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM entries)
          OR NEW.previous IS NOT coalesce((SELECT hash FROM entries ORDER BY sequence DESC LIMIT 1), '{GENESIS}')
          OR EXISTS (SELECT 1 FROM entries WHERE kind = NEW.kind AND key = NEW.key) {_REFUSE}""",
}
_TREE = {
    "by_key": "CREATE INDEX by_key ON entries (key)",
    "nodes": """CREATE TABLE nodes (
        level INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (level, position)) STRICT, WITHOUT ROWID""",
    "no_node_update": f"CREATE TRIGGER no_node_update BEFORE UPDATE ON nodes {_REFUSE}",
    "no_node_delete": f"CREATE TRIGGER no_node_delete BEFORE DELETE ON nodes {_REFUSE}",
    "no_node_replaced": f"""CREATE TRIGGER no_node_replaced BEFORE INSERT ON nodes
        WHEN EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND position = NEW.position) {_REFUSE}""",
}
SCHEMA = _ENTRIES | _TREE
OF_VERSION = {1: _ENTRIES, VERSION: SCHEMA}


@cache
def rows(version: int) -> dict[str, list[str | None]]:
    """Name → type, table and statement, as SQLite holds them for a ledger of this version: what it makes of our statements."""
    with closing(sqlite3.connect(":memory:")) as database:
        for statement in OF_VERSION[version].values():
            database.execute(statement)
        found = database.execute("SELECT name, type, tbl_name, sql FROM sqlite_schema").fetchall()
    return {name: list(row) for name, *row in found}


def create(database: sqlite3.Connection) -> None:
    """Make the tables of an empty file; call it inside a transaction."""
    for statement in SCHEMA.values():
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute(f"PRAGMA application_id = {APPLICATION}")


def carry_over(database: sqlite3.Connection) -> None:
    """Add the tree to a ledger of the first version, whose chain was verified; call it inside a transaction."""
    for statement in _TREE.values():
        database.execute(statement)
    for position, (written,) in enumerate(database.execute("SELECT hash FROM entries ORDER BY sequence").fetchall()):
        add_leaf(database, position, written)
    database.execute(f"PRAGMA user_version = {VERSION}")


def add_leaf(database: sqlite3.Connection, position: int, written: str) -> None:
    """Store what the entry with this hash adds to the tree."""
    fresh = list(merkle.completed(position, leaf_of(written), lambda *place: stored_node(database, *place)))
    database.executemany("INSERT INTO nodes (level, position, hash) VALUES (?, ?, ?)", fresh)


def stored_node(database: sqlite3.Connection, level: int, position: int) -> bytes:
    """A node of the tree; raises ``sqlite3.DatabaseError`` where it is missing."""
    found = database.execute("SELECT hash FROM nodes WHERE level = ? AND position = ?", (level, position)).fetchone()
    if found is None:
        raise sqlite3.DatabaseError(f"node {position} on level {level} of its tree is missing")
    return found[0]
