"""One request carried out on one or more models, from filing to signed evidence, surviving a crash at any moment.

Everything that could refuse does so before the first byte is written. From then on each step is either in the journal
or in the ledger before the next begins, so that the same command, run again, goes on where it stopped: no noise is drawn
twice and nothing is counted twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from expunge import planning
from expunge.core.certificate import Verdict
from expunge.core.digest import digest_file, digest_json, keyed_hash
from expunge.core.errors import InputError, RefusedError
from expunge.core.files import private_folder, read_json, sweep
from expunge.core.journal import Journal
from expunge.core.keys import subject_key
from expunge.core.method import InMemory, Outcome, Watch, silent
from expunge.core.request import Request
from expunge.core.trained import Artifact, Trained
from expunge.data.look_alikes import copies_that_stay, look_alikes
from expunge.jobs.closed import summary_of_closed
from expunge.jobs.identity import approved_on, identified
from expunge.jobs.places import Places
from expunge.jobs.releasing import (
    Accepted,
    Case,
    Setting,
    config,
    hold_back,
    keep_retrained,
    must_be_latest,
    next_model,
    released,
    without_names,
)
from expunge.jobs.summary import summary
from expunge.jobs.tries import begun_elsewhere, excerpt, must_be_the_first, must_be_the_same_ledger, on_record
from expunge.ledger import Ledger
from expunge.measuring import measure
from expunge.planning.matched import MOST_CERTIFIED, must_be_few_apart, must_be_recordable
from expunge.report.folder import EVIDENCE, write_evidence
from expunge.report.outcome import is_accepted
from expunge.report.record import build, plain, slug
from expunge.report.shown import name_of, shown
from expunge.requests_book import RequestBook
from expunge.screening.result import ScreeningResult, screen_breadth
from expunge.training.store import save_trained

_LOG = logging.getLogger(__name__)


def carry_out(
    request: Request, cases: Sequence[Case], setting: Setting, out: Path, *, ledger: Path | None = None,
    watch: Watch = silent, starts: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """File, screen, plan, run, measure, report and record; returns the summary (see ``jobs.summary``).

    Writes ``out`` (what may be shown) and ``<out>.private`` (journal, next models, per-record scores; mode 0700).

    Args:
        starts: called before the first step, when nothing can refuse any more.

    Raises:
        InputError, RefusedError: before anything is written, for a request that cannot be carried out.
        HeldBackError: where the result is void: it stays in the private folder until a person accepts it.
    """
    key = subject_key()
    identity = request.id(key)
    setting, cases = without_names(setting, cases, request.names(key))
    folders = [case.folder for case in cases if case.folder is not None]
    if folders and ledger is not None and any(folder.book.path.resolve() != ledger.resolve() for folder in folders):
        raise InputError(
            f"The model was published with a ledger of its own ({folders[0].book.path}), which counts its releases; "
            "remove ledger from the job."
        )
    places = Places.of(out, folders[0].book.path if folders else ledger, of_a_model=bool(folders))
    places.check()
    out, private, ledger_path = places.out, places.private, places.ledger
    request = identified(request, setting.model, key, ledger_path)
    identity = request.id(key)
    request, status, begun = on_record(request, key, ledger_path)
    if (before := summary_of_closed(request.id(key), places, setting.accepted)) is not None:
        return before
    places.must_be_free([f"journal-{slug(case.name)}" for case in cases])
    if begun and not places.unfinished:
        raise begun_elsewhere(identity, places.private)
    deletion = setting.deletion
    alike = look_alikes(deletion.before, request.targets) if deletion.member else ()
    for item in alike:
        _LOG.warning("%s. If it is the same, add it to the request.", item)
    copies = copies_that_stay(deletion.before, deletion.ids) if deletion.member else 0
    if copies:
        _LOG.warning(
            "%d row(s) that stay are equal to a forgotten one, inputs and label alike: what they teach, every retrained model "
            "knows too. If they are the same person's, add them to the request.", copies,
        )  # fmt: skip
    screened = _screened(request, setting)
    approved_by = setting.approved_by or approved_on(ledger_path, identity)
    if screened.held and (ledger is not None or folders) and not approved_by:
        _quarantine(request, screened, key, ledger_path)
    decision = _decision(screened, status, approved_by, setting.accepted)
    cases = [replace(case, method=screened.method(case.method)) for case in cases]
    run = _Run(request, setting, screened, key)
    made = [_made(case, run, watch) for case in cases]

    private_folder(private)
    fingerprint = digest_json(
        [
            setting.config,
            deletion.before.digest,
            deletion.ids.digest,
            *([] if deletion.member else [deletion.absent.digest, deletion.forget.digest]),
            identity,
            [case.name for case in cases],
            *screened.content,
        ]
    )
    with ExitStack() as stack:
        journals = [stack.enter_context(Journal(private / f"journal-{slug(case.name)}")) for case in cases]
        for journal, (trained, _) in zip(journals, made, strict=True):
            journal.bind(fingerprint)
            _same_training(journal, trained)
        must_be_the_same_ledger(journals[0], identity, ledger_path)
        out.mkdir(exist_ok=True)
        ledger_path.parent.mkdir(parents=True, exist_ok=True)
        book = RequestBook(stack.enter_context(Ledger(ledger_path, create=True)))
        record, matched = request.record(key), made[0][1].record["matched"]
        book.file_request(record)
        named = {"model": keyed_hash(key, setting.model)} if setting.model else {}
        decision = {**decision, **named, **({"look_alikes": [item.record(key) for item in alike]} if alike else {})}
        book.decide(identity, {**decision, "matched": matched})
        must_be_the_first(book, identity, journals[0], draws=bool(folders) or any(case.budget for case in cases))
        starts()
        outcomes = []
        for case, journal, (trained, planned) in zip(cases, journals, made, strict=True):
            if case.budget is not None:
                planned = planned.published(planning.publish(trained, case.budget, method=case.method, journal=journal))
            outcomes.append(_run(case, planned.on(journal, watch), journal))

        def measured() -> list[Any]:
            found = [measure(o, case.measuring, watch=watch) for case, o in zip(cases, outcomes, strict=True)]
            evidence = build(
                [(case.name, item.outcome, item) for case, item in zip(cases, found, strict=True)],
                request={**record, "matched": matched, "decision": decision},
                title=setting.title,
                dataset=setting.dataset,
                note=setting.note,
            )
            evidence["data"]["copies_that_stay"] = copies
            kept = []
            for case, item in zip(cases, found, strict=True) if setting.keep_retrained else ():
                kept += keep_retrained(private, case.name, item)
            evidence["kept"] = kept
            return [evidence, plain({case.name: dict(e.private) for case, e in zip(cases, found, strict=True)})]

        # measured once: two records of one request would differ in times, and both would be signed
        evidence, secrets = journals[0].once_json("evidence", measured)
        evidence["request"]["decision"] = decision  # a person may have accepted since what was held back then
        # kept up to date by whoever runs the job
        evidence["copies"] = [*setting.copies, *evidence.pop("kept", ())]
        evidence["accepted"] = None if setting.accepted is None else asdict(setting.accepted)
        runs = {run["name"]: run for run in evidence["runs"]}
        if void := [name for name, run in runs.items() if run["verdict"] == Verdict.VOID]:
            hold_back(void, evidence, secrets, setting, out, private, book, identity)
        items = [released(case, o, runs[case.name]) for case, o in zip(cases, outcomes, strict=True)]
        with book.ledger.transaction():
            must_be_latest(cases, outcomes, identity, status)
            book.release(identity, {"releases": items, "record": name_of(shown(evidence, setting.private_below))})
        keys = [identity, *(case.folder.book.model for case in cases if case.folder), *book.given_up().values()]
        evidence["ledger"] = excerpt(journals[0], book, keys)
        ran = {case.name: outcome for case, outcome in zip(cases, outcomes, strict=True)}
        written = write_evidence(
            out, evidence, ran, config(setting), private=secrets, pdf=setting.pdf, private_below=setting.private_below
        )
        verdicts = {name: run["verdict"] for name, run in runs.items()}
        models = {}
        for case, outcome in zip(cases, outcomes, strict=True):
            after = next_model(outcome, runs[case.name])
            if case.folder is not None:
                models[case.folder.book.model] = case.folder.keep(after, identity)
            else:
                save_trained(private / f"next-{slug(case.name)}", after)
        sweep(private)  # of a killed try: weights without noise
        shown_record, told = digest_file(written[EVIDENCE]), read_json(written[EVIDENCE])
        book.fulfil(
            identity,
            {
                "evidence": shown_record,
                "verdicts": verdicts,
                "outcomes": {run["name"]: run["outcome"]["word"] for run in told["runs"]},
                "accepted": is_accepted(told),
                **({"models": models} if models else {}),
            },
        )
        for case in cases:
            if case.folder is not None:
                case.folder.purge()
        for journal in journals:
            journal.clear()
    return summary(evidence, out, ledger_path)


def prepare_beside(request: Request, case: Case, setting: Setting, *, watch: Watch = silent) -> planning.Plan:
    """What another process of the same run does until the first step: the same, but for screening's consequences and records.

    The first process decides for all; see ``starts`` of :func:`carry_out`. Nothing is written.
    """
    key = subject_key()
    run = _Run(request, setting, _screened(request, setting), key)
    case = replace(case, method=run.screened.method(case.method))
    return _made(case, run, watch)[1].on(InMemory(), watch)


def plan_of(
    request: Request, case: Case, setting: Setting, *, watch: Watch = silent
) -> tuple[planning.Plan, ScreeningResult]:
    """The plan for one model and what screening says of the request; of the untrained model where training takes long.

    Nothing is written, and no noise is drawn.
    """
    run = _Run(request, setting, _screened(request, setting), subject_key())
    case = replace(case, method=run.screened.method(case.method))
    if case.untrained is None:
        return _made(case, run, watch)[1], run.screened
    _must_serve(case, run)
    return _plan(case, case.untrained, run), run.screened


@dataclass(frozen=True)
class _Run:
    """What every step needs: the request, what it is carried out on, how it was judged, and the key of keyed hashes."""

    request: Request
    setting: Setting
    screened: ScreeningResult
    key: bytes


def _screened(request: Request, setting: Setting) -> ScreeningResult:
    return setting.screen() if setting.screen else screen_breadth(request, setting.deletion)


def _decision(
    screened: ScreeningResult, status: str | None, approved_by: str | None, accepted: Accepted | None = None
) -> dict[str, Any]:
    """The decision to record.

    Raises:
        RefusedError: if screening or an earlier decision holds the request back and no person has approved it.
    """
    held = "; ".join(screened.held)
    approved_by = approved_by or (accepted.by if accepted else None)
    if status in ("refused", "quarantined"):
        held = f"the ledger says that it is {status}" + (f"; {held}" if held else "")
    if not held:
        return dict(screened.decision)
    if not approved_by:
        raise RefusedError(
            f"The request is held back: {held}. If a person has looked at it, set request.approved_by to who it was, or say so "
            "on the ledger (expunge requests approve)."
        )
    return {**screened.decision, "decision": "grant", "reason": f"held back: {held}; overruled", "by": approved_by}


def _quarantine(request: Request, screened: ScreeningResult, key: bytes, path: Path) -> None:
    """Put a request that screening holds back on record, where the job names a ledger, so that a person finds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Ledger(path, create=True) as ledger:
        book = RequestBook(ledger)
        book.file_request(request.record(key))
        if book.status_of(request.id(key)) in ("received", "granted"):
            book.decide(request.id(key), dict(screened.decision))


def _same_training(journal: Journal, trained: Trained) -> None:
    """Raise InputError if an interrupted try had another model than this one: its noise belongs to that one."""
    now = Artifact(trained.secret).digest
    if journal.once_json("trained", lambda: now) != now:
        raise InputError(
            f"The model came out differently than in the try that was interrupted ({journal.folder}). Use the same machine "
            "and number of threads as then; if training is not deterministic, store the model and forget from the stored one."
        )


def _plan(case: Case, trained: Trained, run: _Run) -> planning.Plan:
    """The plan, on the examples as screening lets the method see them; one that sees no forgotten example needs no words."""
    sees = "forgotten data" in case.method.capabilities.needs
    wording, retained = (run.screened.wording, run.screened.retained) if sees else (None, None)
    planned = planning.plan(
        trained,
        run.request,
        case.method,
        key=run.key,
        deletion=run.setting.deletion,
        wording=wording,
        retained=retained,
        seed=case.seed,
    )
    if planned.estimate.promises and len(trained.views) > MOST_CERTIFIED:
        must_be_few_apart(len({view.digest for view in trained.views.values()}), certified=True)
    return planned


def _run(case: Case, planned: planning.Plan, journal: Journal) -> Outcome:
    """Run a plan; what it cost is what the first complete run cost, not the reading of its journal."""
    before = {stage.name.rpartition(".")[2] for stage in journal.entries()}
    estimate = planned.estimate.cost
    if estimate:
        _LOG.warning(
            "Estimate for %s: %.2g GB of memory (weights, gradients, optimizer, activations), about %.2g minutes.",
            case.method.name, (estimate["state_bytes"] + (estimate["activation_bytes"] or 0)) / 1e9, estimate["seconds"] / 60,
        )  # fmt: skip
    outcome = planned.run_uncounted()  # counted on the ledger when it leaves
    details = {**outcome.details, **({"estimate": dict(estimate)} if estimate else {})}
    if "cost" not in before and any(name.startswith(("descended", "release")) for name in before):
        details["interrupted"] = "the run was interrupted; its seconds count the last part only"
    cost, details = journal.once_json("cost", lambda: plain([outcome.cost, details]))
    return replace(outcome, cost=cost, details=details)


def _made(case: Case, run: _Run, watch: Watch) -> tuple[Trained, planning.Plan]:
    """The trained model and a plan for it: whatever refuses does it here, and no noise is drawn."""
    _must_serve(case, run)
    if case.untrained is not None:
        _plan(case, case.untrained, run)
    trained = case.make(watch)
    tried = trained
    if case.budget is not None:
        tried = replace(trained, budget=planning.fix_budget(trained, case.budget, case.method))
    return trained, _plan(case, tried, run)


def _must_serve(case: Case, run: _Run) -> None:
    """Raise RefusedError for a request that the method does not serve, or too large to be recorded; before any training."""
    must_be_recordable(run.setting.deletion)
    if unserved := [kind for kind in run.request.kinds if kind not in case.method.capabilities.kinds]:
        served = ", ".join(case.method.capabilities.kinds)
        raise RefusedError(
            f"{case.method.name} does not serve requests of kind {', '.join(unserved)}; it serves {served}."
        )
