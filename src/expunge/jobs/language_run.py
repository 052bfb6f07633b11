"""Carry out a job for a language model: read, look at the wording, teach or load, forget, measure, report."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from expunge.core.method import Watch, silent
from expunge.core.trained import Trained
from expunge.descent.processes import Processes, processes
from expunge.jobs import language_build as build
from expunge.jobs.build import named_method
from expunge.jobs.carry_out import carry_out, prepare_beside
from expunge.jobs.earlier import earlier_requests, match, match_stored
from expunge.jobs.language_schema import LanguageJob, TofuData
from expunge.jobs.look import Wording
from expunge.jobs.releasing import Case, Setting, model_name
from expunge.measuring import MeasureSettings
from expunge.planning import Plan

_HIDDEN = "(kept out of records)"


def run_language(job: LanguageJob, out: Path, *, watch: Watch = silent) -> dict[str, Any]:
    """The whole of ``expunge run`` for ``task: language``; returns the summary that ``--json`` prints.

    Of several processes (``accelerate launch``) the first keeps records, measures and reports; the others return ``{}``.

    Raises:
        InputError, RefusedError: for anything that cannot be used, before anything is written.
    """
    settings = {name: value for name, value in job.method.items() if name != "name"}
    method = named_method("method", job.method["name"], settings)
    files = build.files_of(job)
    task, weights = build.task_of(job, files.data)
    request, asked = build.asked_of(job, files.data, files.asked)
    own = functools.reduce(operator.or_, (files.data.select(target) for target in request.targets))
    fitted = build.fitted(job, task, files, own)
    whole, files = files.data, fitted.files
    earlier = earlier_requests([job.ledger, *job.excluded_by], whole, request)
    stored = build.stored_of(job, task, weights, files.data)
    if stored is None:
        deletion = match(whole, request, files.sets, earlier, lost=fitted.dropped)
    else:
        deletion = match_stored(whole, stored.data, request, files.sets, earlier)
    if asked is not None:
        asked = asked.only(deletion.ids)

    def make(seen: Watch) -> Trained:
        return stored or build.trained_of(job, task, weights, deletion.before, seen)

    evidence = job.evidence
    measuring = MeasureSettings(evidence.reference, 0, evidence.twins, 0, audit=False, seed=job.seed)
    setting = Setting(
        title=job.name,
        dataset=f"TOFU {job.data.split}" if isinstance(job.data, TofuData) else job.data.path.name,
        deletion=deletion,
        model=named(job),
        config=shown(job),
        note=" ".join(filter(None, (fitted.note, earlier.note))),
        approved_by=job.request.approved_by,
        pdf=evidence.pdf,
        wording=Wording(job.request.on_screening, asked, files.benign, job.seed),
    )
    untaught = build.untaught_of(job, task, weights, deletion.before)
    case = Case(job.model.title, make, None, method, measuring, job.seed, untaught)
    together = processes()
    if together.rank:
        return _beside(together, lambda: prepare_beside(request, case, setting))
    with _announced(together) as starts:
        return carry_out(request, [case], setting, out, ledger=job.ledger, watch=watch, starts=starts)


def named(job: LanguageJob) -> str:
    """What tells the model of a job from the others on one ledger: how it is made, and of which data."""
    sections = job.model_dump(include={"model", "dtype", "training", "seed"})
    return model_name(
        {**sections, "data": job.data.model_dump(include={"format", "path", "split", "users", "too_long"})}
    )


@contextmanager
def _announced(together: Processes) -> Iterator[Callable[[], None]]:
    """Tell the other processes, once, whether the first step comes."""
    word = iter((together.from_first,))

    def starts() -> None:
        next(word)(True)

    try:
        yield starts
    finally:
        for tell in word:
            tell(False)


def _beside(together: Processes, prepare: Callable[[], Plan]) -> dict[str, Any]:
    """Another process of the run: it computes its share of the steps, and records and returns nothing."""
    starts = False
    try:
        planned = prepare()
    finally:  # the first process waits for all to hear its word
        starts = together.from_first(None)
    if starts:
        planned.run()
    return {}


def shown(job: LanguageJob) -> str:
    """The resolved job as YAML, without what names the subject: it goes into the evidence folder."""
    content = job.model_dump(mode="json")
    content["request"]["subject"] = _HIDDEN
    for target in content["request"]["targets"]:
        target["where"] = dict.fromkeys(target["where"], _HIDDEN)
    paths = (
        ("model", "folder"), ("model", "adapter"), ("data", "path"), ("data", "benign"), ("training", "path"),
        ("training", "folder"),
        ("request", "records"), ("request", "wording"),
    )  # fmt: skip
    for section, key in paths:
        if content[section].get(key):
            content[section][key] = Path(content[section][key]).name
    content["data"]["sets"] = {name: Path(path).name for name, path in content["data"]["sets"].items()}
    content["ledger"] = content["ledger"] and Path(content["ledger"]).name
    content["excluded_by"] = [Path(path).name for path in content["excluded_by"]]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
