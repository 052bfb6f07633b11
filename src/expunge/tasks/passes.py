"""Passes of a model over many examples: in which mode, and how many examples at a time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.on_disk import AT_ONCE
from expunge.core.on_disk import joined as one_after_another

# How many examples go into one pass, by what it keeps in memory. Results do not depend on it beyond rounding.
ANSWERS = 32  # token by token: logits over a vocabulary; the batch size of TOFU's own evaluation is 30
ACTIVATIONS = 256  # what a layer makes of more no longer fits a cache: 2,048 images took three times as long
OUTPUTS = 4096  # of classifiers, to be measured
BENCH_OUTPUTS = 2048  # the same for the tables of ``expunge bench``
MEAN_GRADIENT = 16384  # of the mean loss over all examples
EXAMPLE_GRADIENTS = 512  # one gradient for each example: a copy of the weights each
STACKED = 65536  # examples × models that train stacked


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: no dropout, and running statistics stay. Every module gets back the mode that it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def in_passes(compute: Callable[[Batch], Tensor], batch: Batch, size: int) -> Tensor:
    """``compute`` of ``size`` examples at a time, joined in the order of the examples."""
    return torch.cat([compute(part) for part in batch.parts(size)])


def at_once(batch: Batch, size: int) -> int:
    """How many examples enter a pass: ``size``, or fewer where these are large (``AT_ONCE``)."""
    width = sum(math.prod(column.shape[1:]) * column.dtype.itemsize for column in batch.columns.values())
    return max(1, min(size, AT_ONCE // max(1, width)))


def joined(first: Batch, second: Batch) -> Batch:
    """The examples of both, those of ``first`` before; columns that only one of them has are left out.

    Raises:
        InputError: where what the examples share is not the same for both, such as two graphs.
    """
    same = first.shared.keys() == second.shared.keys()
    if not same or any(not torch.equal(first[name], second[name]) for name in first.shared):
        raise InputError("Expected batches over the same shared tensors; they differ. Take examples of one graph.")
    names = [name for name in first.columns if name in second.columns]
    return Batch({name: one_after_another([first.columns[name], second.columns[name]]) for name in names}, first.shared)
