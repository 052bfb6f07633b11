"""Examples as named tensors: what a task makes of data and hands to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.core.errors import InputError
from expunge.core.on_disk import OnDisk, settled, whole


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples as named tensors: columns, one entry for each example, and tensors that all examples share.

    A graph's edges, the features of its nodes and a network's mixing matrix are shared: an example needs the whole of them,
    so they are never sliced. This class is the only place where batches are sliced.

    A column may lie on disk (``core.on_disk``). What is taken of it is read where it is small enough to be held; asking the
    whole batch for it by name reads it all, each time.

    Attributes:
        columns: name → tensor with the examples along its first axis, or a column on disk; at least one.
        shared: name → tensor that belongs to the batch as a whole.

    >>> import numpy as np
    >>> batch = Batch({"y": np.array([0, 1, 1])}, {"adjacency": np.eye(5)})
    >>> len(batch), batch["adjacency"].shape
    (3, (5, 5))
    >>> [(part["y"].tolist(), part["adjacency"].shape) for part in batch.parts(2)]
    [([0, 1], (5, 5)), ([1], (5, 5))]
    """

    columns: Mapping[str, Any]
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"Expected columns with one entry for each example; got lengths {lengths}.")
        if both := sorted(self.columns.keys() & self.shared.keys()):
            raise InputError(f"Expected names of columns or of shared tensors; {', '.join(both)} name(s) both.")

    def __len__(self) -> int:
        """The number of examples."""
        return len(next(iter(self.columns.values())))

    def __contains__(self, name: object) -> bool:
        return name in self.columns or name in self.shared

    def __getitem__(self, name: str) -> Any:
        if name in self.columns:
            return whole(self.columns[name])
        if name in self.shared:
            return self.shared[name]
        raise InputError(f"Expected one of {', '.join([*self.columns, *self.shared])}; the batch has no {name!r}.")

    @property
    def device(self) -> Any:
        """Where the first column lies."""
        return next(iter(self.columns.values())).device

    @property
    def on_disk(self) -> bool:
        """Whether a column is not in memory."""
        return any(isinstance(column, OnDisk) for column in self.columns.values())

    def tensors(self) -> dict[str, Any]:
        """Every column as a tensor, read where it is on disk."""
        return {name: whole(column) for name, column in self.columns.items()}

    def read(self) -> Batch:
        """The same examples in memory: for what looks at all of them again and again.

        Raises:
            InputError: where they do not fit into it.
        """
        return Batch(self.tensors(), self.shared) if self.on_disk else self

    def take(self, index: Any) -> Batch:
        """The examples at ``index``: a slice, or a tensor of positions (b,) on any device, in its order."""
        if isinstance(index, slice):
            taken = {name: column[index] for name, column in self.columns.items()}
        else:
            taken = {name: column.index_select(0, index.to(column.device)) for name, column in self.columns.items()}
        return Batch({name: settled(column) for name, column in taken.items()}, self.shared)

    def parts(self, size: int) -> Iterator[Batch]:
        """All examples in order, ``size`` at a time; the last part may be smaller."""
        return (self.take(slice(start, start + size)) for start in range(0, len(self), size))

    def with_columns(self, **columns: Any) -> Batch:
        """The same examples with further columns, or with others of the same name."""
        return Batch({**self.columns, **columns}, self.shared)
