"""What to do about a request before anything is done: what a run would come to, and which method to take."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from expunge import planning
from expunge.core.errors import InputError
from expunge.core.keys import subject_key
from expunge.core.method import Estimate, Method, Refusal, Watch, silent
from expunge.core.request import Request
from expunge.core.trained import Trained
from expunge.data.look_alikes import copies_that_stay, look_alikes
from expunge.jobs.carry_out import plan_of
from expunge.jobs.pricing import Prices, promised_epsilon, rests_on_samples
from expunge.jobs.releasing import Case
from expunge.jobs.run import prepared
from expunge.jobs.search import parse_guarantee
from expunge.ledger import Ledger
from expunge.methods import registry
from expunge.modalities.settings import Job
from expunge.planning.checks import answer
from expunge.planning.figures import finite_values
from expunge.report.words import NEAR, SOON
from expunge.requests_book import RequestBook
from expunge.screening.result import screen_breadth

RETRAIN, WAIT = "retrain", "wait and batch"
FIELDS = ("method", "can", "reason", "promises", "seconds")
MEASURED = "Promises nothing before the run, which measures how far it gets."
OPEN = ("received", "granted", "quarantined")  # states of requests that nothing was released for


def dry_run(
    path: Path | Job, overrides: Sequence[str] = (), *, model: Path | None = None, watch: Watch = silent
) -> dict[str, Any]:
    """What :func:`~expunge.jobs.run.run_job` would do, without doing it: everything that it would refuse is refused here.

    A model that the job trains is trained for it, in memory, unless that takes long. Nothing is written and no noise is drawn.

    Args:
        path: of the job file; or a job that ``jobs.schema.load_job`` read, with the overrides in it.
        model: a folder that ``expunge publish`` wrote, served instead of a model that the job would train.

    Returns:
        What ``--json`` prints: examples and users that are ``matched``, how many are ``retained``, ``lookalikes`` and equal
        ``copies`` that stay, what ``screening`` says, an ``estimate`` of seconds and memory with retraining's seconds, what
        the method ``promises``, ``cautions`` about that, and what the model as it is ``knows`` of its data.

    Raises:
        InputError, RefusedError: for anything that :func:`~expunge.jobs.run.run_job` would refuse before it writes, except a
            request that screening holds back.
    """
    request, case, setting, _ = prepared(path, overrides, model)
    clock = _Clock(case)
    planned, screened = plan_of(request, clock.case, setting, watch=watch)
    prices, deletion, estimate = Prices(planned.context, clock.seconds), setting.deletion, planned.estimate
    plain = planned.to_json()
    again = prices.retraining()
    alike = look_alikes(deletion.before, request.targets) if deletion.member else ()
    return {
        "name": setting.title,
        "request": plain["request"],
        "method": plain["method"],
        "matched": {**plain["matched"], "users": users_of(request)},
        "forgotten": plain["forgotten"],
        "absent": plain["absent"],
        "retained": plain["retained"],
        "touched": plain["touched"],
        "lookalikes": [{"column": a.column, "named": a.named, "stays": a.stays, "examples": a.rows} for a in alike],
        "copies": copies_that_stay(deletion.before, deletion.ids) if deletion.member else 0,
        "screening": {"held": list(screened.held), **screened.decision},
        "estimate": {
            **finite_values(prices.of(planned.method, estimate)),
            "gradient_evaluations": estimate.gradient_evaluations,
            "retrain_seconds": again["seconds"],
            "retrain_gradient_evaluations": estimate.retrain_gradient_evaluations,
        },
        "trained": case.untrained is None,
        "certified": plain["certified"],
        "promises": plain["promises"],
        "cautions": plain["cautions"],
        "knows": None if not case.known else case.known[0],
        "sampled": list(rests_on_samples(planned.method, planned.context.trained)),
    }


def users_of(request: Request) -> int:
    """How many users the request names: the values of its targets of kind ``user``, each combination once."""
    names: set[tuple[str, ...]] = set()
    for target in request.targets:
        if target.kind == "user":
            columns = sorted(target.where)
            longest = max(columns, key=lambda name: len(target.values(name)))
            names |= {(*columns, str(value)) for value in target.values(longest)}
    return len(names)


def advise(
    path: Path | Job, overrides: Sequence[str] = (), *, model: Path | None = None, guarantee: str | None = None,
    within: float | None = None, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Which method to take for a job's request, with the reason and the price of each candidate. Writes nothing.

    Retraining cannot be surpassed: it is exact and costs no accuracy. Everything else saves time and is recommended only
    where retraining cannot be had, or takes longer than ``within``: first the cheapest method that promises something (within
    a published budget, or as ``guarantee`` asks), then the cheapest of those that learn from forgotten and retained examples,
    of which only a run can say whether they forget; that a job names a method is no reason to recommend it. Waiting for other
    requests is recommended where nothing else will do and the answer is not due yet.

    Args:
        path: of the job file; the job's method is a candidate with the job's settings, others with their defaults.
        model: a folder that ``expunge publish`` wrote, served instead of a model that the job would train.
        guarantee: ``epsilon=1`` or ``epsilon=1,delta=1e-5``: candidates that cannot promise it are not recommended.
        within: seconds that the method may take; not given: any.

    Returns:
        What ``--json`` prints: ``recommended`` (a name, or ``None``), ``why``, and ``candidates``, each with ``method``,
        ``can``, ``reason``, ``promises`` and ``seconds``; what ``screening`` says, and what the evidence takes besides.

    Raises:
        InputError, RefusedError: as :func:`dry_run`; for a guarantee that cannot be read.
    """
    wanted = {} if guarantee is None else parse_guarantee(guarantee)
    if bad := [name for name, value in wanted.items() if not 0 < value < math.inf]:
        raise InputError(f"Expected a {bad[0]} above 0 that is finite; got {guarantee!r}.")
    if within is not None and not within > 0:
        raise InputError(f"Expected seconds above 0 to stay within; got {within:g}.")
    request, case, setting, ledger = prepared(path, overrides, model)
    screened = setting.screen() if setting.screen else screen_breadth(request, setting.deletion)
    clock = _Clock(case)
    trained = case.untrained if case.untrained is not None else clock.case.make(watch)
    base = planning.plan(
        trained, request, registry.make("no_op"), key=subject_key(), deletion=setting.deletion, seed=case.seed
    )
    prices = Prices(base.context, clock.seconds)
    judge = _Judge(request, case, trained, base, prices, wanted, within)
    found = [item for name in registry.targets() if (item := judge.candidate(name)) is not None]
    again = prices.retraining()["seconds"]
    wait = _waiting(request, ledger if case.folder is None else case.folder.book.path, again)
    choice, why = judge.choose(found, wait)
    measuring, plain = case.measuring, base.to_json()
    return {
        "name": setting.title,
        "matched": plain["matched"]["count"],
        "absent": plain["absent"],
        "retained": plain["retained"],
        "recommended": choice,
        "why": why,
        "candidates": [{name: item[name] for name in FIELDS} for item in (*found, wait)],
        "evidence_seconds": None
        if again is None or measuring.reference == "none"
        else again * (1 + measuring.replicates),
        "screening": {"held": list(screened.held)},
    }


class _Clock:
    """A case whose training is timed, where it is trained here."""

    def __init__(self, case: Case):
        self.seconds: float | None = None

        def make(watch: Watch) -> Trained:
            started = time.perf_counter()
            trained = case.make(watch)
            self.seconds = time.perf_counter() - started if case.trains else None
            return trained

        self.case = replace(case, make=make)


@dataclass(frozen=True)
class _Judge:
    """Everything that candidates are judged by.

    Attributes:
        trained: the model, without a budget that is still to be published.
        base: a plan for the request, which holds the context that methods are asked about.
    """

    request: Request
    case: Case
    trained: Trained
    base: planning.Plan
    prices: Prices
    wanted: Mapping[str, float]
    within: float | None

    def candidate(self, name: str) -> dict[str, Any] | None:
        """What the method called ``name`` can do here; ``None`` for a control, or a method for other kinds of models."""
        own = self.case.method
        method = own if own.name == name else registry.load(name)()
        can = method.capabilities
        if can.effect == "none" or ("*" not in can.tasks and self.trained.task.name not in can.tasks):
            return None
        says = self._answer(method)
        item = {"method": registry.row_name(method), "can": isinstance(says, Estimate), "reason": str(says), "promises": {},
                "seconds": None, "gradients": None, "epsilon": None, "budgeted": "budget" in can.needs,
                "learns": {"retained data", "forgotten data"} <= {*can.needs}}  # fmt: skip
        if not isinstance(says, Estimate):
            return item
        price = self.prices.of(method, says)
        epsilon = promised_epsilon(method, says, self.trained)
        return {
            **item,
            "reason": self._reason(method, says, epsilon),
            "promises": finite_values(says.promises),
            "seconds": price["seconds"],
            "gradients": says.gradient_evaluations or None,
            "epsilon": None if can.leaves_weights else epsilon,
            "learns": item["learns"] and not can.leaves_weights,
        }

    def _answer(self, method: Method) -> Estimate | Refusal:
        """What the method says of the request, on the model as it would be published for it."""
        trained = self.trained
        try:
            if self.case.budget is not None and "budget" in method.capabilities.needs:
                trained = replace(trained, budget=planning.fix_budget(trained, self.case.budget, method))
            context = replace(self.base.context, trained=trained)
            return answer(method, context, self.request.kinds)
        except InputError as problem:
            return Refusal(str(problem))

    def _reason(self, method: Method, says: Estimate, epsilon: float | None) -> str:
        """Why one may take the method, and what speaks against it."""
        can = method.capabilities
        if method.name == RETRAIN:
            said = "Exact: nothing of what is forgotten was ever seen by the result."
        elif epsilon is not None:
            said = f"Promises epsilon {epsilon:.3g} if its assumptions hold; the run checks them."
            if can.certified and "budget" not in can.needs:
                said += " Its noise costs accuracy."
        elif sampled := rests_on_samples(method, self.trained):
            said = (
                f"Its bound would rest on {' and '.join(sampled)} as sampled, which is no guarantee (heuristic-noise)."
            )
        elif can.leaves_weights:
            said = "Leaves every weight as it is: nothing is forgotten by the model itself."
        else:
            said = MEASURED
        said = " ".join([said, *says.cautions])
        if self.case.budget is not None and "budget" not in can.needs:
            said += " Leave publish out of the job for it."
        return said

    def choose(self, found: Sequence[Mapping[str, Any]], wait: Mapping[str, Any]) -> tuple[str | None, str]:
        """The candidate to take, or ``None``, and why."""
        able = [item for item in found if item["can"]]
        if self.wanted:
            able = [item for item in able if item["epsilon"] is not None and self._is_enough(item)]
        in_time = [item for item in able if self.within is None or _price(item) <= self.within]
        limit = "" if self.within is None else f" within {self.within:g} seconds"
        if any(item["method"] == RETRAIN for item in in_time):
            return RETRAIN, f"Retraining can be had{limit}: it is exact and costs no accuracy, and nothing does more."
        # noise that no published budget fixed may cost any accuracy: only where somebody asks for it
        promising = [item for item in in_time if item["epsilon"] is not None and (self.wanted or item["budgeted"])]
        if promising:
            item, cheapest = _cheapest(promising)
            why = f"Retraining cannot be had{limit}; of the methods that promise what is asked {cheapest}."
            return item["method"], why
        learning = [item for item in in_time if item["learns"]]
        if learning and not self.wanted:
            item, cheapest = _cheapest(learning)
            why = (
                f"Neither retraining nor a promise can be had{limit}; of the methods that learn from forgotten and "
                f"retained examples {cheapest}, which says nothing of how well it forgets. "
            )
            return item["method"], why + self._measurable()
        if wait["can"] and any(item["method"] == RETRAIN for item in able):
            return (
                WAIT,
                f"Nothing that does what is asked ends{limit}; one retraining can serve this request and others.",
            )
        what = "promises what is asked" if self.wanted else "can serve the request"
        return None, f"No candidate {what}{limit}; the reasons say what each of them lacks."

    def _measurable(self) -> str:
        """What a run will be able to say of the result."""
        if self.case.measuring.reference != "none" and self.trained.recipe is not None:
            return "Whether it forgets, only a run measures (expunge bench compares methods)."
        return (
            "A run cannot measure it either: without a recipe there is no retrained model to compare with, and the outcome is "
            "undecidable. Say how it was trained to decide it (training.kind: user, or language)."
        )

    def _is_enough(self, item: Mapping[str, Any]) -> bool:
        """Whether a candidate promises the guarantee that is asked for."""
        delta = item["promises"].get("delta", 0.0)
        return item["epsilon"] <= self.wanted["epsilon"] * (1 + 1e-9) and delta <= self.wanted.get("delta", 1.0)


def _cheapest(items: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], str]:
    """The cheapest of candidates in the order of the registry, and what that is in words.

    Of those that cost the same within a factor of :data:`NEAR`, or :data:`SOON` seconds, it is the one with the fewest
    gradients of single examples, then the first: counts are the same each time, timings are not.
    """
    least = min(map(_price, items))
    near = [item for item in items if _price(item) <= max(NEAR * least, least + SOON)]
    first = min(near, key=lambda item: math.inf if item["gradients"] is None else item["gradients"])
    if len(near) == 1:
        return first, "this is the cheapest"
    if math.isinf(least):
        return first, "none has a price that is known, and this is one of them"
    by = "the first of them in the list" if first["gradients"] is None else "the one with the fewest gradients"
    return first, f"{len(near)} are cheapest, within a factor of {NEAR:g} or {SOON:g} s, and this is {by}"


def _price(item: Mapping[str, Any]) -> float:
    return float("inf") if item["seconds"] is None else float(item["seconds"])


def _waiting(request: Request, path: Path | None, seconds: float | None) -> dict[str, Any]:
    """Waiting for other requests, to serve all of them at once: until when, and with how many that are on the ledger."""
    due, others = request.due, 0
    assert due is not None
    if path is not None and path.is_file() and path.stat().st_size:
        identity = request.id(subject_key())
        with Ledger(path) as ledger:
            rows = RequestBook(ledger).requests()
        others = sum(row["status"] in OPEN and row["id"] != identity for row in rows)
        due = next((date.fromisoformat(row["due"]) for row in rows if row["id"] == identity and row["due"]), due)
    left = (due - date.today()).days
    waiting = f"{others} other open request{'s' * (others != 1)}" if others else "no other open request"
    can = left >= 1
    reason = (
        f"The answer is due on {due}, {f'in {left} days' if can else 'which leaves no time'}; the ledger has {waiting}."
    )
    if can:
        reason += " Several targets in one job are one run. Until then the model keeps what it learnt."
    share = None if seconds is None or not can else seconds / (1 + others)
    return {"method": WAIT, "can": can, "reason": reason, "promises": {}, "seconds": share}
