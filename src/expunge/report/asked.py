"""What was asked, what it matched, who decided, and who accepts the result, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.certificate import UNCHANGED, Verdict
from expunge.report import numbers as say
from expunge.report.outcome import ACCEPTED_SINCE, PERSON, accepted_by, person_of

Record = Mapping[str, Any]


def asked(record: Record) -> list[str]:
    """The request, what it matched, and the decision."""
    request, data = record["request"], record["data"]
    kinds = (
        say.joined([kind.replace("_", " ") for kind in str(request.get("kind", "")).split("+") if kind]) or "unstated"
    )
    ground = str(request.get("ground") or "not stated").strip().rstrip(".")
    sentences = [
        f"On {say.day(request.get('received'))} a request to forget arrived (kind: {kinds}; ground: {ground})."
    ]
    name = data["name"] or "the data"
    if data["member"]:
        total = "" if data["rows"] is None else f" of {data['rows']:,}"
        talks = data.get("conversations")  # one of several turns is several training rows
        known = f" (of {talks['forgotten']:,} of {say.plural(talks['all'], 'conversation')})" if talks else ""
        sentences.append(f"It matched {data['forgotten']:,}{total} training rows{known} of {name}.")
    else:
        rows = say.plural(data["forgotten"], "row")
        sentences.append(
            f"It names no training rows: {rows} written for the purpose stand for what the model must forget."
        )
        if absent := data.get("absent"):
            sentences.append(
                f"{say.initial(say.plural(absent, 'training row'))} of {name} show it: retraining leaves them out, and the "
                "method was not given them."
            )
    sentences.append(f"An answer is owed by {say.day(request.get('due'))}.")
    if person := person_of(record):
        sentences.append(_person(record, person))
    decision = request.get("decision")
    if decision:
        by = f" by {decision['by']}" if decision.get("by") else ""
        reason = f" ({decision['reason']})" if decision.get("reason") else ""
        sentences.append(f"Decision: {_DECISIONS.get(decision['decision'], decision['decision'])}{by}{reason}.")
    else:
        sentences.append("No decision is recorded.")
    return sentences


def _person(record: Record, person: Record) -> str:
    """What a person who accepts the result as it is decided; nothing, where the result is accepted without."""
    by = [accepted_by(run, person) for run in record["runs"] if "outcome" in run]
    reason = str(person["reason"]).rstrip(".")
    if None in by and any(run["verdict"] == Verdict.VOID for run in record["runs"]):
        return f"{person['by']} let the result out although its certificate is void ({reason}); it is not accepted."
    if None in by and all(run["verdict"] == UNCHANGED for run in record["runs"]):
        return f"{person['by']} would accept the result as it is ({reason}); it is the model of before."
    if None in by:
        return f"{person['by']} would accept the result as it is ({reason}); what was measured speaks against that."
    if PERSON in by or not by:
        when = " after it was delivered" if record.get(ACCEPTED_SINCE) else ""
        return f"The result was accepted as it is{when} by {person['by']}: {reason}."
    return f"{person['by']} would have accepted the result as it is ({reason}); that was not needed."


_DECISIONS = {"grant": "granted", "refuse": "refused", "quarantine": "held back", "withdraw": "withdrawn"}
