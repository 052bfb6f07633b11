"""Pixels made numbers with constants only, so that preparing one image never looks at another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from expunge.core.errors import InputError
from expunge.core.trained import Fact
from expunge.data.rows import by_reader


def normalised(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> tuple[torch.Tensor, Fact]:
    """Bytes as (value / 255 - mean) / std a channel, and the fact that only constants were used.

    Shapes:
        pixels: (n, channels, h, w) uint8 → float32.

    Raises:
        InputError: unless there is one mean and one spread above 0 for each channel.
    """
    channels = pixels.shape[1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise InputError(
            f"Expected mean and std as {channels} number(s), one a channel, std above 0; got {list(mean)} and {list(std)}."
        )
    centre = torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1)
    spread = torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1)
    x = torch.from_numpy(pixels.astype(np.float32)).div_(255).sub_(centre).div_(spread)
    return x, by_reader("fixed", f"pixels / 255, then constants: mean {list(mean)}, std {list(std)}")
