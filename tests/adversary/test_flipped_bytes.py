"""A flipped bit anywhere in a folder is noticed with the owner's key; in a ledger, anywhere in its entries, tree and guards."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from expunge.core.digest import digest_json
from expunge.report import html, signing
from expunge.report.verify import _Folder, verify_folder
from expunge.report.verify.findings import found
from expunge.report.verify.reading import UntrustedFolder

from .folders import build, copy

LARGE = 8_000  # bytes; of larger files 2,000 random ones are flipped
FAST = 6  # flips of each file in the fast test


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")
        yield build(tmp_path_factory.mktemp("flipped"), published=False)


def flipped(path: Path, places: Iterable[int]):
    """The file with one bit flipped at each place in turn; whole again at the end."""
    content = path.read_bytes()
    generator = random.Random(str(path.name))
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        yield place
    path.write_bytes(content)


def places(path: Path, most: int) -> Iterable[int]:
    size = path.stat().st_size
    return range(size) if size <= most else sorted(random.Random(size).sample(range(size), most))


def content(path: Path) -> list:
    """Everything that a ledger says."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        named = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return [
            named,
            *(db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in ("entries", "nodes")),
        ]


def files_of(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "ledger.sqlite"]


def test_a_flipped_bit_is_noticed(honest, tmp_path):
    folder, key = copy(honest, tmp_path), signing.signing_key().public_key()
    assert verify_folder(folder, key).exit_code == 0
    for path in files_of(folder):
        for place in flipped(path, places(path, FAST)):
            assert verify_folder(folder, key).exit_code == 1, (path.name, place)


def ledger_differs_or_is_refused(folder: Path, most: int) -> int:
    path, noticed = folder / "ledger.sqlite", 0
    said = content(path)
    for place in flipped(path, places(path, most)):
        files = UntrustedFolder(folder)
        if found("ledger", _Folder(files, None, None, None).ledger, files.clock).ok:
            assert content(path) == said, place  # what SQLite leaves unused says nothing
        else:
            noticed += 1
    return noticed


def test_a_flipped_bit_of_the_ledgers_content_is_noticed(honest, tmp_path):
    assert ledger_differs_or_is_refused(copy(honest, tmp_path), 150) > 20


@pytest.mark.slow
def test_every_flipped_byte_is_noticed(honest, tmp_path):
    folder, key = copy(honest, tmp_path), signing.signing_key().public_key()
    for path in files_of(folder):
        for place in flipped(path, places(path, 2_000 if path.stat().st_size > LARGE else LARGE)):
            files = UntrustedFolder(folder)
            first = _Folder(files, key, None, None).all()[:3]
            assert not all(found(name, check, files.clock).ok for name, check in first), (path.name, place)
    assert ledger_differs_or_is_refused(folder, 10**9) > 1000
