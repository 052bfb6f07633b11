"""Random views of images for training."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.core.errors import InputError


def crop_flip(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Each image moved by up to ``padding`` pixels each way, and mirrored with probability one half.

    The usual augmentation of CIFAR: crop at random from an image padded with zeros, then flip. On normalised images the
    border has the mean's colour. Randomness comes from ``generator`` only, whatever device ``x`` is on.

    Shapes:
        (n, channels, h, w) → the same.

    Raises:
        InputError: for inputs of another shape or a negative padding.
    """
    if x.ndim != 4 or padding < 0:
        raise InputError(
            f"Expected images (n, channels, h, w) and a padding of at least 0; got {tuple(x.shape)} and {padding}."
        )
    n, channels, height, width = x.shape
    device = generator.device

    def moved() -> Tensor:
        return torch.randint(0, 2 * padding + 1, (n, 1), generator=generator, device=device).to(x.device)

    down, right = moved(), moved()
    flip = (torch.rand((n, 1), generator=generator, device=device) < 0.5).to(x.device)
    rows = down + torch.arange(height, device=x.device)  # (n, h)
    along = torch.arange(width, device=x.device)
    columns = right + torch.where(flip, along.flip(0), along)  # (n, w)
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
