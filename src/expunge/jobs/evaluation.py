"""``expunge eval`` on a job file: a model of any kind, measured on the sets that the job's request makes of its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from expunge import modalities
from expunge.core.errors import InputError
from expunge.core.method import Watch, silent
from expunge.evidence.comparison import Models, compared, compared_attacks
from expunge.jobs.earlier import Earlier, match
from expunge.jobs.schema import load_job
from expunge.modalities import networks
from expunge.modalities.modality import Opened
from expunge.modalities.readings import reads
from expunge.modalities.settings import Job, StoredTraining
from expunge.model_folder import ModelFolder
from expunge.training.store import load_checkpoint, load_trained


def evaluate_job(
    path: Path, overrides: Sequence[str] = (), *, model: Path | None = None, retrained: Path | None = None,
    on: Mapping[str, Path] | None = None, alone: bool = False, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Open a job, match its request and measure a model on what is retained, what is forgotten and the job's further sets.

    Nothing is trained, screened or written; attacks that compare with shadow models are left out.

    Args:
        model: a folder that ``expunge publish`` or a run wrote, or a file of weights; ``None``: the model of the job, which
            then comes from disk.
        retrained: the same of a model that was trained without the forgotten examples; ``None``: there are no ideals. A run
            keeps it where its job says ``evidence: {keep_retrained: true}``.
        on: further named sets, files or folders of the form of the job's data; ``alone``: these and no others.

    Returns:
        What ``--json`` prints; means over sets, nothing about single examples.

    Raises:
        InputError: for anything that cannot be used, or a job whose model would have to be trained first.

    Formal guarantee: none.
    """
    on = on or {}
    if alone and not on:
        raise InputError("Expected named sets for the suite custom (--on NAME=FILE, may be repeated); got none.")
    further = [f"data.sets.{name}={json.dumps(str(place.absolute()))}" for name, place in on.items()]
    job = load_job(path, [*overrides, *further])
    modality = modalities.load(job.task)
    opened = networks.opened(modality, job)
    asked = modality.ask(job, opened)
    deletion = match(opened.data, asked, Earlier({}))
    sets = {"retain": deletion.after, "forget": deletion.forget, **deletion.probes}
    sets = {name: examples for name, examples in sets.items() if examples is not None and len(examples)}
    sets = {name: examples for name, examples in sets.items() if name in on} if alone else sets
    weights = Models(
        _weights(model, opened) if model is not None else _own(job, opened),
        retrained=None if retrained is None else _weights(retrained, opened),
    )
    kind, done = reads(opened.task), 0
    watch("reading", done, 1 + (retrained is not None))

    def read(tensors: Mapping[str, Tensor]) -> Any:
        nonlocal done
        readings, done = kind.read(opened.task, tensors, sets), done + 1
        watch("reading", done, 1 + (retrained is not None))
        return readings

    readings = weights.each(read)
    attacks, _ = compared_attacks(kind, readings, sets) if deletion.member and not alone else ([], {})
    return {
        "model": str(model or opened.name),
        "job": job.name,
        "retrained": None if retrained is None else str(retrained),
        "measurements": [{"name": item.name} | asdict(item) for item in (*compared(kind, readings), *attacks)],
        "missing": {},
        "warnings": [],
        "sets": {name: {"n": len(examples)} for name, examples in sets.items()},
    }


def _own(job: Job, opened: Opened) -> Mapping[str, Tensor]:
    """The weights of the job's own model."""
    if isinstance(job.training, StoredTraining):
        return _weights(job.training.folder, opened)
    if opened.weights is not None and (opened.recipe is None or opened.finished):
        return opened.weights
    raise InputError(
        "The job trains its model; eval trains nothing. Name the model to measure (--model): the folder that expunge publish "
        "wrote, or a .safetensors file of weights, for example one under models/ of an evidence folder."
    )


def _weights(place: Path, opened: Opened) -> Mapping[str, Tensor]:
    """The released weights of a model on disk, those of the task's architecture."""
    if not place.is_dir():
        weights = load_checkpoint(place)
    elif (folder := ModelFolder(place)).published:
        weights = folder.load(opened.task, opened.data).artifact.tensors
    else:
        weights = load_trained(place, opened.task, opened.data).artifact.tensors
    return opened.task.released(opened.task.build(weights))
