"""The outcome of a run in a record, and whether the result is accepted: both follow from the record alone.

A result is *accepted* by its certificate, by what was measured, or by a person. Everything else was delivered, and the request
is not said to be fulfilled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Verdict
from expunge.core.measurement import Direction, Measurement
from expunge.evidence.outcome import judged
from expunge.metrics.outcomes import Word
from expunge.report.measurement_names import keyed

Record = Mapping[str, Any]
CERTIFICATE, OUTCOME, PERSON = "certificate", "outcome", "person"  # what accepts a result
HELD = "held_back"  # of the review of a result that has not left
ACCEPTED_SINCE = (
    "accepted_since"  # of a record: ``by`` and ``reason`` of a person who accepted it after it was delivered
)
PRIVATE = "private"  # in the place of a word that only the private record has
_ADDED = ("name", "agrees", "withheld")  # what records write beside the fields of a measurement


def measurement_of(item: Record) -> Measurement:
    """A measurement of a record."""
    fields = {name: value for name, value in keyed(item).items() if name not in _ADDED}
    fields["interval"] = tuple(item["interval"]) if item["interval"] else None
    return Measurement(**{**fields, "direction": Direction(item["direction"])})


def outcome_of(evidence: Record) -> dict[str, Any]:
    """The outcome that the measurements of a whole record amount to: its ``word`` and the ``reason`` for it."""
    found = judged(map(measurement_of, evidence["measurements"]))
    return {"word": found.word.value, "reason": found.reason}


def shown_outcome(run: Record, open_: bool) -> dict[str, Any] | None:
    """What of an outcome may be shown: not the word where a certificate accepts the result without it, since it depends on the
    original model; and the numbers of its reason only where values of the original model may be shown.

    Args:
        open_: see :func:`report.shown.shows_original`.
    """
    if (found := run.get("outcome")) is None:
        return None
    if accepted_by_certificate(run):
        return {"word": PRIVATE, "reason": None}
    return dict(found) if open_ else {**found, "reason": None}


def speaks_against(run: Record) -> bool:
    """Whether the outcome says that the result is not what retraining gives, whatever each value by itself comes to."""
    return (run.get("outcome") or {}).get("word") in (Word.UNDER_FORGETS, Word.OVER_FORGETS, Word.UTILITY_COLLAPSE)


def promises(run: Record) -> bool:
    """Whether the method promised anything: then no value of the original model may be shown."""
    return run["verdict"] not in (UNCERTIFIED, UNCHANGED)


def accepted_by_certificate(run: Record) -> bool:
    """Whether the certificate alone accepts a result: certified, within the published budget, and not refuted."""
    return run["verdict"] == Verdict.CERTIFIED and _within_budget(run) and run["evidence"]["verdict"] != "refuted"


def accepted_by(run: Record, person: Record | None = None) -> str | None:
    """What accepts the result of a run: ``certificate``, ``outcome`` or ``person``; ``None``: nothing does.

    * ``certificate``: the verdict is certified, within the budget, and no check refuted it. Under declared constants the
      same, unless what was measured speaks against it (under-forgets, over-forgets, utility-collapse).
    * ``outcome``: what was measured is ``forgets``.
    * ``person``: what was measured is undecidable, and the job says who accepts that and why; or the certificate is void, which
      only a person lets out, and what was measured is ``forgets`` or undecidable.

    Nothing accepts a control that left the model as it was: of that it is known that nothing was forgotten.

    Args:
        person: ``{"by": …, "reason": …}`` of the job, where there is one.
    """
    if run["verdict"] == UNCHANGED:
        return None
    if accepted_by_certificate(run):
        return CERTIFICATE
    word = (run.get("outcome") or {}).get("word")
    declared = run["verdict"] == Verdict.UNDER_DECLARED and _within_budget(run)
    if declared and run["evidence"]["verdict"] != "refuted" and word in (Word.FORGETS, Word.UNDECIDABLE):
        return CERTIFICATE
    if word == Word.FORGETS:
        return PERSON if person and run["verdict"] == Verdict.VOID else OUTCOME
    return PERSON if word == Word.UNDECIDABLE and person else None


def person_of(record: Record) -> Record | None:
    """Who accepts the result as it is, and why: the job said so from the start, or after the result was delivered."""
    return record.get(ACCEPTED_SINCE) or record.get("accepted")


def is_held(record: Record) -> bool:
    """Whether nothing of the result has left, because a certificate is void and no person accepted it (in the review alone)."""
    return bool(record.get(HELD))


def is_accepted(record: Record) -> bool:
    """Whether the results of all runs of a record are accepted; a record of before outcomes were judged: yes."""
    return all("outcome" not in run or accepted_by(run, person_of(record)) for run in record["runs"])


def _within_budget(run: Record) -> bool:
    views = [run["certificate"], *(view["certificate"] for view in run.get("other_views", ()))]
    published = (run["budget"] or {}).get("epsilon")
    limit = float("inf") if published is None else published * (1 + 1e-9)
    return all(item is not None and item["epsilon"] is not None and item["epsilon"] <= limit for item in views)
