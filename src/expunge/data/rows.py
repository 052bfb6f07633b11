"""Independent rows with labels and columns that name their users."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from expunge.core.data import Ids
from expunge.core.digest import digest_arrays
from expunge.core.errors import InputError
from expunge.core.on_disk import OnDisk, blocks
from expunge.core.on_disk import joined as one_after_another
from expunge.core.request import Kind, Target
from expunge.core.trained import Fact, Origin
from expunge.data import selecting
from expunge.data.image_files import Files
from expunge.data.values import column

ROWS_AS_GIVEN = Fact(
    "fixed", Origin.DECLARED, "rows came prepared; the caller says that preparing them did not look at other rows"
)


_DIGESTED_AT_ONCE = 2**14  # rows that are copied beside their labels at a time


class _ByReader(Fact):
    """What a reader of expunge's own says of rows that it makes now; rows carry a plain :class:`Fact` afterwards."""


def by_reader(value: str, note: str) -> Fact:
    """How a reader prepared its rows: ``fixed`` (each by itself) or ``fitted`` (looking at others). For readers only."""
    return _ByReader(value, Origin.ENFORCED, note)


def as_said(fact: Fact, note: str = "") -> Fact:
    """``fact`` as somebody's word: a declaration at most, whatever origin was typed into it."""
    strong = fact.origin in (Origin.PROVED, Origin.ENFORCED)
    return Fact(fact.value, Origin.DECLARED, note or fact.note or ROWS_AS_GIVEN.note) if strong else fact


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs, integer labels, persistent row ids, columns by which users are found, and what classes are called.

    Shapes:
        ``x``: (n, ...) floating point, or a column on disk (``core.on_disk``), whose selections copy nothing. ``y``: (n,)
        int64. ``ids``: (n,) int64, unique. Each of ``columns``: (n,).
        ``names``: one for each label in order, or none.

    ``preprocessing`` records whether a row was prepared without looking at other rows, and who says so. ``as_read`` are digests
    of each row as a reader of expunge's own made it, (n, 32) bytes: :meth:`prepared` compares, so that what the reader
    established is not said of rows that were changed since, by ``dataclasses.replace`` or in place. ``files``
    says which file each row was read from, where each has one of its own.

    Build it with :meth:`of`, which checks; slicing trusts.
    """

    x: torch.Tensor | OnDisk
    y: torch.Tensor
    ids: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    preprocessing: Fact = ROWS_AS_GIVEN
    names: tuple[str, ...] = ()
    as_read: np.ndarray | None = field(default=None, repr=False)
    files: Files | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, x: Any, y: Any, columns: Mapping[str, Any] | None = None, *, preprocessing: Fact = ROWS_AS_GIVEN,
        names: Sequence[str] = (),
    ) -> Rows:  # fmt: skip
        """Check and wrap tensors or arrays.

        Args:
            columns: by which users are found; a row may name several people as a list.
            preprocessing: whether preparing a row looked at other rows. What is said here is the caller's word, whatever its
                origin; only expunge's own readers establish more.
            names: what the classes are called, in the order of their labels.

        Raises:
            InputError: on NaN or infinite inputs, labels that are not whole numbers from 0, lengths that differ, arrays of
                something else than numbers, or a row whose column names nobody.
        """
        x = x if isinstance(x, OnDisk) else _tensor(x, "inputs")
        if not x.is_floating_point():
            x = x.to(x.device, torch.float32)
        y = _tensor(y, "labels")
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
            raise InputError(
                f"Expected inputs of shape (n, ...) and labels of shape (n,); got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        if len(x) == 0:
            raise InputError("Expected at least one row; the data are empty.")
        if bad := _not_finite(x):
            raise InputError(
                f"Expected finite inputs; {len(bad)} row(s) hold NaN or infinity, the first at position {bad[0]}. "
                "Fill or drop them before training."
            )
        if y.is_floating_point() and not torch.equal(y, y.round()):
            raise InputError(
                "Expected whole-number class labels; got fractions (or NaN). Encode the classes as 0, 1, 2, …"
            )
        y = y.long()
        if int(y.min()) < 0:
            raise InputError(f"Expected class labels from 0 upwards; the smallest is {int(y.min())}.")
        arrays = {str(name): column(str(name), values, len(x)) for name, values in (columns or {}).items()}
        ids, read = np.arange(len(x), dtype=np.int64), type(preprocessing) is _ByReader
        said = Fact(preprocessing.value, preprocessing.origin, preprocessing.note) if read else as_said(preprocessing)
        return cls(x, y, ids, arrays, said, tuple(names), _each(x, y) if read else None)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """Content digest of inputs, labels and ids (columns name people and do not enter a model)."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return self.of_content()

    def of_content(self) -> str:
        """The digest, computed now and not remembered: tensors can be changed in place."""
        return digest_arrays({"x": self.x, "y": self.y, "ids": self.ids})

    def prepared(self) -> Fact:
        """How the rows were prepared: what their reader established where every row is still as it made it, else a word.

        Computed now and not remembered: tensors can be changed in place. A row may change its shape, not its numbers.
        """
        if self.as_read is None:
            return as_said(self.preprocessing)
        if len(self.as_read) == len(self.x) and np.array_equal(self.as_read, _each(self.x, self.y)):
            return self.preprocessing
        return as_said(
            self.preprocessing, "inputs or labels were changed after they were read; how is the caller's word"
        )

    @cached_property
    def _places(self) -> selecting.Places:
        return selecting.Places(self.columns)

    def select(self, target: Target) -> Ids:
        """Row ids that ``target`` names (kinds: samples, user, class)."""
        if target.kind == Kind.SAMPLES:
            if self.files is not None and "ids" not in target.where:
                return Ids.rows(self.ids[self.files.positions(target)])
            return selecting.samples(target, self.ids)
        if target.kind == Kind.CLASS:
            return Ids.rows(self.ids[np.isin(self.y.cpu().numpy(), selecting.classes(target, self.names))])
        if target.kind == Kind.USER:
            return selecting.user(target, self.ids, self._places)
        raise InputError(f"Rows can lose samples, users or classes; a {target.kind} target has no meaning here.")

    def unmatched(self, target: Target) -> tuple[str, ...]:
        """Each value that ``target`` names and no row has, in words."""
        if target.kind == Kind.SAMPLES and self.files is not None:
            return self.files.unmatched(target)
        return selecting.unmatched(target, self._places, self.y.cpu().numpy(), self.names)

    def named(self) -> dict[str, list[tuple[str, ...]]]:
        """What targets may call each row: the people in its columns, and its class."""
        called = [self.names[y] if y < len(self.names) else str(y) for y in self.y.tolist()]
        return {**selecting.people(self.columns), "class": [(name,) for name in called]}

    def contents(self, at: Sequence[int] | None = None) -> list[str]:
        """A digest of each row's inputs and label; the same row prepared in another way has another one."""
        x, y = self.x.detach().cpu(), self.y.cpu()
        return [digest_arrays({"x": x[i], "y": y[i]}) for i in (range(len(self)) if at is None else at)]

    def files_at(self, at: Sequence[int]) -> list[str]:
        """Paths of the files that the rows at these positions were read from; none where they have none of their own."""
        return [] if self.files is None else self.files.names[list(at)].tolist()

    def file_contents(self, at: Sequence[int]) -> list[str]:
        """What these files are recognised by."""
        return [] if self.files is None else self.files.digests(at)

    def owned(self) -> dict[str, str]:
        """Digest of whose each row is, of each column, computed now and not remembered: columns can be changed in place."""
        digests = dict[str, str]()
        for name, values in self.columns.items():
            texts = [str(value) for value in values.tolist()]
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
            whole = np.frombuffer("".join(texts).encode(errors="surrogatepass"), np.uint8)
            digests[name] = digest_arrays({"ids": self.ids, "lengths": lengths, "texts": whole})
        return digests

    @property
    def row_digests(self) -> np.ndarray:
        """SHA-256 of each row's inputs and label, (n, 32) bytes: as their reader made them, else as they are."""
        return _each(self.x, self.y) if self.as_read is None else self.as_read

    def _take(self, mask: np.ndarray) -> Rows:
        index = torch.from_numpy(np.flatnonzero(mask)).to(self.x.device)
        columns = {name: values[mask] for name, values in self.columns.items()}
        as_read = None if self.as_read is None else self.as_read[mask]
        x, y = self.x[index], self.y[index.to(self.y.device)]
        files = None if self.files is None else self.files.take(mask)
        return replace(self, x=x, y=y, ids=self.ids[mask], columns=columns, as_read=as_read, files=files)

    def without(self, ids: Ids) -> Rows:
        """The rows that stay."""
        return self._take(~np.isin(self.ids, ids["row"]))

    def only(self, ids: Ids) -> Rows:
        """The rows that go."""
        return self._take(np.isin(self.ids, ids["row"]))

    def touched(self, ids: Ids) -> Ids:
        """Independent rows do not change when others go."""
        return Ids.none()

    def to(self, device: str, dtype: torch.dtype | None = None) -> Rows:
        """The same rows on another device or in another floating-point type."""
        moved = replace(self, x=self.x.to(device, dtype or self.x.dtype), y=self.y.to(device))
        if self.as_read is None or moved.x.dtype == self.x.dtype:
            return moved
        # rounding changes each row by itself: rows that were as read stay so
        said = self.prepared()
        kept = said.origin is self.preprocessing.origin
        return replace(moved, preprocessing=said, as_read=_each(moved.x, moved.y) if kept else None)

    def in_memory(self) -> Rows:
        """The same rows with their examples in one tensor, for code that reads ``x`` as one.

        Raises:
            InputError: where they do not fit into the memory of this machine.
        """
        return replace(self, x=self.x.read()) if isinstance(self.x, OnDisk) else self

    @property
    def classes(self) -> int:
        """One more than the largest label."""
        return int(self.y.max()) + 1


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after another under new ids 0, 1, 2, … (the ids of parts may overlap), without columns."""
    x, y = one_after_another([part.x for part in parts]), torch.cat([part.y for part in parts])
    return Rows(x, y, np.arange(len(x), dtype=np.int64))


def _not_finite(x: torch.Tensor | OnDisk) -> list[int]:
    """Positions of rows that hold NaN or infinity."""
    bad, start = list[int](), 0
    for part in blocks(x):
        if not torch.isfinite(part.sum()) and not torch.isfinite(part).all():  # the sum of finite numbers may overflow
            places = (~torch.isfinite(part).reshape(len(part), -1).all(1)).nonzero().ravel()
            bad += (places + start).tolist()
        start += len(part)
    return bad


def _each(x: torch.Tensor | OnDisk, y: torch.Tensor) -> np.ndarray:
    """SHA-256 of each row's inputs and label, (n, 32) bytes."""
    labels = y.detach().cpu().numpy().astype("<i8").view(np.uint8).reshape(len(x), -1)
    digests, start = list[bytes](), 0
    for block in blocks(x, _DIGESTED_AT_ONCE):
        bits = block.detach().cpu().contiguous().reshape(-1).view(torch.uint8).reshape(len(block), -1).numpy()
        part = np.concatenate([labels[start : start + len(block)], bits], axis=1)
        width, start, bytes_ = part.shape[1], start + len(block), part.reshape(-1).data
        digests += [hashlib.sha256(bytes_[i : i + width]).digest() for i in range(0, len(bytes_), width)]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(x), -1)


def _tensor(values: Any, what: str) -> torch.Tensor:
    """Numbers of any kind and byte order as a tensor of this machine's; raises InputError for anything else."""
    if isinstance(values, torch.Tensor):
        if values.is_complex():
            raise InputError(f"Expected {what} in real numbers; got {values.dtype}. Give both parts as columns.")
        return values
    try:
        if isinstance(values, list | tuple):
            return torch.as_tensor(values)
        array = np.asarray(values)
        if array.dtype.kind not in "iufb":
            raise TypeError(f"type {array.dtype}")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.float32 if what == "inputs" else np.int64)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return torch.as_tensor(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(
            f"Expected {what} in numbers; got {error!s:.120}. Encode texts, classes and dates as numbers first."
        ) from None
