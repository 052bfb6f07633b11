"""A small U-Net that predicts the noise in an image, for a class and a level of noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError


class Block(nn.Module):
    """Two convolutions around which the input is added; class and level scale and shift what lies between them.

    Shapes:
        (b, inputs, h, w), (b, embedded) → (b, outputs, h, w).
    """

    def __init__(self, inputs: int, outputs: int, embedded: int, groups: int):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.scale = nn.Linear(embedded, 2 * outputs)
        self.norm = nn.GroupNorm(groups, outputs)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """See the class."""
        scale, shift = self.scale(embedded)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.second(self.norm(self.first(x)) * (1 + scale) + shift)


class UNet(nn.Module):
    """The noise in ``x`` (b, c, h, w) at levels ``t`` (b,) for conditions ``y`` (b,): classes, or ``classes`` for "any".

    Two resolutions, after squares of ``patch`` × ``patch`` pixels were folded into channels: of the U-Net of DDPM (arXiv
    2006.11239, appendix B) what 28 × 28 images need on a CPU. No attention, no dropout.

    Args:
        channels, classes: of the images, and conditions to be embedded apart; one embedding more stands for "any".
        width: channels at the finer resolution; twice as many at the coarser one.
        patch: 2, so that a 28 × 28 image is 14 × 14 inside: a quarter of the cost; 1 folds nothing.
        depth: blocks at the coarser resolution.
    """

    def __init__(self, channels: int, classes: int, width: int = 32, patch: int = 2, depth: int = 2):
        super().__init__()
        if width % 4:
            raise InputError(f"Expected a width that 4 divides; got {width}.")
        groups, embedded, inside = 4, 4 * width, channels * patch**2
        self.channels, self.width, self.patch = channels, width, patch
        self.level = nn.Sequential(nn.Linear(width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.condition = nn.Embedding(classes + 1, embedded)
        self.enter = nn.Conv2d(inside, width, 3, padding=1)
        self.fine = Block(width, width, embedded, groups)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(Block(2 * width, 2 * width, embedded, groups) for _ in range(depth))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge = Block(2 * width, width, embedded, groups)
        self.leave = nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, inside, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """See the class.

        Raises:
            InputError: for images of another number of channels, or of sides that cannot be halved so often.
        """
        if x.shape[1] != self.channels or x.shape[2] % (2 * self.patch) or x.shape[3] % (2 * self.patch):
            raise InputError(
                f"Expected images of {self.channels} channel(s) with sides that {2 * self.patch} divides; got "
                f"{tuple(x.shape[1:])}."
            )
        embedded = nn.functional.silu(self.level(waves(t, self.width).to(x.dtype)) + self.condition(y))
        fine = self.fine(self.enter(nn.functional.pixel_unshuffle(x, self.patch)), embedded)
        coarse = self.down(fine)
        for block in self.coarse:
            coarse = block(coarse, embedded)
        merged = self.merge(torch.cat([self.up(coarse), fine], 1), embedded)
        return nn.functional.pixel_shuffle(self.leave(merged), self.patch)


def waves(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of ``t`` (b,) at ``width`` / 2 frequencies from 1 to 1/10,000 (arXiv 1706.03762), (b, width)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
