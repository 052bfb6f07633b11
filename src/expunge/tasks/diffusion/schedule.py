"""How much noise an image holds at each level: the variance-preserving schedules of DDPM and of improved DDPM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from expunge.core.errors import InputError

_FIRST, _LAST = 1e-4, 0.02  # beta of DDPM over 1,000 levels (arXiv 2006.11239, section 4)
_OFFSET, _LARGEST = 0.008, 0.999  # s and the largest beta of the cosine schedule (arXiv 2102.09672, section 3.2)
KINDS = ("linear", "cosine")


@dataclass(frozen=True)
class NoiseSchedule:
    """``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e`` with ``a_t = prod_{s<=t} (1 - beta_s)`` at levels t = 0 … ``levels`` - 1.

    Attributes:
        kind: ``linear``, DDPM's (beta from 1e-4 to 0.02 over 1,000 levels, scaled for other numbers of levels so that the last
            ``a_t`` stays what it is); ``cosine`` (Nichol and Dhariwal, arXiv 2102.09672), which keeps more of small images.
        levels: 1,000, as both papers have it.
    """

    kind: str = "linear"
    levels: int = 1000

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"Expected a noise schedule among {', '.join(KINDS)}; got {self.kind!r}.")
        if self.levels < 2:
            raise InputError(f"Expected at least two levels of noise; got {self.levels}.")

    @cached_property
    def betas(self) -> Tensor:
        """Variance added at each level, (levels,) float64."""
        if self.kind == "linear":
            scale = 1000 / self.levels
            return torch.linspace(_FIRST * scale, _LAST * scale, self.levels, dtype=torch.float64).clamp_max(_LARGEST)
        at = torch.arange(self.levels + 1, dtype=torch.float64) / self.levels
        kept = torch.cos((at + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
        return (1 - kept[1:] / kept[:-1]).clamp_max(_LARGEST)

    @cached_property
    def kept(self) -> Tensor:
        """``a_t``: the share of the image's variance that is left at each level, (levels,) float64, falling."""
        return torch.cumprod(1 - self.betas, 0)

    def noised(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """``x_t`` of images (b, c, h, w) at levels (b,)."""
        image, error = self.factors(level, x)
        return image * x + error * noise

    def factors(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``sqrt(a_t)`` and ``sqrt(1 - a_t)`` of levels (b,), each (b, 1, 1, 1) and of the type of ``like``."""
        kept = self.kept.to(like.device)[level].view(-1, 1, 1, 1)
        return kept.sqrt().to(like.dtype), (1 - kept).sqrt().to(like.dtype)

    def path(self, steps: int) -> list[int]:
        """``steps`` levels from the noisiest to the cleanest, evenly spaced: where DDIM stops on its way.

        Raises:
            InputError: unless there are between 1 and ``levels`` of them.
        """
        if not 1 <= steps <= self.levels:
            raise InputError(f"Expected between 1 and {self.levels} sampling steps; got {steps}.")
        return torch.linspace(self.levels - 1, 0, steps).round().long().tolist() if steps > 1 else [self.levels - 1]
