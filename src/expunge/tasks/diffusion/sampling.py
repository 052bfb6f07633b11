"""Drawing images: DDIM with classifier-free guidance, many images at a time, each from noise of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.tasks.passes import ACTIVATIONS, evaluating

if TYPE_CHECKING:
    from expunge.tasks.diffusion.images import ImageDiffusion

_SEEDS = 1_000_003  # images of one seed


@dataclass(frozen=True)
class Sampler:
    """Deterministic DDIM (Song et al., arXiv 2010.02502, eq. 12 with sigma 0).

    Attributes:
        steps: levels on the way from noise to image: 50, which loses little against 1,000 (the same, table 1).
        guidance: w of classifier-free guidance, ``e = (1 + w) e(class) - w e(any)`` (Ho and Salimans, arXiv 2207.12598, eq.
            6); 0: none. 1, our choice.
    """

    steps: int = 50
    guidance: float = 1.0

    def __post_init__(self):
        if self.steps < 1 or not 0 <= self.guidance < float("inf"):
            raise InputError(
                f"Expected at least one sampling step and a guidance of 0 or more; got {self.steps} and {self.guidance}."
            )


@torch.no_grad()
def sampled(
    task: ImageDiffusion, model: nn.Module, params: Mapping[str, Tensor], labels: Tensor, seed: int,
    size: int = ACTIVATIONS,
) -> Tensor:  # fmt: skip
    """One image in [0, 1] for each of ``labels`` (n,), in evaluation mode; (n, c, h, w).

    The noise that image i begins with follows from ``seed`` and i alone, so that equal seeds give equal images, and the first
    of many images is the one that is drawn alone (up to rounding).

    Args:
        size: images in one pass; two passes' worth where there is guidance.
    """
    start = torch.stack(
        [
            torch.randn(task.shape, generator=torch.Generator().manual_seed((seed * _SEEDS + i) % 2**63))
            for i in range(len(labels))
        ]
    )
    start, labels = start.to(task.device, task.dtype), labels.to(task.device)
    with evaluating(model):
        parts = [
            _denoised(task, model, params, x, y) for x, y in zip(start.split(size), labels.split(size), strict=True)
        ]
    return (torch.cat(parts) + 1) / 2


def _denoised(task: ImageDiffusion, model: nn.Module, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """From noise to images in [-1, 1]; what the images are taken to be is kept in that range on the way."""
    path = task.schedule.path(task.sampler.steps)
    one = torch.ones((), dtype=torch.float64)
    for level, after in zip(path, [*path[1:], None], strict=True):
        noise = _guided(task, model, params, x, torch.full_like(y, level), y)
        kept = task.schedule.kept[level]
        later = one if after is None else task.schedule.kept[after]
        image = ((x - float((1 - kept).sqrt()) * noise) / float(kept.sqrt())).clamp(-1, 1)
        noise = (x - float(kept.sqrt()) * image) / float((1 - kept).sqrt())
        x = float(later.sqrt()) * image + float((1 - later).sqrt()) * noise
    return x


def _guided(
    task: ImageDiffusion, model: nn.Module, params: Mapping[str, Tensor], x: Tensor, level: Tensor, y: Tensor
) -> Tensor:
    w = task.sampler.guidance
    if not w:
        return task.predicted(model, params, x, level, y)
    twice = task.predicted(
        model, params, torch.cat([x, x]), torch.cat([level, level]), torch.cat([y, torch.full_like(y, task.any_class)])
    )
    known, any_class = twice.chunk(2)
    return (1 + w) * known - w * any_class
