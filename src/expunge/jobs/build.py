"""From a checked job file to live objects: callables by name, data, recipe, budget, request, method."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.core.trained import Budget, Trained
from expunge.data.arrays import read_arrays
from expunge.data.cifar import IMAGENET_MEAN, IMAGENET_STD, MEAN, STD, cifar10
from expunge.data.digits import digits
from expunge.data.idx import fashion_mnist, mnist
from expunge.data.images import class_folders, image_folder, omniglot, orl_faces
from expunge.data.rows import Rows
from expunge.data.tables import read_csv
from expunge.jobs import data_schema, schema
from expunge.methods import registry
from expunge.model_folder import ModelFolder
from expunge.planning import adopt
from expunge.tasks.classification import Classification
from expunge.training.descent import Step
from expunge.training.facts import proved_constants, user_constants
from expunge.training.recipes import GradientDescent, Stochastic, UserFit
from expunge.training.store import load_checkpoint, load_trained


def resolve(name: str) -> Callable[..., Any]:
    """The object behind ``package.module:callable``; the working directory is importable, as for ``python -m``.

    Raises:
        InputError: saying whether the module or the name in it is missing.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise InputError(f"Expected package.module:callable; got {name!r}.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"Cannot import {module_name!r}: {error}. Is it installed, or in this directory?") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise InputError(f"{module_name} has no callable {attribute!r}.")
    return found


def task_of(job: schema.Setup) -> Classification:
    """The task; the model factory is called once to see that it works."""
    must_exist(job.device)
    factory = functools.partial(resolve(job.model), **job.model_settings)
    try:
        model = factory()
    except TypeError as error:
        raise InputError(f"{job.model} does not take model_settings {job.model_settings}: {error}.") from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"Expected {job.model} to return a torch module; it returned {type(model).__name__}.")
    init = getattr(getattr(job, "training", None), "init", "module")
    return Classification(factory, dtype=getattr(torch, job.dtype), device=job.device, init=init)


def must_exist(device: str) -> None:
    """Raise InputError if there is no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"There is no device {device!r} here ({str(error).splitlines()[0]}). Take cpu.") from None


def data_of(job: schema.Setup) -> tuple[Rows, Mapping[str, Rows]]:
    """Training rows and probes (``test`` where there is one)."""
    source = job.data
    match source:
        case data_schema.DigitsData():
            train, test = digits()
        case data_schema.MnistData():
            read = mnist if source.format == "mnist" else fashion_mnist
            train, test = read(source.path, **_part(source))
        case data_schema.Cifar10Data():
            mean, std = (IMAGENET_MEAN, IMAGENET_STD) if source.normalisation == "imagenet" else (MEAN, STD)
            train, test = cifar10(source.path, mean=mean, std=std, **_part(source))
        case data_schema.OmniglotData():
            train, test = omniglot(source.path, source.size, split=source.split, share=source.share)
        case data_schema.OrlFacesData():
            train, test = orl_faces(source.path, source.size, test=source.test)
        case _:
            train, *others = _tables(source)
            return train, dict(zip(("test",), others, strict=False))
    return train, {"test": test}


def _part(source: data_schema.MnistData | data_schema.Cifar10Data) -> dict[str, Any]:
    """Which part of a large data set is read."""
    return source.model_dump(include={"limit", "per_class", "test_limit", "seed"})


def _tables(source: data_schema.CsvData | data_schema.ArraysData | data_schema.ImagesData) -> list[Rows]:
    """The training rows and, where the job names them, those to be measured on."""
    paths = [path for path in (source.path, source.test_path) if path]
    if isinstance(source, data_schema.ArraysData):
        return [read_arrays(path, people=path == source.path) for path in paths]
    if isinstance(source, data_schema.ImagesData):
        settings = source.model_dump(include={"size", "channels", "users", "classes", "mean", "std"})
        train = image_folder(source.path, **settings)
        if source.test_path is None:
            return [train]
        classes = source.classes or class_folders(source.path)  # what the training folder calls 3 is 3 in both
        size = source.size or tuple(train.x.shape[2:])
        # nobody asks to be forgotten from test images
        return [train, image_folder(source.test_path, **settings | {"users": None, "classes": classes, "size": size})]
    return read_csv(
        paths, label=source.label, users=source.users, features=source.features, scale=source.scale,
        categories=source.categories, classes=source.classes, standardise=source.standardise,
    )  # fmt: skip


def recipe_of(training: Any, task: Classification) -> Any:
    """The recipe, or ``None`` for models that come from disk.

    ``lr: auto`` is 2 / (L + lambda), the largest step that contracts, where L is proved.
    """
    if isinstance(training, schema.GradientDescentTraining):
        lr = training.lr
        if lr == "auto":
            known = proved_constants(task, task.build(), Step(1.0, training.l2, training.clip))
            if "smoothness" not in known:
                raise InputError(
                    "training.lr: auto needs a proved smoothness (SoftmaxHead); give a number for this model."
                )
            lr = 2 / (known["smoothness"].value + training.l2)
        user_constants(training.constants)  # refuses unknown names before training
        return GradientDescent(
            steps=training.steps, lr=float(lr), l2=training.l2, clip=training.clip, rewinds=tuple(training.rewinds),
            constants=dict(training.constants), estimate=training.estimate,
        )  # fmt: skip
    if isinstance(training, schema.StochasticTraining):
        return Stochastic(**training.model_dump(exclude={"kind", "init"}))
    if isinstance(training, schema.UserTraining):
        return UserFit(
            resolve(training.function),
            training.function,
            {str(name): value for name, value in training.declares.items()},
        )
    return None


def folder_of(job: schema.Job) -> ModelFolder | None:
    """The folder of a published model that the job names, with its ledger; ``None`` where there is no such record."""
    if not isinstance(job.training, data_schema.StoredTraining):
        return None
    folder = ModelFolder(job.training.folder)
    return folder if folder.published else None


def stored_of(job: schema.Job, task: Classification, data: Rows, request: str = "") -> Trained | None:
    """A model that comes from disk, or ``None`` where the job trains one.

    Args:
        request: the id of the request, whose own unfinished release may be taken up.
    """
    if isinstance(job.training, data_schema.StoredTraining):
        folder = folder_of(job)
        return load_trained(job.training.folder, task, data) if folder is None else folder.load(task, data, request)
    if isinstance(job.training, schema.CheckpointTraining):
        return adopt(task, load_checkpoint(job.training.path), data)
    return None


def budget_of(job: schema.Job) -> Budget | None:
    """The budget to publish, or ``None``."""
    return None if job.publish is None else Budget(**job.publish.model_dump())


def request_of(job: schema.Job) -> Request:
    """The request."""
    settings = job.request
    targets = tuple(Target(item.kind, item.where) for item in settings.targets)
    dates = {name: value for name in ("received", "due") if (value := getattr(settings, name)) is not None}
    return Request(settings.subject, targets, settings.ground, **dates)


def method_of(job: schema.Job) -> Any:
    """The method with its settings, each of the type that the method declares.

    Raises:
        InputError: for an unknown method or setting, or a value of another type.
    """
    return named_method("method", job.method["name"], {n: value for n, value in job.method.items() if n != "name"})


def named_method(where: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The method ``name``, ``+dual`` included, with settings of the types that it declares; ``where`` is for messages.

    Raises:
        InputError: as :func:`method_of`.
    """
    settings = dict(settings)
    hints = get_type_hints(registry.load(name.partition("+")[0]))
    for setting in settings.keys() & hints.keys():
        try:
            settings[setting] = TypeAdapter(hints[setting]).validate_python(settings[setting])
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise InputError(f"{where}.{setting}: {problem} (got {settings[setting]!r:.60}).") from None
    return registry.make(name, settings)
