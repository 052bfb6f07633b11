"""Reading a folder that somebody hostile may have made: nothing is written, no link is followed, and size, number and time are
limited before anything is parsed.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import stat
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError, TamperedError
from expunge.core.files import parse_json

MOST_FILES = 10_000
DEEPEST = 8  # folders in folders; ours are three deep
LARGEST = 32 * 2**20  # bytes of a file that is parsed; weights and ledgers are only streamed
WEIGHTS = ".safetensors"  # how the names of files end that may be of any size
MOST_VALUES = 3_000_000  # in JSON: some hundred bytes of memory each
LONGEST = 60.0  # seconds of processor time for one check
_BLOCK = 2**20


class TooLong(BaseException):
    """A check ran out of time; no Exception, so that no library that is called takes it for one of its own."""


@contextmanager
def limited(seconds: float = LONGEST) -> Iterator[None]:
    """Stop what runs inside after ``seconds`` of processor time, with :class:`TooLong`.

    Works in the main thread of a POSIX process, which the command line is; elsewhere there is no limit.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TooLong(f"took more than {seconds:g} seconds of processor time; nothing of ours does")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class UntrustedFolder:
    """Regular files of a folder by their relative names; whatever else lies there is listed and never opened.

    Attributes:
        names: regular files. strange: links, devices, empty folders and the like.

    Raises:
        TamperedError: if there are more files, or deeper folders, than any of ours has.
    """

    def __init__(self, root: Path):
        self.root = root
        self.names: set[str] = set()
        self.strange: set[str] = set()
        self._list(root, "", 0)

    def _list(self, folder: Path, place: str, depth: int) -> None:
        if depth > DEEPEST:
            raise TamperedError(f"{place} lies deeper than any file of ours")
        empty = True
        with os.scandir(folder) as found:
            for item in found:
                name, empty = f"{place}{item.name}", False
                if item.is_dir(follow_symlinks=False):
                    self._list(Path(item.path), f"{name}/", depth + 1)
                elif item.is_file(follow_symlinks=False):
                    self.names.add(name)
                else:
                    self.strange.add(name)
                if len(self.names) + len(self.strange) > MOST_FILES:
                    raise TamperedError(f"there are more than {MOST_FILES:,} files")
        if empty and place:
            self.strange.add(place)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """A regular file, opened for reading; anything else is refused."""
        if name not in self.names:
            raise TamperedError(f"{name} is a link" if name in self.strange else f"{name} is missing")
        handle = os.open(self.root / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise TamperedError(f"{name} is no regular file")
            yield file

    def bytes(self, name: str, largest: int = LARGEST) -> bytes:
        """All of a file that is not too large to be one of ours."""
        with self.opened(name) as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise TamperedError(f"{name} has more than {largest:,} bytes; none of ours has")
        return content

    def json(self, name: str) -> Any:
        """The JSON value in a file."""
        return bounded_json(self.bytes(name), name)

    def digest(self, name: str) -> str:
        """SHA-256 (hex) of a file, read in blocks; of one that is parsed, if it is not too large for one of ours."""
        with self.opened(name) as file:
            if not name.endswith(WEIGHTS) and os.fstat(file.fileno()).st_size > LARGEST:
                raise TamperedError(f"{name} has more than {LARGEST:,} bytes; none of ours has")
            return hashlib.file_digest(file, "sha256").hexdigest()


def bounded_json(content: bytes, name: str) -> Any:
    """The JSON value that ``content`` says, if it is small enough to be held in memory."""
    if sum(content.count(mark) for mark in b"[{,") > MOST_VALUES:
        raise TamperedError(f"{name} holds more than {MOST_VALUES:,} values; none of ours does")
    return parse_json(content, name)


def inflated(content: bytes, largest: int) -> bytes:
    """What a zlib stream holds, if that is at most ``largest`` bytes.

    Raises:
        TamperedError: if it is more, or damaged.
    """
    machine = zlib.decompressobj()
    try:
        result = machine.decompress(content, largest + 1)
    except zlib.error as error:
        raise TamperedError(f"a compressed part is damaged: {error}") from None
    if len(result) > largest:
        raise TamperedError(f"a compressed part holds more than {largest:,} bytes")
    return result


# Bytes of one number, and how NumPy writes its kind, by what safetensors calls it; bfloat16 counts as its bits.
_KINDS = {
    "F64": (8, "<f8"), "F32": (4, "<f4"), "F16": (2, "<f2"), "BF16": (2, "<i2"), "I64": (8, "<i8"), "I32": (4, "<i4"),
    "I16": (2, "<i2"), "I8": (1, "|i1"), "U64": (8, "<u8"), "U32": (4, "<u4"), "U16": (2, "<u2"), "U8": (1, "|u1"),
    "BOOL": (1, "|b1"),
}  # fmt: skip
_MOST_TENSORS, _MOST_DIMENSIONS = 100_000, 32


def digest_of_tensors(folder: UntrustedFolder, name: str) -> str:
    """``core.digest.digest_arrays`` of the tensors in a safetensors file, read in blocks: memory does not grow with its size.

    Raises:
        TamperedError: if it is no safetensors file, or its header does not describe exactly the bytes that follow.
    """
    from expunge.core.digest import canonical_json

    with folder.opened(name) as file:
        size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST, size - 8):
            raise TamperedError(f"{name} has a header of {length:,} bytes, which it does not hold")
        header = bounded_json(file.read(length), f"the header of {name}")
        start, tensors = 8 + length, _tensors(header, size - 8 - length, name)
        state = hashlib.sha256()
        for tensor in sorted(tensors):
            kind, shape, begin, end = tensors[tensor]
            state.update(canonical_json(tensor))
            state.update(canonical_json([kind, shape or [1]]))
            file.seek(start + begin)
            left = end - begin
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise TamperedError(f"{name} ends in the middle of a tensor")
                state.update(block)
                left -= len(block)
    return state.hexdigest()


def _tensors(header: Any, size: int, name: str) -> dict[str, tuple[str, list[int], int, int]]:
    """Kind, shape and place of each tensor; together they are the ``size`` bytes that follow, without gap or overlap."""
    wrong = TamperedError(f"the header of {name} does not describe the bytes that follow it")
    if not isinstance(header, Mapping) or len(header) > _MOST_TENSORS:
        raise wrong
    tensors, ends = {}, []
    for tensor, item in header.items():
        if tensor == "__metadata__":
            continue
        width, kind = _KINDS.get(item["dtype"], (0, ""))
        shape, (begin, end) = item["shape"], item["data_offsets"]
        counts = [*shape, begin, end]
        if not width or len(shape) > _MOST_DIMENSIONS or not all(type(c) is int and 0 <= c <= size for c in counts):
            raise wrong
        if end - begin != width * math.prod(shape):
            raise wrong
        tensors[tensor] = (kind, shape, begin, end)
        ends.append((begin, end))
    at = 0
    for begin, end in sorted(ends):
        if begin != at:
            raise wrong
        at = end
    if at != size:
        raise wrong
    return tensors


def single(path: Path, what: str) -> bytes:
    """A file that was named on the command line, if it is a small regular one.

    Raises:
        InputError: if it is not.
    """
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise InputError(f"Expected {what} in a file; {path} is missing, no file, or far too large.")
    return path.read_bytes()
