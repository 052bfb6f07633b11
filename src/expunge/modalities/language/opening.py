"""From a checked job for a language model to live objects: records, task, recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from expunge.core.errors import InputError
from expunge.core.measurement import OWN_PROBES
from expunge.core.texts import Record
from expunge.data.arrow import is_arrow
from expunge.data.places import located
from expunge.data.texts import Texts, read_jsonl, read_records
from expunge.data.tofu import FULL, read_tofu
from expunge.modalities.language.config import AsItIs, JsonlData, LanguageJob, LearnedTraining, MicroModel, SavedModel
from expunge.modalities.language.speaking import probes_of
from expunge.modalities.named import must_be_free, must_exist
from expunge.tasks.language import Language
from expunge.tasks.micro_language import micro_language
from expunge.tasks.pretrained import load_language_model
from expunge.training.language import LanguageTraining
from expunge.training.store import load_checkpoint

Weights = Mapping[str, torch.Tensor] | None


@dataclass(frozen=True)
class Files:
    """What a job's files hold.

    Attributes:
        data, sets: what the model was trained on, and named sets to measure on.
        benign: ordinary prompts, or ``None``.
        asked: the request's own records (``records`` or ``wording``), or ``None``.
    """

    data: Texts
    sets: Mapping[str, Texts]
    benign: list[Record] | None
    asked: list[Record] | None


def vocabulary(data: Texts, more: Sequence[str]) -> list[str]:
    """The words of the training records and ``more``, sorted: no request and no order of records changes a token."""
    texts = [record[key] for record in data.records for key in ("question", "answer", "text") if key in record]
    return sorted({word for text in (*texts, *more) for word in text.lower().split()})


def files_of(job: LanguageJob) -> Files:
    """Read every file that the job names.

    Raises:
        InputError: naming file and line, or the splits that there are.
    """
    data, request = job.data, job.request
    must_be_free(data.sets)
    sets = {name: Texts.of(read_records(path)) for name, path in data.sets.items()}
    if data.probes is not None:
        sets[OWN_PROBES] = probes_of(read_records(data.probes), data.probes.name)
    if isinstance(data, JsonlData):
        texts = _read(data)
    else:
        folder = located(data.path, ["tofu"], [f"{FULL}.json"], "TOFU is on the Hugging Face hub as locuslab/TOFU.")
        texts = read_tofu(folder, data.split)
        sets = {**{name: read_tofu(folder, name) for name in data.measure}, **sets}
    asked = request.records or request.wording
    return Files(
        texts, sets, None if data.benign is None else read_records(data.benign, answer=False),
        None if asked is None else read_records(asked),
    )  # fmt: skip


_ENDINGS = {"csv": (".csv",), "parquet": (".parquet",)}


def _read(data: JsonlData) -> Texts:
    """The training records; raises InputError where the file is not of the format that the job says."""
    named = _ENDINGS.get(data.format)
    fits = is_arrow(data.path) and data.path.is_dir() if data.format == "datasets" else True
    if (named and data.path.suffix.lower() not in named) or not fits:
        raise InputError(f"Expected data.path of format {data.format}; {data.path.name} is none.")
    if data.format == "jsonl" and (is_arrow(data.path) or data.path.suffix.lower() == ".csv"):
        raise InputError(f"{data.path.name} is no file of JSON lines; say data.format csv, parquet or datasets.")
    return read_jsonl(data.path, data.users, {str(ours): theirs for ours, theirs in data.keys.items()})


def task_of(job: LanguageJob, data: Texts) -> tuple[Language, Mapping[str, torch.Tensor] | None]:
    """The task, and the weights of the folder where the model has one.

    Raises:
        InputError: for a folder, tokenizer or adapter that do not belong together.
    """
    must_exist(job.device)
    dtype, model = getattr(torch, job.dtype), job.model
    if isinstance(model, MicroModel):
        if model.width % model.heads:
            raise InputError(f"Expected a width that {model.heads} heads can share; got {model.width}.")
        sizes = model.model_dump(include={"width", "layers", "heads", "inner", "context"})
        task = micro_language(vocabulary(data, model.words), **sizes)
        return replace(task, dtype=dtype, device=job.device), None
    return load_language_model(
        model.folder, tokenizer=model.tokenizer, gguf=model.gguf, adapter=model.adapter, template=model.template,
        date_string=model.date_string, system=model.system, context=model.context, dtype=dtype,
        device=job.device, checkpointing=model.checkpointing,
    )  # fmt: skip


def recipe_of(settings: LearnedTraining) -> LanguageTraining:
    """The recipe; raises InputError for settings that cannot be."""
    return LanguageTraining(**settings.model_dump(exclude={"kind", "path", "adapter"}))


def left_by(settings: Any, model: Any, load: Callable[[Any], Weights]) -> Weights:
    """The weights that the training which ``settings`` describe left elsewhere; ``None``: it is done here.

    Args:
        model: the job's section. load: the weights that such a section names, its adapter merged.

    Raises:
        InputError: for an adapter of a model that is in no folder, or that has one already.
    """
    if not isinstance(settings, LearnedTraining):
        return None
    if settings.adapter is None:
        return None if settings.path is None else load_checkpoint(settings.path)
    if not isinstance(model, SavedModel) or model.adapter is not None:
        raise InputError(
            "training.adapter is put on the weights of model.folder: leave model.adapter out (that one is merged before "
            "anything is trained), and name a folder."
        )
    return load(model.model_copy(update={"adapter": settings.adapter}))


def model_of(
    job: LanguageJob, data: Texts
) -> tuple[Language, Mapping[str, torch.Tensor] | None, LanguageTraining | None, bool]:
    """The task, weights from disk (the model itself, or what training starts from), how it is trained here, if it is, and
    whether there is both a finished model and the training that is said to have made it.

    Raises:
        InputError: as :func:`task_of`; or for a micro model that is neither trained nor read from a file.
    """
    task, weights = task_of(job, data)
    settings = job.training
    if isinstance(settings, AsItIs):
        if settings.path is not None:
            weights = load_checkpoint(settings.path)
        if weights is None:
            raise InputError(
                "A micro model has no folder with weights: give training.path, a .safetensors file, or training.kind language."
            )
        return task, weights, None, False
    recipe = recipe_of(settings) if isinstance(settings, LearnedTraining) else None
    made = left_by(settings, job.model, lambda model: task_of(job.model_copy(update={"model": model}), data)[1])
    return replace(task, start=weights), weights if made is None else made, recipe, made is not None
