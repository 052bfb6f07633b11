"""Map-style datasets of the operator's own code (``torch.utils.data.Dataset``) as rows: examples, targets, ids and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from expunge.core.errors import InputError
from expunge.core.on_disk import room
from expunge.data.rows import Rows
from expunge.data.values import whole_ids

ADVICE = "Give the dataset an attribute ids, one whole number for each example that it keeps whatever else is added or removed"


def rows_of(dataset: Any, name: str, *, users: bool = True, names: Sequence[str] = ()) -> Rows:
    """The examples of a dataset, each read once, as the model sees them: transforms are the dataset's own.

    They are read one after another, once, to the place where they stay: one tensor in memory, or a private file where they are
    large (``core.on_disk``). Whatever comes later reads from there, and never asks the dataset again.

    Args:
        dataset: with ``len``, ``dataset[i] → (example, target)``, ``ids`` (n whole numbers, each once) and, where people may be
            forgotten, ``users``: a mapping from columns to n values each. Examples are tensors or arrays of one shape, targets
            whole numbers from 0.
        name: of the callable, for messages.
        users: whether the dataset must say whose its examples are and which ids they have; test sets need not.
        names: what the classes are called, in the order of their labels.

    Raises:
        InputError: for a dataset without a length or ids, one whose length changes or that ends early, examples of several
            shapes, or one that gives another example when it is asked again (a random transform).
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"Expected {name} to return a map-style dataset, with a length; it returned {type(dataset).__name__}."
        )
    count, ids = len(dataset), getattr(dataset, "ids", None)
    if not count:
        raise InputError(f"The dataset of {name} is empty; expected at least one example.")
    if ids is None and users:
        raise InputError(
            f"The dataset of {name} has no ids: nobody could be found again once its order changes. {ADVICE}."
        )
    first, _ = _item(dataset, 0, name)
    examples, targets = room((count, *first.shape), first.dtype), list[int]()
    for i in range(count):  # one after another into the place where they stay: nothing is held twice
        example, target = _item(dataset, i, name)
        if (example.shape, example.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"Expected examples of one shape and type in the dataset of {name}; example {i} has {tuple(example.shape)} "
                f"({example.dtype}), the first {tuple(first.shape)} ({first.dtype}). Scale or pad them in its transform."
            )
        examples[i] = example
        targets.append(target)
    if len(dataset) != count:
        raise InputError(
            f"The length of the dataset of {name} changed from {count} to {len(dataset)} while it was read."
        )
    for i in sorted({0, count // 2, count - 1}):
        example, target = _item(dataset, i, name)
        if target != targets[i] or not torch.equal(example, examples[i]):
            raise InputError(
                f"Example {i} of the dataset of {name} came out differently when it was read again: a random transform. Leave "
                "it out here; training.augment has augmentation of its own."
            )
    columns = _columns(dataset, count, name) if users else {}
    rows = Rows.of(examples, torch.tensor(targets), columns, names=names)
    return rows if ids is None else replace(rows, ids=_ids(ids, count, name))


def _item(dataset: Any, i: int, name: str) -> tuple[torch.Tensor, int]:
    try:
        item = dataset[i]
    except IndexError:
        raise InputError(
            f"The dataset of {name} says that it has {len(dataset)} examples and has none at {i}."
        ) from None
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(
            f"Expected (example, target) from the dataset of {name}; example {i} is a {type(item).__name__}."
        )
    example, target = item
    try:
        example = torch.as_tensor(np.asarray(example) if not isinstance(example, torch.Tensor) else example)
        label = int(target)
        if label != target:
            raise ValueError
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"Expected a tensor or an array and a whole number from the dataset of {name}; example {i} is a "
            f"{type(item[0]).__name__} with {target!r:.40}. Convert both in its transform."
        ) from None
    return example.detach().cpu().float() if not example.is_floating_point() else example.detach().cpu(), label


def _columns(dataset: Any, count: int, name: str) -> dict[str, Any]:
    columns = getattr(dataset, "users", {})
    if not isinstance(columns, Mapping):
        raise InputError(
            f"Expected users of the dataset of {name} as a mapping from columns to values; got {type(columns).__name__}."
        )
    for column, values in columns.items():
        if len(values) != count:
            raise InputError(
                f"Expected {count} values under users[{column!r}] of {name}, one an example; got {len(values)}."
            )
    return dict(columns)


def _ids(ids: Any, count: int, name: str) -> np.ndarray:
    try:
        return whole_ids(ids, count)
    except InputError as error:
        raise InputError(f"The dataset of {name}: {error} {ADVICE}.") from None
