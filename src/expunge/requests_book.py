"""The life of a request, kept in a ledger: filed, decided, released, fulfilled; or withdrawn, abandoned, superseded.

Each step is one entry; the state of a request is computed from its entries and stored nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from expunge.core.errors import InputError
from expunge.ledger import Entry, Ledger, canonical_payload

# quarantine: screening or a void result stopped it, a person has yet to decide; withdraw: whoever asked no longer asks
DECISIONS = ("grant", "refuse", "quarantine", "withdraw")
NOT_ACCEPTED = "delivered-not-accepted"  # released and closed, and the result is not what was asked for
CLOSED = ("fulfilled", NOT_ACCEPTED)
STATUSES = (
    "received", "granted", "refused", "quarantined", "withdrawn", "released", *CLOSED, "abandoned", "superseded",
)  # fmt: skip
_STATUS_OF = {
    "grant": "granted", "refuse": "refused", "quarantine": "quarantined", "withdraw": "withdrawn",
    "abandon": "abandoned", "supersede": "superseded",
}  # fmt: skip
UNFINISHED = ("received", "granted", "quarantined", "released")  # what can be abandoned
NOT_REPLACED = ("received", "refused", "withdrawn", "fulfilled")  # what no other request can take the place of
RESULT = "result"  # what a quarantine is of, where it is not the request
ROLLBACK = "rollback"  # kind of the entry that makes an earlier release the model in use again
END = "end"  # kind of the entry that abandons or supersedes a request
BEGINNING = "beginning"  # kind of the entry that names the journal in which noise is drawn for a request
ACCEPTANCE = "acceptance"  # kind of the entry by which a person accepts what was delivered and not accepted

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")  # no slash: it parts the id from a decision's number
_KEYED_HASH = re.compile(r"[0-9a-f]{64}")
_INSTEAD = {
    "abandon": "only a request that was not finished can be abandoned. A result that was not accepted can be superseded",
    "supersede": "only a request that was tried and did not end as it should can be superseded",
}


@dataclass(frozen=True)
class Granted:
    """A request that was granted, and the marks by which its examples are recognised; see ``data.marks``.

    Attributes:
        request: its id.
        marks: keyed hashes.
        marked: False for a request of an earlier version, which left no marks.
    """

    request: str
    marks: tuple[str, ...]
    marked: bool


class RequestBook:
    """Requests in an open `Ledger`. Every step may be repeated with the same content (a resumed run does): it is then
    a no-op that returns the old entry. A step with another content, or out of order, raises ``InputError``.

    Args:
        ledger: an open ledger; the book does not close it.

    Guarantee: of processes that decide or release one request at once, one wins and the others are told so.
    """

    def __init__(self, ledger: Ledger):
        self.ledger = ledger

    def file_request(self, record: Mapping[str, Any], time: datetime | str | None = None) -> Entry:
        """File a request under ``record["id"]``.

        Args:
            record: what is known of the request; ``received``, ``due``, ``ground`` and ``targets`` (each with a
                ``kind``) show in `requests`. ``subject`` and each target's ``where`` must be keyed hashes
                (`expunge.core.digest.keyed_hash`): the ledger holds no personal data.
            time: of filing; now where ``None``.

        Raises:
            InputError: if the id cannot be used, a person or selection is named in clear, or the id is taken.
        """
        request_id = record.get("id")
        if not isinstance(request_id, str) or not _ID.fullmatch(request_id):
            raise InputError(f"a request needs an id of letters, digits and . _ : -, got {request_id!r}")
        targets = record.get("targets", ())
        if not isinstance(targets, list | tuple) or not all(
            isinstance(target, Mapping) and isinstance(target.get("kind"), str) for target in targets
        ):
            raise InputError(f"the targets of request {request_id!r} must be a list of mappings, each with a kind")
        hidden = [("subject", record.get("subject"))] + [
            ("where of a target", target.get("where")) for target in targets
        ]
        for name, value in hidden:
            if value is not None and not (isinstance(value, str) and _KEYED_HASH.fullmatch(value)):
                raise InputError(
                    f"the {name} of request {request_id!r} must be a keyed hash (64 hex digits): "
                    "the ledger cannot be erased, so no personal data may enter it"
                )
        return self.ledger.append("request", request_id, record, time)

    def decide(self, request_id: str, decision: Mapping[str, Any], time: datetime | str | None = None) -> Entry:
        """Record a decision: ``decision["decision"]`` is one of `DECISIONS`; say also who, why and by which method.

        A decision may be revised by another one (a quarantine ends, a refusal is appealed) until something is released;
        all of them stay on record and the last one counts.

        Raises:
            InputError: if the word is unknown, the request was not filed, or its outcome is already released.
        """
        if decision.get("decision") not in DECISIONS:
            raise InputError(f"a decision must be one of {', '.join(DECISIONS)}; got {decision.get('decision')!r}")
        with self.ledger.transaction():
            entries = self._entries_of(request_id)
            decisions = [entry for entry in entries if entry.kind == "decision"]
            if decisions and canonical_payload(decisions[-1].payload) == canonical_payload(decision):
                return decisions[-1]
            if {entry.kind for entry in entries} & {"release", "fulfilment", END}:
                raise InputError(
                    f"request {request_id!r} is already {_status(entries)}; its decision can no longer change"
                )
            return self.ledger.append("decision", f"{request_id}/{len(decisions) + 1}", decision, time)

    def accept(self, request_id: str, by: str, reason: str, **named: str) -> Entry:
        """Record that a person accepts a result that was delivered and not accepted; whoever calls it has judged that the
        result may be accepted by a person (`report.outcome.accepted_by`).

        Args:
            by: who decided it. reason: why, without names.
            named: ``evidence``, digest of the record that says so from now on, and ``signature`` (`report.acceptance`).

        Raises:
            InputError: if the request was not filed, or its result is not one that waits for a person.
        """
        payload = {"decision": "accept", "by": by, "reason": reason, **named}
        with self.ledger.transaction():
            if (status := self.status_of(request_id)) != NOT_ACCEPTED:
                raise InputError(f"request {request_id!r} is {status}: only what was delivered can be accepted")
            return self.ledger.append(ACCEPTANCE, request_id, payload)

    def acceptance_of(self, request_id: str) -> dict[str, Any]:
        """Who accepted the result after it was delivered, and why; empty where nobody did."""
        found = [entry.payload for entry in self._entries_of(request_id) if entry.kind == ACCEPTANCE]
        return dict(found[-1]) if found else {}

    def withdraw(self, request_id: str, by: str, reason: str) -> Entry:
        """Record that whoever asked no longer asks: from now on the request keeps nothing out of later runs.

        Args:
            by: who recorded it. reason: why, without names.

        Raises:
            InputError: if the request was not filed, or its outcome is already released.
        """
        return self.decide(request_id, {"decision": "withdraw", "reason": reason, "by": by})

    def approve(self, request_id: str, by: str, reason: str) -> Entry:
        """Record that a person lets a request be carried out: one that was filed, or one that screening holds back.

        Args:
            by: who decided it. reason: why, without names.

        Raises:
            InputError: if the request was not filed, came to an end, or its *result* is held back (only ``accept`` in its job
                releases that).
        """
        decisions = [entry.payload for entry in self._entries_of(request_id) if entry.kind == "decision"]
        status = self.status_of(request_id)
        again = bool(decisions) and decisions[-1].get("approved") and decisions[-1].get("by") == by
        if status not in ("received", "quarantined") and not (again and status == "granted"):
            raise InputError(
                f"request {request_id!r} is {status}: only one that is received or quarantined can be approved"
            )
        if status == "quarantined" and decisions[-1].get("of") == RESULT:
            raise InputError(
                f"the result of request {request_id!r} is held back because its certificate is void: put accept (by, reason) "
                "into its job to release it all the same"
            )
        return self.decide(request_id, {"decision": "grant", "reason": reason, "by": by, "approved": True})

    def reject(self, request_id: str, by: str, reason: str) -> Entry:
        """Record that a person refuses a request: it is not carried out, and keeps nothing out of later runs.

        Args:
            by: who decided it. reason: why, without names.

        Raises:
            InputError: if the request was not filed, or something was released for it.
        """
        return self.decide(request_id, {"decision": "refuse", "reason": reason, "by": by})

    def approval_of(self, request_id: str) -> str | None:
        """Who approved the request after it was held back; ``None`` where nobody did, or before anybody could know why."""
        by, before = None, ""
        for entry in self.ledger.entries("decision", prefix=f"{request_id}/"):
            word = entry.payload["decision"]
            if word != "grant":
                by = None
            elif entry.payload.get("approved") and before == "quarantine":
                by = entry.payload["by"]
            before = word
        return by

    def abandon(self, request_id: str, by: str, reason: str) -> Entry:
        """Record that a request will not be finished. Whoever it was granted for stays out of later runs all the same, and
        what was released for it stays counted.

        Args:
            by: who decided it. reason: why, without names.

        Raises:
            InputError: if the request was not filed, or is not in one of the states `UNFINISHED`.
        """
        return self._end("abandon", request_id, by, reason, lambda status: status in UNFINISHED)

    def supersede(self, request_id: str, by: str, reason: str) -> Entry:
        """Record that another request of the same person for the same targets takes the place of this one: its result was
        not accepted, or it never finished. The next run of the job files that request, under an id of its own.

        Args:
            by: who decided it. reason: why, without names.

        Raises:
            InputError: if the request was not filed, or nothing was tried for it, or its result was accepted.
        """
        return self._end("supersede", request_id, by, reason, lambda status: status not in NOT_REPLACED)

    def delivered(self, request_id: str | None) -> bool:
        """Whether the request, or one in whose place it stands, was delivered; ``None`` and what is not on the ledger: no."""
        while request_id and (entries := self.entries_of(request_id)):
            if any(entry.kind == "fulfilment" for entry in entries):
                return True
            request_id = entries[0].payload.get("supersedes")
        return False

    def ending_of(self, request_id: str) -> dict[str, Any]:
        """Who abandoned or superseded the request, and why; empty where nobody did."""
        ends = [entry.payload for entry in self._entries_of(request_id) if entry.kind == END]
        return ends[-1] if ends else {}

    def _end(self, word: str, request_id: str, by: str, reason: str, may: Callable[[str], bool]) -> Entry:
        payload = {"decision": word, "by": by, "reason": reason}
        with self.ledger.transaction():
            entries = self._entries_of(request_id)
            ends, status = [entry for entry in entries if entry.kind == END], _status(entries)
            if ends and ends[-1].payload == payload:
                return ends[-1]
            if status == "superseded" or not may(status):
                raise InputError(f"request {request_id!r} is {status}: {_INSTEAD[word]}")
            return self.ledger.append(END, f"{request_id}/end-{len(ends) + 1}", payload)

    def given_up(self) -> dict[str, str]:
        """Requests that were released, never finished, and abandoned or superseded since: the model is still the one before
        them, and what they spent stays spent. Each with the key of the entry that ended it."""
        ends = {entry.key.split("/")[0]: entry.key for entry in self.ledger.entries(END)}
        if not ends:
            return {}
        released, fulfilled = ({e.key for e in self.ledger.entries(kind)} for kind in ("release", "fulfilment"))
        return {request: key for request, key in ends.items() if request in released - fulfilled}

    def rolled_back(self, model: str) -> str | None:
        """Digest of the release that ``model`` was taken back to, where nothing was released from it since; else ``None``."""
        back = [entry for entry in self.ledger.entries(ROLLBACK) if entry.payload.get("model") == model]
        released = [
            entry.sequence
            for entry in self.ledger.entries("release")
            if any(item.get("model") == model for item in entry.payload.get("releases", ()))
        ]
        return back[-1].payload["digest"] if back and back[-1].sequence > max(released, default=0) else None

    def begin(self, request_id: str, journal: str) -> Entry:
        """Record the journal in which a granted request is carried out; the entry of the first one stays and comes back.

        Raises:
            InputError: if the request is not granted.
        """
        begun = [entry for entry in self.entries_of(request_id) if entry.kind == BEGINNING]
        return begun[0] if begun else self._step(BEGINNING, request_id, {"journal": journal}, None)

    def release(self, request_id: str, payload: Mapping[str, Any], time: datetime | str | None = None) -> Entry:
        """Record what was released for a granted request (digests, certificate). Only one release ever: a certificate
        counts one draw of noise. A network's views go into one payload.

        Raises:
            InputError: if the request is not granted, or something else was released for it.
        """
        return self._step("release", request_id, payload, time)

    def fulfil(self, request_id: str, payload: Mapping[str, Any], time: datetime | str | None = None) -> Entry:
        """Record that a granted request is closed (receipts, digest of the evidence), with or without a release: where
        the model never saw the data, there is nothing to release. With ``accepted`` false in the payload its status is
        `NOT_ACCEPTED`: something was delivered that does not do what was asked. What was to be forgotten stays out of later
        runs all the same.

        Raises:
            InputError: if the request is not granted, or was closed with another content.
        """
        return self._step("fulfilment", request_id, payload, time)

    def status_of(self, request_id: str) -> str:
        """One of `STATUSES`.

        Raises:
            InputError: if no such request was filed.
        """
        return _status(self._entries_of(request_id))

    def model_of(self, request_id: str) -> str | None:
        """The model that a request was decided for, as the decision calls it; ``None`` where no decision names one."""
        own = [e for e in self.ledger.entries("decision", prefix=f"{request_id}/") if "model" in e.payload]
        return own[0].payload["model"] if own else None

    def granted(self, but: Mapping[str, Any]) -> list[Granted]:
        """Requests whose examples must not be learnt again, in the order they were filed: granted at some time, released or
        not, and neither refused nor withdrawn since.

        Args:
            but: the record of a request that is left out, on whatever model it was granted before.
        """
        by_id: dict[str, list[Entry]] = {}
        for entry in [*self.ledger.entries("request"), *self.ledger.entries("decision")]:
            by_id.setdefault(entry.key.split("/")[0], []).append(entry)
        result = []
        for request_id, (filed, *decisions) in by_id.items():
            same = all(filed.payload.get(name) == but.get(name) for name in ("subject", "targets"))
            grants = [entry.payload for entry in decisions if entry.payload["decision"] == "grant"]
            granted = [payload for payload in grants if not payload.get("approved")]  # an approval matched nothing yet
            if same or not granted or decisions[-1].payload["decision"] in ("refuse", "withdraw"):
                continue
            matched = [payload.get("matched") or {} for payload in granted]
            marks = sorted({mark for item in matched for mark in item.get("marks", ())})
            result.append(Granted(request_id, tuple(marks), any("marks" in item for item in matched)))
        return result

    def requests(self) -> list[dict[str, Any]]:
        """All requests in the order they were filed, each with ``id, kinds, status, subject, received, due, ground,
        filed, decision, decided, reason, by, released, fulfilled, supersedes``; ``None`` where something is not known (yet).
        Decision, reason and by are those of the end where there is one.
        """
        by_id: dict[str, list[Entry]] = {}
        for entry in self.ledger.entries():
            if entry.kind in ("request", "decision", "release", "fulfilment", END, ACCEPTANCE):
                by_id.setdefault(entry.key.split("/")[0], []).append(entry)
        return [_row(entries) for entries in by_id.values() if entries[0].kind == "request"]

    def _step(self, kind: str, request_id: str, payload: Mapping[str, Any], time: datetime | str | None) -> Entry:
        with self.ledger.transaction():
            entries = self._entries_of(request_id)
            kinds = {entry.kind for entry in entries}
            if kind not in kinds:
                status = _status(entries)
                if status in CLOSED:  # a release now would change what the closing said
                    raise InputError(f"request {request_id!r} is closed; file a new request")
                if status not in ("granted", "released"):
                    raise InputError(f"request {request_id!r} is {status}, not granted: record a decision first")
            return self.ledger.append(kind, request_id, payload, time)

    def entries_of(self, request_id: str) -> list[Entry]:
        """All entries about a request, the one that filed it first; none where it was not filed."""
        own = [e for e in self.ledger.entries(prefix=request_id) if e.key.split("/")[0] == request_id]
        return own if own and own[0].kind == "request" else []

    def _entries_of(self, request_id: str) -> list[Entry]:
        if not (own := self.entries_of(request_id)):
            raise InputError(f"no request {request_id!r} was filed in the ledger {self.ledger.path}")
        return own


def _status(entries: list[Entry]) -> str:
    last = {entry.kind: entry for entry in entries}
    if END in last:
        return _STATUS_OF[last[END].payload["decision"]]
    if "fulfilment" in last:
        accepted = last["fulfilment"].payload.get("accepted", True) or ACCEPTANCE in last
        return "fulfilled" if accepted else NOT_ACCEPTED
    if "release" in last:
        return "released"
    return _STATUS_OF[last["decision"].payload["decision"]] if "decision" in last else "received"


def _row(entries: list[Entry]) -> dict[str, Any]:
    last = {entry.kind: entry for entry in entries}
    record = last["request"].payload
    decided = last.get(END) or last.get(ACCEPTANCE) or last.get("decision")
    decision = decided.payload if decided else {}
    return {
        "id": record["id"],
        "kinds": sorted({target["kind"] for target in record.get("targets", ())}),
        "status": _status(entries),
        **{name: record.get(name) for name in ("subject", "received", "due", "ground")},
        "filed": last["request"].time,
        "decision": decision.get("decision"),
        "decided": decided.time if decided else None,
        "reason": decision.get("reason"),
        "by": decision.get("by"),
        "released": last["release"].time if "release" in last else None,
        "fulfilled": last["fulfilment"].time if "fulfilment" in last else None,
        "supersedes": record.get("supersedes"),
    }
