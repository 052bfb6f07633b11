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
import time
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
BYTES_OF_A_NUMBER = 8  # at most, in weights
MOST_VALUES = 3_000_000  # in JSON: some hundred bytes of memory each
LONGEST = (
    50.0  # seconds of processor time for all checks of a folder: the command, which loads PyTorch, ends in a minute
)
_RESERVED = 10.0  # of them, for what reads no weights
_BLOCK = 2**20


class TooLong(BaseException):
    """A check ran out of time; no Exception, so that no library that is called takes it for one of its own."""


class Skipped(Exception):
    """A check that could not be made here; its text says why, and what would make it possible."""


class Clock:
    """Processor time that all checks of a folder share.

    Args:
        seconds: in all.
    """

    def __init__(self, seconds: float = LONGEST):
        self.seconds, self._end = seconds, time.process_time() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.process_time()

    def may_go_on(self, name: str) -> None:
        """Raise :class:`Skipped` where reading the weights in ``name`` any further would leave no time for other checks.

        How long that takes follows from their size, which alone is no fault of theirs.
        """
        if self.left < min(_RESERVED, self.seconds / 4):
            raise Skipped(
                f"{name} is too large to be read within {self.seconds:g} seconds of processor time; give more with --seconds"
            )


@contextmanager
def limited(clock: Clock) -> Iterator[None]:
    """Stop what runs inside when the time of ``clock`` is over, with :class:`TooLong`.

    Works in the main thread of a POSIX process, which the command line is; elsewhere there is no limit.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TooLong(
            f"all checks together took more than {clock.seconds:g} seconds of processor time; none of ours do"
        )

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, max(clock.left, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class UntrustedFolder:
    """Regular files of a folder by their relative names; whatever else lies there is listed and never opened.

    Attributes:
        names: regular files. strange: links, devices, empty folders and the like.
        largest: of files that are not parsed as a whole, which hold weights, the bytes that each may have at most.
        clock: how long reading may take.

    Raises:
        TamperedError: if there are more files, or deeper folders, than any of ours has.
    """

    def __init__(self, root: Path, clock: Clock | None = None):
        self.root, self.clock = root, clock or Clock()
        self.largest: Mapping[str, int] = {}
        self._digests: dict[str, str] = {}
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
        """SHA-256 (hex) of a file, read in blocks and once, if it is not too large for what it should hold.

        Raises:
            TamperedError: if it is. Skipped: if there is not the time to read it.
        """
        if name not in self._digests:
            state = hashlib.sha256()
            with self.opened(name) as file:
                self.must_fit(file, name)
                for block in self.blocks(file, name):
                    state.update(block)
            self._digests[name] = state.hexdigest()
        return self._digests[name]

    def must_fit(self, file: Any, name: str) -> None:
        """Raise TamperedError where a file has more bytes than what it should hold can take."""
        size, most = os.fstat(file.fileno()).st_size, self.largest.get(name, LARGEST)
        if size > most:
            raise TamperedError(f"{name} has {size:,} bytes, and what it should hold takes at most {most:,}")

    def blocks(self, file: Any, name: str, length: float = math.inf) -> Iterator[bytes]:
        """The next ``length`` bytes of an open file, as long as there is time."""
        while length:
            self.clock.may_go_on(name)
            block = file.read(int(min(length, _BLOCK)))
            if not block:
                return
            length -= len(block)
            yield block


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
        folder.must_fit(file, name)
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
            for block in folder.blocks(file, name, end - begin):
                state.update(block)
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
