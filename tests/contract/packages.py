"""Packages that tests install for a moment, as their entry points declare them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from expunge.methods import registry


@contextmanager
def package(name: str, entry_points: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package ``name`` is installed; keys and cache are those of a fresh machine."""
    place = tmp_path / "site" / f"{name}-0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (place / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(place.parent))
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    registry.targets.cache_clear()  # a process looks for packages once
    yield
    registry.targets.cache_clear()
