"""Rounding to half precision that loses no small change: up or down with the probabilities that keep the mean.

A bfloat16 number has 8 significant bits, so that a step of 1e-5 on a weight of 0.1 is a fiftieth of the spacing there and is
always rounded away. Rounding up with probability equal to the share of the spacing that was covered (Gupta et al. 2015, arXiv
1502.02551, section 3) moves that share of all weights instead, and their mean effect is that of the unrounded ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

# type → trailing bits of a float32 that it does not have (float16: for numbers from 2**-14 on)
DROPPED = {torch.bfloat16: 16, torch.float16: 13}


def is_half(tensor: Tensor) -> bool:
    """Whether ``tensor`` is in half precision."""
    return tensor.dtype in DROPPED


def rounded(wide: Tensor, dtype: torch.dtype, place: int) -> Tensor:
    """``wide`` in half precision, each number up or down against a threshold of its own.

    The thresholds follow from ``place`` and the shape alone, and not from the time. The same numbers are thus always rounded
    to the same ones, a number that ``dtype`` holds exactly stays itself, and a weight that rises never falls by rounding.

    Args:
        wide: float32, any shape.
        dtype: bfloat16 or float16.
        place: seeds the thresholds; another one for each tensor of a model.

    Returns:
        Of ``wide``'s shape. Before the draw, the expected value is ``wide`` itself (for float16: from 2**-14 to 65504).

    Formal guarantee: the expected value, from uniform thresholds. That they stay the same from step to step is our choice.
    """
    bits = DROPPED[dtype]
    generator = torch.Generator(wide.device).manual_seed(place)
    threshold = torch.randint(2**bits, wide.shape, generator=generator, dtype=torch.int32, device=wide.device)
    threshold += wide.view(torch.int32)
    cut = (threshold >> bits << bits).view(torch.float32)
    return torch.where(wide.isfinite(), cut, wide).to(dtype)
