"""Examples that are too large to hold in memory: a column in a private file, of which a selection is a list of places.

A reader asks for :func:`room` and writes one example after another; what is small stays a tensor. Selecting rows of a column on
disk copies nothing, and what a pass or a step takes is read then. Whatever is computed has the bits that it has in memory.

The file has no name: it is unlinked as soon as it is open, so that it is gone with the process that made it, however that ends.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.cache import default_folder
from expunge.core.errors import InputError
from expunge.core.files import make_folder

IN_MEMORY = 2**28  # bytes of examples that are held in memory; above, a file. 256 MiB: our choice
AT_ONCE = 2**26  # bytes that go through memory where a column is read from end to end; our choice
_GONE = "the process that wrote the examples ended, or let them go"
_OF_A_PROCESS = "/proc/{}/fd/{}"  # how another process opens a file that has no name


class _File:
    """An open file, closed when nobody has it any more.

    Attributes:
        mark: random bytes at ``end``, behind the examples: another process finds the file by a number, which may be another
            file's by then.
    """

    def __init__(self, descriptor: int, mark: bytes, end: int):
        self.descriptor, self.mark, self.end = descriptor, mark, end
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def new(cls, descriptor: int, size: int) -> _File:
        """A file with room for ``size`` bytes, marked."""
        file = cls(descriptor, secrets.token_bytes(16), size)
        _reserve(descriptor, size + len(file.mark))
        os.pwrite(descriptor, file.mark, size)
        return file

    @classmethod
    def at(cls, path: str, mark: bytes, end: int) -> _File:
        """The file of another process.

        Raises:
            OSError: where that process ended, or let it go.
        """
        try:
            file = cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), mark, end)
        except FileNotFoundError:
            raise OSError(errno.EIO, _GONE) from None
        if os.pread(file.descriptor, len(mark), end) != mark:
            raise OSError(errno.EIO, _GONE)
        return file


class OnDisk:
    """Examples in a file, as a task's batches and :class:`~expunge.data.rows.Rows` use them: a column without its numbers.

    ``len``, ``shape``, ``dtype`` and ``device`` are those of the tensor that :meth:`read` gives. Selecting (a slice, positions,
    a mask) and :meth:`to` give another view of the same file. A whole number gives that example, read.

    Args:
        file: open, and without a name.
        shape, stored: of one example, and its type in the file.
        places: which examples, and in which order, (n,) int64.
        dtype, device: of what is read; ``None``: as stored, on the CPU.
    """

    def __init__(
        self, file: _File, shape: tuple[int, ...], stored: Any, places: np.ndarray, dtype: Any = None,
        device: Any = None,
    ):  # fmt: skip
        import torch

        self.file, self.each, self.stored, self.places = file, shape, stored, places
        self.dtype, self.device = dtype or stored, torch.device(device or "cpu")

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (len(self), *self.each)

    @property
    def ndim(self) -> int:
        """How many axes the tensor has."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return len(self) * self._width

    @property
    def _width(self) -> int:
        return math.prod(self.each) * self.stored.itemsize

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"Examples that lie on disk have no {name!r}: they are no tensor. rows.in_memory() reads them all, "
            "rows.x[index].read() some, and task.batch(rows).parts(size) one part after another."
        )

    def is_floating_point(self) -> bool:
        """Whether examples are of a floating-point type."""
        return self.dtype.is_floating_point

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, int | np.integer):
            return self.at([self.places[which]]).read()[0]
        if isinstance(which, slice):
            return self._view(self.places[which])
        if hasattr(which, "detach"):
            which = which.detach().cpu().numpy()
        at = np.asarray(which)
        if isinstance(which, tuple) or at.ndim != 1 or at.dtype.kind not in "ib":
            raise InputError(
                f"Expected rows of examples that lie on disk; got {which!r:.60}. Read them first (core.on_disk.whole)."
            )
        return self._view(self.places[at])

    def index_select(self, axis: int, index: Any) -> OnDisk:
        """The examples at the positions ``index``, in that order."""
        if axis:
            raise InputError(f"Expected a selection of examples that lie on disk, axis 0; got axis {axis}.")
        return self[index]

    def to(self, *where: Any) -> OnDisk:
        """The same examples, read to another device, in another type, or both in this order."""
        dtypes = [each for each in where if isinstance(each, type(self.stored))]
        devices = [each for each in where if not isinstance(each, type(self.stored))]
        return OnDisk(
            self.file, self.each, self.stored, self.places, *(dtypes or [self.dtype]), *(devices or [self.device])
        )

    def detach(self) -> OnDisk:
        """Itself: what is read has no history."""
        return self

    def cpu(self) -> OnDisk:
        """The same examples, read to the CPU."""
        return self.to("cpu")

    def of_one_file(self, other: Any) -> bool:
        """Whether ``other`` are examples of the same file, read in the same way."""
        return isinstance(other, OnDisk) and (self.file, self.dtype, self.device) == (
            other.file, other.dtype, other.device,
        )  # fmt: skip

    def at(self, places: Any) -> OnDisk:
        """The examples at ``places`` of the file."""
        return self._view(np.asarray(places, dtype=np.int64))

    def _view(self, places: np.ndarray) -> OnDisk:
        return OnDisk(self.file, self.each, self.stored, places, self.dtype, self.device)

    def read(self) -> Any:
        """The examples as a tensor of its own.

        Raises:
            InputError: where they do not fit into the memory of this machine. ``OSError`` where the disk fails.
        """
        import torch

        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if self.nbytes > there:
            raise InputError(
                f"Expected {len(self)} examples at once, {self.nbytes / 2**30:.3g} GiB; this machine has {there / 2**30:.3g} "
                "GiB of memory. Take a method and a recipe that read examples in batches (docs/jobs.md says which do not), or "
                "let the data be smaller."
            )
        content = np.empty(self.nbytes, dtype=np.uint8)  # not a tensor: this may run inside of torch.func
        if self.nbytes:
            self._fill(content.data)
        flat = torch.frombuffer(content, dtype=self.stored) if self.nbytes else torch.empty(0, dtype=self.stored)
        return flat.reshape(self.shape).to(self.device, self.dtype)

    def _fill(self, content: memoryview) -> None:
        """The bytes of all places, neighbours in the file in one go."""
        width, done = self._width, 0
        ends = [*(np.flatnonzero(np.diff(self.places) != 1) + 1).tolist(), len(self)]
        starts = self.places[[0, *ends[:-1]]].tolist()
        for first, end in zip(starts, ends, strict=True):
            offset, until = first * width - done, end * width
            while done < until:
                count = os.preadv(self.file.descriptor, [content[done:until]], offset + done)
                if not count:
                    raise OSError(errno.EIO, "the file of examples ended early")
                done += count

    def blocks(self, most: int | None = None) -> Iterator[Any]:
        """All examples in order as tensors of :data:`AT_ONCE` bytes, and of at most ``most`` examples; at least one tensor."""
        size = _rows(self._width, most)
        return (self[start : start + size].read() for start in range(0, max(1, len(self)), size))

    def __setitem__(self, at: int | slice, examples: Any) -> None:
        """Write one example, or several that follow each other; for whoever fills a file, before it is used."""
        first = at if isinstance(at, int) else at.indices(len(self))[0]
        content = memoryview(examples.detach().cpu().to(self.stored).contiguous().reshape(-1).view(_bytes()).numpy())
        offset = int(self.places[first]) * self._width
        while content:
            done = os.pwrite(self.file.descriptor, content, offset)
            content, offset = content[done:], offset + done

    def __reduce__(self) -> tuple[Any, ...]:
        """For processes that this one starts: they open the same file, while this one lives."""
        path = _OF_A_PROCESS.format(os.getpid(), self.file.descriptor)
        if not Path(path).exists():
            return _itself, (self.read(),)
        return _opened, (
            path,
            self.file.mark,
            self.file.end,
            self.each,
            self.stored,
            self.places,
            self.dtype,
            str(self.device),
        )


def room(shape: tuple[int, ...], dtype: Any) -> Any:
    """Where a reader writes examples, ``room[i] = example``: a tensor, or a file where it would exceed :data:`IN_MEMORY`.

    Shapes:
        (n, ...).

    Raises:
        OSError: where the folder of the cache cannot be written or has no room (``EXPUNGE_CACHE`` names another one).
    """
    import torch

    needed = math.prod(shape) * dtype.itemsize
    if needed <= IN_MEMORY:
        return torch.empty(shape, dtype=dtype)
    folder = make_folder(default_folder())
    with tempfile.TemporaryFile(dir=folder) as opened:  # for its owner only, and without a name
        descriptor = os.dup(opened.fileno())
    try:
        file = _File.new(descriptor, needed)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(folder).free
        words = (
            f"{shape[0]} examples need {needed / 2**30:.3g} GiB there, and {free / 2**30:.3g} GiB are free "
            f"({error.strerror}). Make room, or let EXPUNGE_CACHE name a folder that has it"
        )
        raise OSError(error.errno, words, str(folder)) from None
    return OnDisk(file, tuple(shape[1:]), dtype, np.arange(shape[0], dtype=np.int64))


def _reserve(descriptor: int, size: int) -> None:
    """Take the space now: a full disk is found before hours of reading."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def blocks(x: Any, most: int | None = None) -> Iterator[Any]:
    """All examples of a column in order, as parts of a bounded size; of a tensor these are views.

    Args:
        most: examples in a part.
    """
    if isinstance(x, OnDisk):
        return x.blocks(most)
    size = _rows(math.prod(x.shape[1:]) * x.dtype.itemsize, most)
    return (x[start : start + size] for start in range(0, max(1, len(x)), size))


def settled(x: Any) -> Any:
    """A column as a step or a pass takes it: read where it is small enough to be held, else as it is."""
    return x.read() if isinstance(x, OnDisk) and x.nbytes <= IN_MEMORY else x


def whole(x: Any) -> Any:
    """A column as a tensor; raises InputError where it does not fit into memory."""
    return x.read() if isinstance(x, OnDisk) else x


def joined(columns: Sequence[Any]) -> Any:
    """Columns one after another. Views of one file stay one; others are copied, into a file where the whole is large."""
    first = columns[0]
    if not any(isinstance(column, OnDisk) for column in columns):
        import torch

        return torch.cat(list(columns))
    if isinstance(first, OnDisk) and all(map(first.of_one_file, columns)):
        return first.at(np.concatenate([column.places for column in columns]))
    made, done = room((sum(map(len, columns)), *first.shape[1:]), first.dtype), 0
    for column in columns:
        for part in blocks(column):
            made[done : done + len(part)] = part
            done += len(part)
    return made.to(first.device)


def _rows(width: int, most: int | None) -> int:
    size = max(1, AT_ONCE // max(1, width))
    return size if most is None else min(size, most)


def _bytes() -> Any:
    import torch

    return torch.uint8


def _opened(path: str, mark: bytes, end: int, *rest: Any) -> OnDisk:
    return OnDisk(_File.at(path, mark, end), *rest)


def _itself(x: Any) -> Any:
    return x
