"""Batches whose order is a function of numbers alone, so that a run can be taken up at any step.

Nothing here keeps a random state: the order of pass ``p`` over a stream follows from the seed, the stream's name and
``p``; every other draw follows from the seed and the number of the step. Resuming needs a step number and no more.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

from expunge.training.batches import epoch_seed
from expunge.training.stochastic import split_order


def mixed_seed(seed: int, name: str, number: int) -> int:
    """A 64-bit seed of its own for draw ``number`` of purpose ``name`` under ``seed``."""
    return epoch_seed(seed, number, zlib.crc32(name.encode()))


def generator_for(seed: int, name: str, number: int) -> torch.Generator:
    """A CPU generator of its own for draw ``number`` of purpose ``name`` under ``seed``."""
    return torch.Generator().manual_seed(mixed_seed(seed, name, number))


def batches_per_pass(rows: int, size: int) -> int:
    """How many batches one pass takes; the last one may be smaller.

    A last batch of a single row joins the one before it: one row alone has no variance to normalise by.
    """
    count = -(-rows // size)
    return count - 1 if count > 1 and size > 1 and rows % size == 1 else count


def endless(rows: int, size: int, seed: int, name: str) -> Iterator[Tensor]:
    """Positions of batch after batch, each pass in an order of its own, without end.

    Shapes:
        each → (size,) int64, the last of a pass possibly shorter (or longer by one, see :func:`batches_per_pass`).
    """
    number = 0
    while True:
        order = torch.randperm(rows, generator=generator_for(seed, name, number))
        yield from split_order(order, size, alone=1 if size > 1 else 0)
        number += 1
