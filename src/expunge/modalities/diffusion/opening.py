"""From a checked job for a diffusion model to live objects: task, images, recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from expunge.core.errors import InputError
from expunge.core.on_disk import whole
from expunge.data.arrays import read_arrays
from expunge.data.cifar import cifar10
from expunge.data.digits import digits
from expunge.data.idx import fashion_mnist, mnist
from expunge.data.rows import Rows
from expunge.modalities.diffusion import config
from expunge.modalities.named import module_factory, must_exist, resolve
from expunge.tasks.diffusion.images import ImageDiffusion, must_be_images
from expunge.tasks.diffusion.pretrained import unet2d
from expunge.tasks.diffusion.sampling import Sampler
from expunge.tasks.diffusion.schedule import NoiseSchedule
from expunge.tasks.diffusion.unet import UNet
from expunge.training.recipes import Stochastic


def data_of(source: Any) -> tuple[Rows, dict[str, Rows]]:
    """Training images and, where there are any, test images; pixels in [0, 1].

    Raises:
        InputError: for rows that are no such images.
    """
    part = source.model_dump(include={"limit", "per_class", "test_limit", "seed"})
    match source:
        case config.DigitsData():
            train, test = (replace(rows, x=whole(rows.x).view(-1, 1, 8, 8)) for rows in digits())
        case config.MnistData():
            read = mnist if source.format == "mnist" else fashion_mnist
            train, test = read(source.path, mean=0.0, std=1.0, **part)
        case config.Cifar10Data():
            train, test = cifar10(source.path, mean=(0.0,) * 3, std=(1.0,) * 3, **part)
        case _:
            train = read_arrays(source.path)
            test = None if source.test_path is None else read_arrays(source.test_path, people=False)
    sets = {} if test is None else {"test": test}
    for rows in (train, *sets.values()):
        if rows.x.ndim != 4:
            raise InputError(
                f"Expected images of shape (n, channels, height, width); the data hold {tuple(rows.x.shape)}."
            )
        must_be_images(rows, tuple(train.x.shape[1:]))  # pyright: ignore[reportArgumentType]
    return train, sets


def task_of(setup: config.Setup, data: Rows) -> ImageDiffusion:
    """The task."""
    must_exist(setup.device)
    channels, height, width = data.x.shape[1:]
    classes = setup.classes or data.classes
    factory = _factory(setup, channels, classes)
    return ImageDiffusion(
        factory, (channels, height, width), classes, NoiseSchedule(setup.noise.kind, setup.noise.levels), setup.hidden,
        Sampler(setup.sampling.steps, setup.sampling.guidance), setup.images, dtype=getattr(torch, setup.dtype),
        device=setup.device,
    )  # fmt: skip


def _factory(setup: config.Setup, channels: int, classes: int) -> Callable[[], nn.Module]:
    if (setup.config is None) != (setup.model != "diffusers"):
        raise InputError("Expected config, the config.json of a UNet2DModel, with model: diffusers and with no other.")
    settings = dict(setup.model_settings)
    if setup.model == "unet":
        return module_factory(setup.model, UNet, {"channels": channels, "classes": classes, **settings})
    if setup.config is not None:
        return module_factory(setup.model, functools.partial(unet2d, setup.config), settings)
    if ":" not in setup.model:
        raise InputError(f"Expected model among unet, diffusers, or package.module:callable; got {setup.model!r}.")
    return module_factory(setup.model, resolve(setup.model), settings)


def recipe_of(training: Any) -> Stochastic | None:
    """The recipe, or ``None`` for models that come from disk."""
    if not isinstance(training, config.DiffusionTraining):
        return None
    return Stochastic(**training.model_dump(exclude={"kind"}))


def must_leave_two_classes(data: Rows, after: Rows) -> None:
    """Raise InputError where fewer than two classes would be left: a CNN that judges images tells classes apart."""
    if len(left := after.y.unique()) < 2:
        raise InputError(
            f"The request leaves {len(left)} of {len(data.y.unique())} classes. What the model draws is judged by a "
            "classifier, which needs two; narrow the request."
        )
