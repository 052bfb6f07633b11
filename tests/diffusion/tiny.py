"""A diffusion model of a few thousand weights on made-up images: a bright square, its place by class."""

from __future__ import annotations

import functools

import numpy as np
import torch

from expunge.data.rows import Rows
from expunge.tasks.diffusion.images import ImageDiffusion
from expunge.tasks.diffusion.sampling import Sampler
from expunge.tasks.diffusion.schedule import NoiseSchedule
from expunge.tasks.diffusion.unet import UNet

SIDE, CLASSES = 8, 3


def squares(n: int = 60, seed: int = 0) -> Rows:
    """Images 8 × 8 with a square of 3 × 3 in a corner that the class names, and a little noise."""
    draw = np.random.default_rng(seed)
    y = np.arange(n) % CLASSES
    x = 0.1 * draw.random((n, 1, SIDE, SIDE))
    for i, label in enumerate(y):
        top, left = divmod(int(label), 2)
        x[i, 0, 4 * top + 1 : 4 * top + 4, 4 * left + 1 : 4 * left + 4] += 0.8
    return Rows.of(torch.tensor(x, dtype=torch.float32), y)


def tiny(dtype: torch.dtype = torch.float32, **options) -> ImageDiffusion:
    """Ten levels of noise, ten sampling steps."""
    factory = functools.partial(UNet, 1, CLASSES, width=8, depth=1)
    options = {"schedule": NoiseSchedule("cosine", 10), "sampler": Sampler(10, 1.0), "draws": 2} | options
    return ImageDiffusion(factory, (1, SIDE, SIDE), CLASSES, dtype=dtype, **options)
