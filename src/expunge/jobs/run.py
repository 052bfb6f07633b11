"""Carry out a job file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from expunge.core.errors import InputError
from expunge.core.method import Watch, silent
from expunge.core.trained import Trained
from expunge.data.rows import Rows
from expunge.descent.processes import processes
from expunge.jobs import build, schema
from expunge.jobs.carry_out import Case, Setting, carry_out
from expunge.jobs.data_schema import called
from expunge.jobs.language_run import run_language
from expunge.jobs.language_schema import LanguageJob
from expunge.measuring import MeasureSettings
from expunge.planning import train


def run_job(path: Path, overrides: Sequence[str], out: Path, *, watch: Watch = silent) -> dict[str, Any]:
    """Read, check, train or load, forget, measure, report.

    Returns:
        The summary that ``--json`` prints.

    Raises:
        InputError, RefusedError: for anything that cannot be used, before anything is written.
    """
    job = schema.load_job(path, overrides)
    if isinstance(job, LanguageJob):
        return run_language(job, out, watch=watch)
    if processes().count > 1:
        raise InputError(
            "Expected one process: only language models share rows out. Start it without accelerate launch."
        )
    request = build.request_of(job)
    method = build.method_of(job)
    budget = build.budget_of(job)
    task = build.task_of(job)
    data, probes = build.data_of(job)
    stored = build.stored_of(job, task, data)
    if stored is not None:
        task.check(data)
        if isinstance(stored.data, Rows):
            data = stored.data  # without what earlier requests removed
        if stored.budget is not None and budget is not None:
            raise InputError("The stored model is published already: its budget stands. Remove publish from the job.")
    recipe = build.recipe_of(job.training, task)

    def make(seen: Watch) -> Trained:
        return stored if stored is not None else train(task, data, recipe, seed=job.seed, watch=seen)

    measuring = MeasureSettings(**job.evidence.model_dump(exclude={"pdf"}), seed=job.seed)
    name = job.model.rpartition(":")[2]
    case = Case(name, make, budget, method, measuring, job.seed)
    setting = Setting(
        title=job.name,
        dataset=called(job.data),
        data=data,
        probes=probes,
        config=shown(job),
        note="Groups of consecutive images stand for people: synthetic." if job.data.format == "digits" else "",
        approved_by=job.request.approved_by,
        pdf=job.evidence.pdf,
    )
    return carry_out(request, [case], setting, out, ledger=job.ledger, watch=watch)


def shown(job: schema.Job) -> str:
    """The resolved job as YAML, without what names the subject: it goes into the evidence folder."""
    content = job.model_dump(mode="json")
    content["request"]["subject"] = "(kept out of records)"
    for target in content["request"]["targets"]:
        target["where"] = {name: "(kept out of records)" for name in target["where"]}
    for section, keys in (("data", ("path", "test_path")), ("training", ("path", "folder"))):
        for key in keys:
            if content[section].get(key):
                content[section][key] = Path(content[section][key]).name
    content["ledger"] = content["ledger"] and Path(content["ledger"]).name
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
