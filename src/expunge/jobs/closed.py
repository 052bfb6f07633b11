"""A request that was carried out before: its evidence, verified, and what a person may still say of its result."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expunge.core.digest import digest_bytes, digest_file, digest_json
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import read_json
from expunge.core.journal import Journal
from expunge.jobs.places import Places
from expunge.jobs.releasing import Accepted
from expunge.jobs.summary import summary
from expunge.ledger import Ledger
from expunge.report.folder import EVIDENCE, REVIEWED, STATEMENT, as_json, write_accepted
from expunge.report.outcome import ACCEPTED_SINCE, is_accepted
from expunge.report.record import FORMAT
from expunge.report.signing import signing_key
from expunge.report.verify import verify_folder
from expunge.requests_book import CLOSED, NOT_ACCEPTED, RequestBook

_LOG = logging.getLogger(__name__)


def summary_of_closed(identity: str, places: Places, accepted: Accepted | None = None) -> dict[str, Any] | None:
    """The summary of a request that was carried out before, ``None`` for any other; nothing is done a second time.

    A result of which measuring cannot tell whether it forgets may be accepted now, if the job says who does and why: that is an
    entry of the ledger, and report, PDF and reply are written and signed again so that they say it too. Where this version
    did not make the evidence, the folder stays as it is.

    Args:
        identity: of the request, as the ledger knows it.

    Raises:
        InputError: if its evidence is not in the folder of ``places``.
        TamperedError: if what lies there does not verify any more, or the ledger does not.
    """
    ledger = places.ledger
    if not ledger.exists():
        return None
    with Ledger(ledger, create=True) as opened:  # a crash may have left an empty file
        book = RequestBook(opened)
        entries = {entry.kind: entry.payload for entry in book.entries_of(identity)}
        if "fulfilment" not in entries or (status := book.status_of(identity)) not in CLOSED:
            return None
        said = book.acceptance_of(identity)
    written = [entries["fulfilment"].get("evidence")]
    by = {name: said[name] for name in ("by", "reason") if said}
    if said.get("evidence"):
        written.append(said["evidence"])
        _finish(places, by, said["evidence"])
    record = _verified(identity, status, written, places)
    if said:
        record[ACCEPTED_SINCE] = by
    elif status == NOT_ACCEPTED and accepted is not None:
        person = asdict(accepted)
        record[ACCEPTED_SINCE] = person
        if is_accepted(record):
            told = {**read_json(places.out / EVIDENCE), ACCEPTED_SINCE: person}
            again = told["format"] == FORMAT and "files" in told
            with Ledger(ledger) as opened:
                digest = digest_bytes(as_json(told)) if again else None
                RequestBook(opened).accept(identity, accepted.by, accepted.reason, digest)
            if again:
                write_accepted(places.out, told)
            _LOG.warning("Request %s: %s accepted its result, which the ledger now says.", identity, accepted.by)
        else:
            _LOG.warning(
                "Request %s: what was measured is not undecidable, so that nobody's word accepts its result (accept).",
                identity,
            )
    for folder in places.private.glob("journal-*"):  # where a crash came between the last entry and the clearing
        with Journal(folder) as journal:
            journal.clear()
    _LOG.warning("Request %s was carried out already: this is its evidence, nothing was done again.", identity)
    return summary(record, places.out, ledger)


def again(identity: str, ledger: Path) -> str:
    """How the same request is made again where its result was not accepted, as a sentence."""
    return (
        f" To try another method or other settings instead, let the next run take its place: expunge requests "
        f"supersede {identity} --ledger {ledger} --by NAME --why REASON"
    )


def _finish(places: Places, person: Mapping[str, str], evidence: str) -> None:
    """Write pages that a crash left unwritten after the ledger said who accepted the result."""
    path = places.out / EVIDENCE
    if not path.is_file():
        return
    record = read_json(path)
    told = {**record, ACCEPTED_SINCE: dict(person)}
    if (record != told or not (places.out / STATEMENT).is_file()) and digest_bytes(as_json(told)) == evidence:
        write_accepted(places.out, told)


def _verified(identity: str, status: str, evidence: Sequence[str | None], places: Places) -> dict[str, Any]:
    """The record of the evidence in its folder, with what only the private folder has where that is there."""
    path, full = places.out / EVIDENCE, places.private / REVIEWED
    if not path.is_file() or not {digest_file(path), digest_json(read_json(path))} & {*evidence}:
        raise InputError(
            f"Request {identity} is {status} already for this model, and its evidence is not in {places.out}. Name the folder "
            f"that holds it.{again(identity, places.ledger) if status == NOT_ACCEPTED else ''}"
        )
    result = verify_folder(places.out, signing_key().public_key(), ledger=places.ledger)
    if not result.consistent:
        problems = "; ".join(f"{check.name}: {check.problem}" for check in result.checks if not check.ok)
        raise TamperedError(
            f"Request {identity} is {status} already, and its evidence in {places.out} does not verify: {problems[:1000]}. "
            "Restore the folder from a backup: its release is not made a second time."
        )
    record: Mapping[str, Any] = read_json(full if full.is_file() else path)
    return dict(record)
