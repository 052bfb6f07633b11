"""From a checked job for a language model to live objects: records, task, recipe, request and its wording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.core.method import Watch
from expunge.core.request import Request, Target
from expunge.core.texts import Record
from expunge.core.trained import Trained
from expunge.data.places import located
from expunge.data.texts import Texts, left_out, read_jsonl, read_records
from expunge.data.tofu import FULL, read_tofu
from expunge.jobs.build import must_exist
from expunge.jobs.data_schema import StoredTraining
from expunge.jobs.language_schema import AsItIs, JsonlData, LanguageJob, LearnedTraining, MicroModel
from expunge.jobs.matching import matched, wording_of
from expunge.planning import adopt, train
from expunge.tasks.language import Language
from expunge.tasks.micro_language import micro_language
from expunge.tasks.pretrained import load_language_model
from expunge.training.language import LanguageTraining
from expunge.training.store import load_checkpoint, load_trained

RESERVED = ("retain", "forget", "touched", "wording")  # names that evidence gives to sets of its own


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
    if taken := [name for name in data.sets if name in RESERVED]:
        raise InputError(f"data.sets: {taken[0]!r} is what evidence calls a set of its own; take another name.")
    sets = {name: Texts.of(read_records(path)) for name, path in data.sets.items()}
    if isinstance(data, JsonlData):
        texts = read_jsonl(data.path, data.users)
    else:
        folder = located(data.path, ["tofu"], [f"{FULL}.json"], "TOFU is on the Hugging Face hub as locuslab/TOFU.")
        texts = read_tofu(folder, data.split)
        sets = {**{name: read_tofu(folder, name) for name in data.measure}, **sets}
    asked = request.records or request.wording
    return Files(
        texts, sets, None if data.benign is None else read_records(data.benign, answer=False),
        None if asked is None else read_records(asked),
    )  # fmt: skip


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
        model.folder, gguf=model.gguf, adapter=model.adapter, template=model.template, context=model.context, dtype=dtype,
        device=job.device, checkpointing=model.checkpointing,
    )  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """Records as the context lets them be.

    Attributes:
        files: without what was left out.
        dropped, shortened: ids of training records that have no room, and that lose the end of their answer.
        note: a sentence on what that took away (empty: nothing).
    """

    files: Files
    dropped: Ids
    shortened: Ids
    note: str


def fitted(job: LanguageJob, task: Language, files: Files, own: Ids) -> Fitted:
    """Hold the records against the context: ``data.too_long`` says what becomes of those that do not fit, and
    ``request.too_long`` of those among them that are to be forgotten.

    Args:
        own: ids that the request matches.

    Raises:
        InputError: where some are too long and the job does not say ``cut``; where no record is left; or for records of
            the request whose questions leave no room for an answer: nothing could be forgotten through them.
    """
    context, kept, notes = task.prompts.context, {}, []
    dropped = shortened = Ids.none()
    for name, texts in {"data": files.data, **files.sets}.items():
        kept[name], found = task.fitting(texts)
        if not found.dropped and not found.cut:
            continue
        counts = _counts(found.dropped, found.cut, len(texts), context)
        if job.data.too_long == "refuse":
            raise InputError(
                f"Expected records that fit the context; in {name}, {counts}. Take a larger model.context, shorten them, or "
                "set data.too_long: cut to leave out the first and cut the second."
            )
        notes.append(f"In {name}, {counts}.")
        if name == "data":
            dropped, shortened = left_out(texts, kept[name]), Ids.rows(texts.ids[list(found.shortened)])
    if len(harmed := (dropped | shortened) & own):
        counts = _counts(len(dropped & own), len(shortened & own), len(own), context)
        if job.request.too_long == "refuse":
            raise InputError(
                f"Expected a model whose context holds what it is to forget; of the forget set, {counts}: {len(harmed)} would "
                "be forgotten in part or not at all. Take a larger model.context, or set request.too_long: cut."
            )
        notes.append(f"Of the forget set, {counts}: what was left out or cut was not forgotten here.")
    if files.asked is not None and (lost := task.prompts.fitting(files.asked).dropped):
        raise InputError(
            f"Expected questions that leave room for an answer in {context} tokens; {lost} of the {len(files.asked)} "
            "records of the request leave none. Take a larger model.context, or shorten them."
        )
    data = kept.pop("data")
    return Fitted(replace(files, data=data, sets=kept), dropped, shortened, " ".join(notes))


def _counts(dropped: int, cut: int, of: int, context: int) -> str:
    return (
        f"{dropped} of {of} records leave no room for an answer in {context} tokens, and {cut} lose the end of theirs"
    )


def asked_of(job: LanguageJob, data: Texts, asked: list[Record] | None) -> tuple[Request, Texts | None]:
    """The request, and the forgotten records as it words them where it has words of its own.

    Raises:
        InputError: for both or neither of targets and records, a wording without targets, or records that mean nothing.
    """
    settings = job.request
    given = [name for name in ("targets", "records", "wording") if getattr(settings, name)]
    if given not in (["targets"], ["records"], ["targets", "wording"]):
        raise InputError(
            "Expected request.targets, with or without request.wording, or request.records alone, which are in the request's "
            f"own words already; got {', '.join(given) or 'none of them'}."
        )
    dates = {name: value for name in ("received", "due") if (value := getattr(settings, name)) is not None}
    if settings.records is not None:
        assert asked is not None
        positions, wording = matched(asked, data, settings.records.name)
        targets = (Target("samples", {"ids": data.ids[positions].tolist()}),)
        return Request(settings.subject, targets, settings.ground, **dates), wording
    targets = tuple(Target(item.kind, item.where) for item in settings.targets)
    request = Request(settings.subject, targets, settings.ground, **dates)
    if settings.wording is None:
        return request, None
    assert asked is not None
    return request, wording_of(asked, Deletion.of(data, request).forget, settings.wording)


def stored_of(job: LanguageJob, task: Language, weights: Any, data: Texts) -> Trained | None:
    """The model that an earlier run left (``next-…``), or ``None`` where the job names none.

    Raises:
        InputError, TamperedError: as :func:`~expunge.training.store.load_trained`.
    """
    if not isinstance(job.training, StoredTraining):
        return None
    return load_trained(job.training.folder, replace(task, start=weights), data)


def untaught_of(job: LanguageJob, task: Language, weights: Any, data: Texts) -> Trained | None:
    """The model before it is taught, or ``None`` where the job teaches none."""
    if not isinstance(job.training, LearnedTraining):
        return None
    task.check(data)
    return replace(adopt(task, weights or task.released(task.build()), data), recipe=recipe_of(job.training))


def trained_of(job: LanguageJob, task: Language, weights: Any, data: Texts, watch: Watch) -> Trained:
    """The model that is to forget: taught on record, or as it is.

    Raises:
        InputError: for a micro model that is neither taught nor read from a file.
    """
    settings = job.training
    if isinstance(settings, AsItIs):
        if settings.path is not None:
            weights = load_checkpoint(settings.path)
        if weights is None:
            raise InputError(
                "A micro model has no folder with weights: give training.path, a .safetensors file, or training.kind language."
            )
        task.check(data)
        return adopt(task, weights, data)
    assert isinstance(settings, LearnedTraining)
    return train(replace(task, start=weights), data, recipe_of(settings), seed=job.seed, watch=watch)


def recipe_of(settings: LearnedTraining) -> LanguageTraining:
    """The recipe; raises InputError for settings that cannot be."""
    return LanguageTraining(**settings.model_dump(exclude={"kind"}))
