"""From a checked job for a model that sees to live objects: records with their pictures, task, recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.measurement import OWN_PROBES
from expunge.core.trained import Recipe
from expunge.data.picture_benchmarks import READERS
from expunge.data.picture_records import read_image_folder, read_picture_records, texts_of
from expunge.data.texts import Texts, read_records
from expunge.modalities.language.config import AsItIs, JsonlData, LearnedTraining
from expunge.modalities.language.opening import Files, left_by, recipe_of, vocabulary
from expunge.modalities.language.speaking import probes_of
from expunge.modalities.named import must_be_free, must_exist
from expunge.modalities.vision_language.config import (
    BenchmarkData,
    FolderData,
    MicroModel,
    PicturesTraining,
    VisionLanguageJob,
    WorldData,
)
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.tasks.pretrained_pictures import load_vision_language_model
from expunge.tasks.vision_language import VisionLanguage
from expunge.training.pictures import PictureTraining
from expunge.training.store import load_checkpoint


def files_of(job: VisionLanguageJob) -> Files:
    """Read every file that the job names, pictures included.

    Raises:
        InputError: naming file and line.
    """
    data, request = job.data, job.request
    must_be_free(data.sets)
    sets = {name: _set(data, path) for name, path in data.sets.items()}
    if data.probes is not None:
        sets[OWN_PROBES] = probes_of(read_picture_records(data.probes), data.probes.name)
    asked = request.records or request.wording
    return Files(
        texts_in(data), sets, None if data.benign is None else read_records(data.benign, answer=False),
        None if asked is None else read_picture_records(asked),
    )  # fmt: skip


def _set(data: Any, path: Path) -> Texts:
    """A named set: of a benchmark a further split, else records in a file."""
    return benchmark(data, path) if isinstance(data, BenchmarkData) else Texts.of(read_picture_records(path))


def benchmark(data: BenchmarkData, path: Path) -> Texts:
    """A split of a benchmark."""
    more = {"tasks": data.tasks} if data.tasks else {}
    return READERS[data.format](path, data.images, **more)


def texts_in(data: JsonlData | FolderData | WorldData | BenchmarkData) -> Texts:
    """The training records."""
    if isinstance(data, BenchmarkData):
        return benchmark(data, data.path)
    if isinstance(data, WorldData):
        return data.world().train
    if isinstance(data, FolderData):
        return read_image_folder(data.path, data.users)
    return texts_of(read_picture_records(data.path), data.users, data.path)


def model_of(
    job: VisionLanguageJob, data: Texts
) -> tuple[VisionLanguage, Mapping[str, Tensor] | None, Recipe | None, bool]:
    """As ``modalities.language.opening.model_of``.

    Raises:
        InputError: for a folder, processor or adapter that do not belong together, or a micro model that is neither trained nor
            read from a file.
    """
    must_exist(job.device)
    dtype, model, settings = getattr(torch, job.dtype), job.model, job.training
    if isinstance(model, MicroModel):
        known = job.data.world().vocabulary if isinstance(job.data, WorldData) else vocabulary(data, [])
        task = micro(model, sorted({*known, *model.words}), dtype)
        task, weights = replace(task, device=job.device), None
    else:
        task, weights = _loaded(job, model)
    if isinstance(settings, AsItIs):
        path: Path | None = settings.path
        weights = weights if path is None else load_checkpoint(path)
        if weights is None:
            raise InputError(
                "A micro model has no folder with weights: give training.path, or train it (training.kind)."
            )
        return task, weights, None, False
    if isinstance(settings, PicturesTraining):
        if weights is not None:
            raise InputError("training.kind pictures is from scratch: take kind language for a model from a folder.")
        return task, None, PictureTraining(**settings.model_dump(exclude={"kind"})), False
    recipe = recipe_of(settings) if isinstance(settings, LearnedTraining) else None
    made = left_by(settings, model, lambda other: _loaded(job, other)[1])
    return replace(task, start=weights), weights if made is None else made, recipe, made is not None


def _loaded(job: VisionLanguageJob, model: Any) -> tuple[VisionLanguage, Mapping[str, Tensor]]:
    """The task and the weights of a model in a folder."""
    options = model.model_dump()
    place = options.pop("folder")
    return load_vision_language_model(place, **options, dtype=getattr(torch, job.dtype), device=job.device)


def micro(model: MicroModel, words: list[str], dtype: torch.dtype = torch.float32) -> VisionLanguage:
    """The tiny model over these words, its weights in ``dtype``.

    Raises:
        InputError: for sizes that do not share out.
    """
    if model.width % model.heads or model.sees % model.heads or model.side % model.patch:
        raise InputError(
            f"Expected widths that {model.heads} heads can share and a side of whole patches; got {model.width}, {model.sees} "
            f"and {model.side} over {model.patch}."
        )
    return micro_vision_language(words, **model.model_dump(exclude={"micro", "words"}), dtype=dtype)
