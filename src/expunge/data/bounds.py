"""How large a file may become when it is read: a small one must not ask for more memory than there is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO

from expunge.core.errors import InputError, of_the_machine

FLOOR = 2**29  # bytes that any compressed file may come to
FACTOR = 20  # times its own size, beyond that: tables shrink to a tenth, rarely to a twentieth
PACKED = (".gz", ".bz2", ".xz", ".zip")


def memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def largest(size: int) -> int:
    """Bytes that a compressed file of ``size`` bytes may come to."""
    return max(FLOOR, FACTOR * size)


def unpacked(path: Path) -> bytes:
    """The content of a file that ends in one of ``PACKED``.

    Raises:
        InputError: where it is damaged, comes to more than :func:`largest` allows, or is an archive of several files.
    """
    most = largest(path.stat().st_size)
    try:
        with path.open("rb") as raw, _opened(raw, path) as handle:
            content = read_at_most(handle, most)
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
    ) as error:
        if of_the_machine(error):
            raise
        raise InputError(f"{path.name} cannot be unpacked ({error}). Pack it anew, or give it unpacked.") from None
    if content is None:
        raise InputError(
            f"{path.name} has {path.stat().st_size} bytes and unpacks to more than {most}; it may have been made to exhaust "
            "memory. If that is right, unpack it first."
        )
    return content


def read_at_most(handle: IO[bytes], most: int) -> bytes | None:
    """What ``handle`` holds, read piece by piece; ``None`` where it is more than ``most`` bytes."""
    pieces, size = [], 0
    while piece := handle.read(2**20):
        size += len(piece)
        if size > most:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _opened(raw: IO[bytes], path: Path) -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
        case ".bz2":
            return bz2.BZ2File(raw)
        case ".xz":
            return lzma.LZMAFile(raw)
    archive = zipfile.ZipFile(raw)
    names = [each for each in archive.namelist() if not each.endswith("/")]
    if len(names) != 1:
        raise InputError(
            f"Expected one file in {path.name}; it holds {len(names)}. Unpack it and name the one that is meant."
        )
    return archive.open(names[0])
