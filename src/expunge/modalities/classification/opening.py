"""From a checked job for a classifier to live objects: task, data, recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from expunge.core.errors import InputError
from expunge.core.measurement import OWN_PROBES
from expunge.data.arrays import read_arrays
from expunge.data.cifar import IMAGENET_MEAN, IMAGENET_STD, MEAN, STD, cifar10
from expunge.data.datasets import rows_of
from expunge.data.digits import digits
from expunge.data.heart import heart_disease
from expunge.data.idx import fashion_mnist, mnist
from expunge.data.images import class_folders, image_folder, omniglot, orl_faces
from expunge.data.rows import Rows
from expunge.data.tables import read_csv
from expunge.modalities.classification import config
from expunge.modalities.named import module_factory, must_be_free, must_exist, resolve
from expunge.tasks.classification import Classification
from expunge.training.descent import Step
from expunge.training.facts import proved_constants, user_constants
from expunge.training.recipes import GradientDescent, Stochastic, UserFit


def task_of(job: config.Setup) -> Classification:
    """The task."""
    must_exist(job.device)
    factory = module_factory(job.model, resolve(job.model), job.model_settings)
    init = getattr(getattr(job, "training", None), "init", "module")
    return Classification(factory, dtype=getattr(torch, job.dtype), device=job.device, init=init, output=job.output)


def data_of(job: config.Setup) -> tuple[Rows, Mapping[str, Rows]]:
    """Training rows and probes (``test`` where there is one)."""
    source = job.data
    match source:
        case config.DigitsData():
            train, test = digits()
        case config.MnistData():
            read = mnist if source.format == "mnist" else fashion_mnist
            train, test = read(source.path, **_part(source))
        case config.Cifar10Data():
            mean, std = (IMAGENET_MEAN, IMAGENET_STD) if source.normalisation == "imagenet" else (MEAN, STD)
            train, test = cifar10(source.path, mean=mean, std=std, **_part(source))
        case config.OmniglotData():
            train, test = omniglot(source.path, source.size, split=source.split, share=source.share)
        case config.OrlFacesData():
            train, test = orl_faces(source.path, source.size, test=source.test)
        case config.HeartDiseaseData():
            train, test = heart_disease(source.path)
        case config.PythonData():
            train = rows_of(resolve(source.function)(**source.settings), source.function, names=source.classes)
            others = _further(source, source.test)
            given = {"test": source.test_settings}
            return train, {
                name: rows_of(resolve(place)(**given.get(name, {})), place, users=False, names=source.classes)
                for name, place in others.items()
            }
        case _:
            others = _further(source, source.test_path)
            train, *read_ = _tables(source, [*others.values()])
            return train, dict(zip(others, read_, strict=True))
    return train, {"test": test}


def _further(source: Any, test: Any) -> dict[str, Any]:
    """Where the sets to be measured on lie, by name."""
    must_be_free(source.sets, ["test"] if test is not None else [])
    return {
        **({} if test is None else {"test": test}), **source.sets,
        **({} if source.probes is None else {OWN_PROBES: source.probes}),
    }  # fmt: skip


def _part(source: config.MnistData | config.Cifar10Data) -> dict[str, Any]:
    """Which part of a large data set is read."""
    return source.model_dump(include={"limit", "per_class", "test_limit", "seed"})


def _tables(source: config.CsvData | config.ArraysData | config.ImagesData, others: Sequence[Path]) -> list[Rows]:
    """The training rows, and those of ``others`` to be measured on."""
    paths = [source.path, *others]
    if isinstance(source, config.ArraysData):
        return [read_arrays(path, people=path == source.path) for path in paths]
    if isinstance(source, config.ImagesData):
        settings = source.model_dump(include={"size", "channels", "classes", "mean", "std"})
        settings["users"] = source.users.file if isinstance(source.users, config.UsersFile) else source.users
        train = image_folder(source.path, **settings)
        if not others:
            return [train]
        classes = source.classes or class_folders(source.path)  # what the training folder calls 3 is 3 in both
        size = source.size or tuple(train.x.shape[2:])
        # nobody asks to be forgotten from test images
        settings |= {"users": None, "classes": classes, "size": size}
        return [train, *(image_folder(path, **settings) for path in others)]
    return read_csv(
        paths, label=source.label, users=source.users, features=source.features, scale=source.scale,
        categories=source.categories, classes=source.classes, standardise=source.standardise,
    )  # fmt: skip


def recipe_of(training: Any, task: Classification) -> Any:
    """The recipe, or ``None`` for models that come from disk.

    ``lr: auto`` is 2 / (L + lambda), the largest step that contracts, where L is proved.
    """
    if isinstance(training, config.GradientDescentTraining):
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
    if isinstance(training, config.StochasticTraining):
        return Stochastic(**training.model_dump(exclude={"kind", "init"}))
    if isinstance(training, config.UserTraining | config.StoredClassifier) and training.function is not None:
        return UserFit(
            resolve(training.function),
            training.function,
            {str(name): value for name, value in training.declares.items()},
        )
    return None
