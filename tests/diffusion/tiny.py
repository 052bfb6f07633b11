"""A diffusion model of a few thousand weights on made-up images: a bright square, its place by class."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

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


SETUP: dict[str, Any] = {
    "task": "diffusion", "model": "unet", "model_settings": {"width": 8, "depth": 1},
    "noise": {"kind": "cosine", "levels": 10}, "sampling": {"steps": 3, "guidance": 1.0}, "images": 20,
    "data": {"format": "arrays", "path": "squares.npz", "test_path": "test.npz"},
    "training": {"kind": "stochastic", "epochs": 2, "lr": 0.01, "batch_size": 20},
}  # fmt: skip
FORGET_CLASS = {"subject": "the square in the corner", "targets": [{"kind": "class", "where": {"label": 1}}]}
RECIPE = {name: value for name, value in SETUP.items() if name != "task"} | {
    "training": {"kind": "stochastic", "epochs": 40, "lr": 0.01, "batch_size": 20}, "forget": {"labels": [1]},
    "retrained_models": 1, "seeds": 1, "methods": {"gradient_ascent": {"epochs": 1}, "no_op": {}},
}  # fmt: skip


def write_arrays(folder: Path) -> None:
    """``squares.npz`` and ``test.npz``."""
    for name, rows in {"squares": squares(60), "test": squares(30, seed=1)}.items():
        np.savez(folder / f"{name}.npz", x=rows.x.numpy(), y=rows.y.numpy())


def write_job(folder: Path, **changes: Any) -> Path:
    """A job that forgets a class by ascent, with its data."""
    write_arrays(folder)
    job = SETUP | {
        "request": FORGET_CLASS, "method": {"name": "gradient_ascent", "epochs": 1},
        "evidence": {"replicates": 0, "pdf": False},
    } | changes  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path
