"""Which rows a mini-batch holds: a pure function of seed and epoch, whoever trains and wherever it starts again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Random numbers of one seed that must not be the same: initial weights come from the seed itself.
ORDER, AUGMENTATION, LAYERS = 1, 2, 3


def epoch_seed(seed: int, epoch: int, stream: int) -> int:
    """A 64-bit seed for one purpose in one epoch; equal only for equal arguments (up to chance)."""
    return int(np.random.SeedSequence([seed % 2**64, stream, epoch]).generate_state(1, np.uint64)[0])


def epoch_generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """A CPU generator that starts from :func:`epoch_seed`."""
    return torch.Generator().manual_seed(epoch_seed(seed, epoch, stream))


def epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    """The order in which epoch ``epoch`` (from 1) goes through ``rows`` rows, (rows,)."""
    return torch.randperm(rows, generator=epoch_generator(seed, epoch, ORDER))
