"""Carry out a job file, whatever its model is: read, match, screen, train or load, forget, measure, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from expunge import modalities
from expunge.core.data import Data, Deletion
from expunge.core.errors import InputError
from expunge.core.keys import subject_key
from expunge.core.method import Watch, silent
from expunge.core.request import Request
from expunge.core.trained import Budget, Trained
from expunge.descent.processes import processes
from expunge.evidence.membership import FORGET
from expunge.jobs.carry_out import carry_out, plan_of, prepare_beside
from expunge.jobs.closed import summary_of_closed
from expunge.jobs.earlier import Earlier, earlier_requests, match, match_stored
from expunge.jobs.identity import identified
from expunge.jobs.places import Places
from expunge.jobs.releasing import Accepted, Case, Setting, model_name
from expunge.jobs.schema import load_job
from expunge.jobs.together import announced, beside, found_by_first
from expunge.measuring import MeasureSettings, sets_of
from expunge.modalities import networks
from expunge.modalities.knowledge import must_know
from expunge.modalities.modality import Asked, Opened
from expunge.modalities.named import named_method
from expunge.modalities.settings import Job, StoredTraining
from expunge.model_folder import LEDGER, RECORD, ModelFolder
from expunge.planning import adopt, publish, train
from expunge.planning.matched import must_be_few_apart
from expunge.planning.promises import must_promise
from expunge.tasks.wrappers import may_be_wrapped, unwrapped
from expunge.training.recipes import UserFit
from expunge.training.store import load_trained

STORED = (
    "# The model came from its folder, whose record says how it was trained; what this job says of that was not used.\n"
)
_HIDDEN = "(kept out of records)"


def run_job(
    path: Path | Job, overrides: Sequence[str], out: Path, *, model: Path | None = None, watch: Watch = silent
) -> dict[str, Any]:
    """Carry out the job in ``path`` and write its evidence to ``out``.

    Args:
        path: of the job file; or a job that ``jobs.schema.load_job`` read, with the overrides in it.
        model: a folder that ``expunge publish`` wrote, served instead of a model that the job would train.

    Returns:
        The summary that ``--json`` prints. Of several processes (``accelerate launch``) the first keeps records, measures and
        reports; the others return ``{}``.

    Raises:
        InputError, RefusedError: for anything that cannot be used, before anything is written.
        HeldBackError: where a void result needs a person.
    """
    together, named = processes(), _named(path, overrides, model)
    closed, before = found_by_first(
        together, lambda: summary_of_closed(named.identity, named.places(out), accepted_in(named.job))
    )
    if closed:
        return before or {}
    request, case, setting, ledger = _matched(named)
    if together.rank:
        return beside(together, lambda: prepare_beside(request, case, setting))
    with announced(together) as starts:
        return carry_out(request, [case], setting, out, ledger=ledger, watch=watch, starts=starts)


def plan_job(
    path: Path | Job, overrides: Sequence[str] = (), *, model: Path | None = None, watch: Watch = silent
) -> dict[str, Any]:
    """What the job in ``path`` comes to, without carrying it out: ``expunge.plan(...).to_json()`` of its model and request.

    A model that the job trains is trained for it, in memory, unless that takes long: then the plan is that of the untrained
    model. Nothing is written and no noise is drawn.

    Args:
        path: of the job file; or a job that ``jobs.schema.load_job`` read, with the overrides in it.
        model: a folder that ``expunge publish`` wrote, planned for instead of a model that the job would train.

    Returns:
        What ``--json`` prints: the plan, with the job's ``name``, the ``model``, whether the plan is of the ``trained`` model,
        and what ``screening`` says.

    Raises:
        InputError, RefusedError: for anything that :func:`run_job` would refuse before it writes, except a request that
            screening holds back.
    """
    request, case, setting, _ = prepared(path, overrides, model)
    planned, screened = plan_of(request, case, setting, watch=watch)
    return {
        "name": setting.title,
        "model": case.name,
        "trained": case.untrained is None,
        **planned.to_json(),
        "screening": {"held": list(screened.held), **screened.decision},
    }


def prepared(
    path: Path | Job, overrides: Sequence[str], model: Path | None
) -> tuple[Request, Case, Setting, Path | None]:  # fmt: skip
    """A job read and matched: the request, the model it applies to, what it is carried out on, and the job's ledger.

    Raises:
        InputError: for anything in the job that cannot be used.
    """
    return _matched(_named(path, overrides, model))


@dataclass(frozen=True)
class _Named:
    """A job whose files are open, with its request under the id that its ledger knows.

    Attributes:
        asked: what the job asks for.
        folder: of a published model, with its own ledger.
        model: tells the models of one ledger apart; empty where it belongs to one model.
    """

    job: Job
    opened: Opened
    asked: Asked
    folder: ModelFolder | None
    model: str

    @property
    def identity(self) -> str:
        """The id of the request."""
        return self.asked.request.id(subject_key())

    @property
    def ledger(self) -> Path | None:
        """The model's own ledger, or the one that the job names."""
        return self.job.ledger if self.folder is None else self.folder.book.path

    def places(self, out: Path) -> Places:
        """Where a run writes whose evidence goes to ``out``."""
        return Places.of(out, self.ledger, of_a_model=self.folder is not None)


def _named(path: Path | Job, overrides: Sequence[str], model: Path | None) -> _Named:
    job = load_job(path, overrides)
    kind = modalities.load(job.task)
    if processes().count > 1 and not kind.in_processes:
        raise InputError(
            "Expected one process: only language models share rows out. Start it without accelerate launch."
        )
    method_of(job)  # its settings are refused before anything is read
    opened = opened_of(job)
    if job.publish is not None:
        _must_be_publishable(opened)
    if model is not None:
        job = served_from(job, model, opened)
    folder = folder_of(job)
    asked, model_on_ledger = asked_of(job, opened, folder)
    return _Named(job, opened, asked, folder, model_on_ledger)


def _matched(named: _Named) -> tuple[Request, Case, Setting, Path | None]:
    """The request matched on the data of the model that it applies to."""
    job, opened, asked, folder = named.job, named.opened, named.asked, named.folder
    kind = modalities.load(job.task)
    stored = _stored(job, opened, folder, named.identity)
    earlier = earlier_requests([named.ledger, *job.excluded_by], opened.data, asked.request)
    if stored is None:
        deletion = match(opened.data, asked, earlier)
    else:
        deletion = match_stored(opened.data, stored.data, asked, earlier)

    known: list[str] = []

    def make(seen: Watch) -> Trained:
        made = stored if stored is not None else _trained(job, opened, deletion.before, seen)
        if deletion.member or FORGET in deletion.probes:
            knows = must_know(
                kind, made.task, made.secret, deletion.before, sets_of(deletion), job.expected_accuracy,
                not deletion.member,
            )  # fmt: skip
            known[:] = [] if knows is None else [f"{knows.value:.3f} on {knows.what}"]
        return made

    setting = _setting(job, opened, asked, earlier, deletion, model=named.model)
    setting = replace(setting, screen=lambda: kind.screen(job, opened, asked, deletion))
    measuring = MeasureSettings(**job.evidence.measuring(), seed=job.seed)
    untrained = _untrained(opened, deletion) if stored is None else None
    trains = stored is None and opened.recipe is not None and not opened.finished
    case = Case(
        opened.name, make, budget_of(job), method_of(job), measuring, job.seed, untrained, folder, trains, known
    )
    return asked.request, case, setting, job.ledger


def asked_of(job: Job, opened: Opened, folder: ModelFolder | None) -> tuple[Asked, str]:
    """What the job asks, its request under the id that the ledger knows it by; and the model's name on that ledger.

    Raises:
        InputError, RefusedError: as the modality's ``ask``, and for a request that was abandoned.
    """
    asked = modalities.load(job.task).ask(job, opened)
    named = "" if folder is not None else model_name(job.identity())
    known = identified(asked.request, named, subject_key(), job.ledger if folder is None else folder.book.path)
    return replace(asked, request=known), named


def publish_job(path: Path | Job, overrides: Sequence[str], to: Path, *, watch: Watch = silent) -> dict[str, Any]:
    """Train as a job says and publish: weights, private trail, and the ledger that shows that the promise came first.

    The job's request, if it has one, plays no part.

    Returns:
        What ``--json`` prints.

    Raises:
        InputError: for anything that cannot be used, before anything is written.
    """
    job = load_job(path, overrides)
    method, budget = method_of(job), budget_of(job)
    if (to / RECORD).exists():
        raise InputError(f"{to} holds a model already; name a new folder: what is published stays as it is.")
    if "budget" in method.capabilities.needs and budget is None:
        raise InputError(f"{method.name} needs a promise that its noise is derived from: add publish to the job.")
    opened = opened_of(job)
    _must_be_publishable(opened)
    trained = _stored(job, opened, folder_of(job))
    if trained is None:
        left_out = earlier_requests([job.ledger, *job.excluded_by], opened.data, None).ids
        data = opened.data.without(left_out) if len(left_out) else opened.data
        if budget is not None:
            must_promise(budget, data)
        trained = _trained(job, opened, data, watch)
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


def opened_of(job: Job) -> Opened:
    """What the job's files hold; the note says so where names of weights carried a wrapper's prefix."""
    opened = networks.opened(modalities.load(job.task), job)
    if apart := networks.peers_apart(job, opened.data):
        must_be_few_apart(apart)
    if opened.weights is None or not may_be_wrapped(opened.weights):
        return opened
    _, prefix = unwrapped(opened.task.build().state_dict().keys(), opened.weights)
    said = f"All names in the checkpoint began with {prefix!r}, which was taken off." if prefix else ""
    return replace(opened, note=f"{opened.note} {said}".strip())


def served_from(job: Job, model: Path, opened: Opened) -> Job:
    """``job`` on a published model instead of one that it would train; its promise is the published one."""
    _must_be_publishable(opened)
    stored = type(job).stored(kind="stored", folder=model.resolve())
    return job.model_copy(update={"training": stored, "publish": None})


def method_of(job: Job) -> Any:
    """The method with its settings, each of the type and in the range that the method declares.

    Raises:
        InputError: for an unknown method or setting, or a value of another type.
    """
    settings = {name: value for name, value in job.method.items() if name != "name"}
    return named_method(f"{job.file}: method", job.method["name"], settings)


def budget_of(job: Job) -> Budget | None:
    """The budget to publish, or ``None``."""
    return None if job.publish is None else Budget(**job.publish.model_dump())


def accepted_in(job: Job) -> Accepted | None:
    """Who takes the result of a job that would not be accepted otherwise, and why."""
    return None if job.accept is None else Accepted(job.accept.by, job.accept.reason)


def folder_of(job: Job) -> ModelFolder | None:
    """The folder of a published model that the job names, with its ledger; ``None`` where there is no such record."""
    if not isinstance(job.training, StoredTraining):
        return None
    folder = ModelFolder(job.training.folder)
    return folder if folder.published else None


def shown(job: Job) -> str:
    """The resolved job as YAML, without what names the subject: it goes into the evidence folder.

    Without ``accept`` either: that may be added to a job whose result was held back, and is no other run.
    """
    content = networks.as_recorded(_names_only(job.model_dump(exclude={"accept", "copies"})))
    content["request"]["subject"] = _HIDDEN
    for target in content["request"]["targets"]:
        target["where"] = dict.fromkeys(target["where"], _HIDDEN)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return STORED + text if isinstance(job.training, StoredTraining) else text


def _names_only(value: Any) -> Any:
    """A dumped section as it may stand in a record: plain values, and of paths the last part alone."""
    if isinstance(value, Mapping):
        return {name: _names_only(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_names_only(item) for item in value]
    if isinstance(value, Path):
        return value.name
    return value.isoformat() if hasattr(value, "isoformat") else value


def _must_be_publishable(opened: Opened) -> None:
    if not opened.publishable:
        raise InputError(
            f"No method for {opened.task.name} models has a promise to publish: leave publish out of the job, and name the "
            "model in it (training)."
        )


def _stored(job: Job, opened: Opened, folder: ModelFolder | None, request: str = "") -> Trained | None:
    """The model of an earlier run, or a published one; ``None`` where the job names neither.

    Args:
        request: the id of the request, whose own unfinished release may be resumed.
    """
    if not isinstance(job.training, StoredTraining):
        return None
    if folder is None:
        stored = load_trained(job.training.folder, opened.task, opened.data)
    else:
        stored = folder.load(opened.task, opened.data, request)
    if stored.recipe is None and type(opened.recipe) is UserFit:  # no folder can hold somebody's function
        stored = opened.recipe.adopted(stored, stored.seed)
    opened.task.check(opened.data)
    if stored.budget is not None and job.publish is not None:
        raise InputError("The stored model is published already: its budget stands. Remove publish from the job.")
    return stored


def _trained(job: Job, opened: Opened, data: Data, watch: Watch) -> Trained:
    """The model that is to forget: trained here, or adopted from disk."""
    if opened.recipe is not None and not opened.finished:
        return train(opened.task, data, opened.recipe, seed=job.seed, watch=watch)
    assert opened.weights is not None
    opened.task.check(data)
    adopted = adopt(opened.task, opened.weights, data)
    if type(opened.recipe) is UserFit:
        return opened.recipe.adopted(adopted, job.seed)
    return adopted if opened.recipe is None else replace(adopted, recipe=opened.recipe, seed=job.seed)


def _untrained(opened: Opened, deletion: Deletion) -> Trained | None:
    """The model before it is trained here, where what would refuse the trained one should refuse this one first."""
    if not opened.long_training or opened.recipe is None or opened.finished:
        return None
    opened.task.check(deletion.before)
    weights = opened.weights or opened.task.released(opened.task.build())
    return replace(adopt(opened.task, weights, deletion.before), recipe=opened.recipe)


def _setting(job: Job, opened: Opened, asked: Asked, earlier: Earlier, deletion: Deletion, *, model: str) -> Setting:
    return Setting(
        title=job.name,
        dataset=opened.dataset,
        deletion=deletion,
        model=model,
        config=shown(job),
        note=" ".join(filter(None, (opened.note, asked.note, earlier.note))),
        approved_by=job.request.approved_by,
        pdf=job.evidence.pdf,
        accepted=accepted_in(job),
        private_below=job.evidence.private_below,
        keep_retrained=job.evidence.keep_retrained,
        copies=job.known_copies(),
    )
