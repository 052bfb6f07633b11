"""Carry out a job file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from expunge.core.errors import InputError
from expunge.core.keys import subject_key
from expunge.core.method import Watch, silent
from expunge.core.trained import Trained
from expunge.descent.processes import processes
from expunge.jobs import build, schema
from expunge.jobs.carry_out import carry_out
from expunge.jobs.data_schema import StoredTraining, called
from expunge.jobs.earlier import earlier_requests, match, match_stored
from expunge.jobs.language_run import run_language
from expunge.jobs.language_schema import LanguageJob
from expunge.jobs.releasing import Accepted, Case, Setting, model_name
from expunge.measuring import MeasureSettings
from expunge.model_folder import LEDGER, RECORD
from expunge.planning import publish, train

SYNTHETIC = "Groups of consecutive images stand for people: synthetic."


def run_job(
    path: Path, overrides: Sequence[str], out: Path, *, model: Path | None = None, watch: Watch = silent
) -> dict[str, Any]:
    """Read, check, train or load, forget, measure, report.

    Args:
        model: a folder that ``expunge publish`` wrote, served instead of a model that the job would train.

    Returns:
        The summary that ``--json`` prints.

    Raises:
        InputError, RefusedError: for anything that cannot be used, before anything is written.
        HeldBackError: where a void result needs a person.
    """
    job = schema.load_job(path, overrides)
    if isinstance(job, LanguageJob):
        if model is not None:
            raise InputError("A language model is named in its job (training); --model is for classifiers.")
        return run_language(job, out, watch=watch)
    if model is not None:
        job = served_from(job, model)
    if processes().count > 1:
        raise InputError(
            "Expected one process: only language models share rows out. Start it without accelerate launch."
        )
    request = build.request_of(job)
    method = build.method_of(job)
    budget = build.budget_of(job)
    task = build.task_of(job)
    data, probes = build.data_of(job)
    folder = build.folder_of(job)
    stored = build.stored_of(job, task, data, request.id(subject_key()))
    if stored is not None:
        task.check(data)
        if stored.budget is not None and budget is not None:
            raise InputError("The stored model is published already: its budget stands. Remove publish from the job.")
    ledgers = [job.ledger if folder is None else folder.book.path, *job.excluded_by]
    earlier = earlier_requests(ledgers, data, request)
    if isinstance(job.training, StoredTraining) and stored is not None:
        deletion = match_stored(data, stored.data, request, probes, earlier)
    else:
        deletion = match(data, request, probes, earlier)
        stored = stored and replace(stored, data=deletion.before)
    recipe = build.recipe_of(job.training, task)

    def make(seen: Watch) -> Trained:
        if stored is None:
            return train(task, deletion.before, recipe, seed=job.seed, watch=seen)
        return stored

    measuring = MeasureSettings(**job.evidence.model_dump(exclude={"pdf", "private_below"}), seed=job.seed)
    name = job.model.rpartition(":")[2]
    case = Case(name, make, budget, method, measuring, job.seed, folder=folder)
    setting = Setting(
        title=job.name,
        dataset=called(job.data),
        deletion=deletion,
        model="" if folder is not None else named(job),
        config=shown(job),
        note=" ".join(filter(None, (SYNTHETIC if job.data.format == "digits" else "", earlier.note))),
        approved_by=job.request.approved_by,
        pdf=job.evidence.pdf,
        accepted=None if job.accept is None else Accepted(job.accept.by, job.accept.reason),
        private_below=job.evidence.private_below,
    )
    return carry_out(request, [case], setting, out, ledger=job.ledger, watch=watch)


def named(job: schema.Job) -> str:
    """What tells the model of a job from the others on one ledger: how it is made, and of which data."""
    return model_name(job.model_dump(include={"model", "model_settings", "dtype", "training", "data", "seed"}))


def served_from(job: schema.Job, model: Path) -> schema.Job:
    """``job`` on a published model instead of one that it would train; its promise is the published one."""
    stored = StoredTraining(kind="stored", folder=model.resolve())
    return job.model_copy(update={"training": stored, "publish": None})


def publish_job(path: Path, overrides: Sequence[str], to: Path, *, watch: Watch = silent) -> dict[str, Any]:
    """Train as a job says and publish: weights, private trail, and the ledger that shows that the promise came first.

    The job's request, if it has one, plays no part.

    Returns:
        What ``--json`` prints.

    Raises:
        InputError: for anything that cannot be used, before anything is written.
    """
    job = schema.load_job(path, overrides)
    if isinstance(job, LanguageJob):
        raise InputError("Expected a job for a classifier; no method for language models has a promise to publish.")
    method, budget, task = build.method_of(job), build.budget_of(job), build.task_of(job)
    if (to / RECORD).exists():
        raise InputError(f"{to} holds a model already; name a new folder: what is published stays as it is.")
    if "budget" in method.capabilities.needs and budget is None:
        raise InputError(f"{method.name} needs a promise that its noise is derived from: add publish to the job.")
    data, _ = build.data_of(job)
    trained = build.stored_of(job, task, data)
    if trained is None:
        data = data.without(earlier_requests([job.ledger, *job.excluded_by], data, None).ids)
        trained = train(task, data, build.recipe_of(job.training, task), seed=job.seed, watch=watch)
    published = publish(trained, budget, method=method, to=to)
    fixed, start = published.budget, published.facts.get("start")
    return {
        "model": str(to),
        "ledger": str(to / LEDGER),
        "method": method.name,
        "epsilon": None if fixed is None else fixed.epsilon,
        "delta": None if fixed is None else fixed.delta,
        "capacity": None if fixed is None else fixed.capacity,
        "sigma": None if fixed is None else fixed.sigma,
        "start": None if start is None else f"{start.value} ({start.origin})",
    }


def shown(job: schema.Job) -> str:
    """The resolved job as YAML, without what names the subject: it goes into the evidence folder.

    Without ``accept`` either: that may be added to a job whose result was held back, and is no other run.
    """
    content = job.model_dump(mode="json", exclude={"accept"})
    content["request"]["subject"] = "(kept out of records)"
    for target in content["request"]["targets"]:
        target["where"] = {name: "(kept out of records)" for name in target["where"]}
    for section, keys in (("data", ("path", "test_path")), ("training", ("path", "folder"))):
        for key in keys:
            if content[section].get(key):
                content[section][key] = Path(content[section][key]).name
    content["ledger"] = content["ledger"] and Path(content["ledger"]).name
    content["excluded_by"] = [Path(path).name for path in content["excluded_by"]]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
