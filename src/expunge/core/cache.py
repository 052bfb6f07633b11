"""A cache addressed by content: results are found by what they were computed from, never by a file name.

Entries carry tags, for example the digests of the data they derive from, so that everything derived from removed data
can be listed and purged. A cached file is one header line of JSON followed by the content.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.digest import canonical_json, digest_bytes, digest_json
from expunge.core.errors import InputError
from expunge.core.files import leftovers, make_folder, parse_json, write_atomic

_LOG = logging.getLogger(__name__)
_FORMAT = "expunge/cache/1"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CacheEntry:
    """One entry as its header tells it: digest of the key, size of the content in bytes, sorted tags."""

    digest: str
    size: int
    tags: tuple[str, ...]


def default_folder() -> Path:
    """``EXPUNGE_CACHE``, else ``expunge`` in the user's cache folder."""
    chosen = os.environ.get("EXPUNGE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "expunge"


class Cache:
    """Computed bytes by the digest of their key. Safe to share between processes; safe to delete at any time.

    Args:
        folder: where entries lie; `default_folder` where ``None``, asked at each use and created when first written.

    Guarantee: what comes back is what was once computed for an equal key: a damaged entry is noticed, logged and
    computed again.
    """

    def __init__(self, folder: Path | None = None):
        self._chosen = None if folder is None else Path(folder)

    @property
    def folder(self) -> Path:
        """Where entries lie."""
        return self._chosen or default_folder()

    def get_or_compute(
        self, key: Mapping[str, Any] | str, compute: Callable[[], bytes], tags: Iterable[str] = ()
    ) -> bytes:
        """The bytes stored for ``key``, else those that ``compute`` gives.

        Args:
            key: everything that the result depends on, JSON-like.
            compute: called on a miss.
            tags: what the result derives from, for `purge`. An entry found under other tags gets these in addition.

        Raises:
            TypeError: if ``key`` holds something JSON cannot say, ``tags`` is a single text, or ``compute`` does not
                give bytes. A cache that cannot be written is logged and does not stop the work.
        """
        if isinstance(tags, str):
            raise TypeError(f"tags must be a collection of texts, got the text {tags!r}")
        digest, wanted = digest_json(key), set(tags)
        path = self._path(digest)
        try:
            entry, content = _read(path)
            if wanted <= set(entry.tags):
                with contextlib.suppress(OSError):
                    os.utime(path)  # last use, for `prune`
                return content
            wanted |= set(entry.tags)
        except FileNotFoundError:
            content = compute()
        except (InputError, OSError) as error:
            _LOG.warning("cache entry %s is damaged and is computed again: %s", digest, error)
            content = compute()
        if not isinstance(content, bytes):
            raise TypeError(f"a cached computation must give bytes, got {type(content).__name__}")
        header = {"format": _FORMAT, "sha256": digest_bytes(content), "size": len(content), "tags": sorted(wanted)}
        try:
            make_folder(self.folder)
            make_folder(path.parent)
            write_atomic(path, canonical_json(header) + b"\n" + content, private=True)
        except (InputError, OSError) as error:
            _LOG.warning("cache entry %s was not kept: %s", digest, error)
        return content

    def entries(self, tag: str | None = None) -> list[CacheEntry]:
        """All readable entries, or those that carry ``tag``, sorted by digest."""
        found = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError, InputError):
                entry = _header(path)
                if tag is None or tag in entry.tags:
                    found.append(entry)
        return sorted(found, key=lambda entry: entry.digest)

    def purge(self, tag: str) -> list[str]:
        """Remove all entries that carry ``tag``; return their digests, sorted.

        An entry whose tags cannot be read goes too, and so do unfinished files: they may derive from the same data.
        Removing unlinks files; it does not wipe the disk's blocks, snapshots or backups. A process that is still
        computing can store an entry afterwards: stop such processes first.
        """
        removed = []
        for path in [*self._files(), *self._leftovers()]:
            try:
                if tag not in _header(path).tags:
                    continue
            except InputError:
                _LOG.warning("cache file %s cannot be read and is removed with the tag %s", path.name, tag)
            except FileNotFoundError:
                continue
            path.unlink(missing_ok=True)
            if _DIGEST.fullmatch(path.name):
                removed.append(path.name)
        return sorted(removed)

    def prune(self, max_bytes: int) -> list[str]:
        """Remove the entries used longest ago until the files together hold at most ``max_bytes``; return digests.

        Raises:
            InputError: if ``max_bytes`` is negative.
        """
        if max_bytes < 0:
            raise InputError(f"a cache cannot shrink to {max_bytes} bytes; give 0 or more")
        files = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                files.append((found.st_mtime_ns, path.name, found.st_size, path))
        held, removed = sum(size for _, _, size, _ in files), []
        for _, name, size, path in sorted(files):
            if held <= max_bytes:
                break
            path.unlink(missing_ok=True)
            held -= size
            removed.append(name)
        return removed

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def _shelves(self) -> Iterator[Path]:
        return (shelf for shelf in self.folder.glob("[0-9a-f][0-9a-f]") if shelf.is_dir())

    def _files(self) -> Iterator[Path]:
        return (path for shelf in self._shelves() for path in shelf.iterdir() if _DIGEST.fullmatch(path.name))

    def _leftovers(self) -> Iterator[Path]:
        return (path for shelf in self._shelves() for path in leftovers(shelf))


def _header(path: Path) -> CacheEntry:
    with path.open("rb") as stream:
        return _parse(path, stream.readline())[0]


def _read(path: Path) -> tuple[CacheEntry, bytes]:
    line, _, content = path.read_bytes().partition(b"\n")
    entry, digest = _parse(path, line)
    if digest_bytes(content) != digest:
        raise InputError("its content was changed")
    return entry, content


def _parse(path: Path, line: bytes) -> tuple[CacheEntry, str]:
    header = parse_json(line, "its header")
    try:
        if header["format"] != _FORMAT:
            raise InputError(f"its format is {header['format']!r}, expected {_FORMAT!r}")
        return CacheEntry(path.name, int(header["size"]), tuple(header["tags"])), header["sha256"]
    except (TypeError, KeyError, ValueError):
        raise InputError("its header is incomplete") from None
