"""A request that was carried out before: its evidence, verified, and what a person may still say of its result."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expunge.core.digest import digest_bytes, digest_json
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import must_be_private, parse_json, read_json
from expunge.core.journal import Journal
from expunge.jobs.places import Places
from expunge.jobs.releasing import Accepted
from expunge.jobs.summary import summary
from expunge.ledger import Ledger
from expunge.report import pdf as portable
from expunge.report.acceptance import as_accepted, as_delivered, signature, signed_by
from expunge.report.folder import EVIDENCE, REVIEWED, STATEMENT, as_json, write_accepted
from expunge.report.outcome import ACCEPTED_SINCE, is_accepted
from expunge.report.record import FORMAT
from expunge.report.shown import name_of, shown
from expunge.report.signing import signing_key, verify
from expunge.report.verify import verify_folder
from expunge.report.verify.pages import other_version, same_machine
from expunge.requests_book import CLOSED, NOT_ACCEPTED, RequestBook

_LOG = logging.getLogger(__name__)
Record = Mapping[str, Any]


def summary_of_closed(identity: str, places: Places, accepted: Accepted | None = None) -> dict[str, Any] | None:
    """The summary of a request that was carried out before, ``None`` for any other; nothing is done a second time.

    A result of which measuring cannot tell whether it forgets may be accepted now, if the job says who does and why: that is an
    entry of the ledger, and report, PDF and reply are written and signed again so that they say it too. Where this version on
    this kind of machine did not make the evidence, the folder stays as it is. Nothing is signed but what the signature of
    before vouches for: ledgers and folders can be made by anybody.

    Args:
        identity: of the request, as the ledger knows it.

    Raises:
        InputError: if its evidence is not in the folder of ``places``, or has a PDF that cannot be made here.
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
    if said.get("evidence"):
        _finish(identity, places, said)
    written = [entries["fulfilment"].get("evidence"), said.get("evidence")]
    record, digest = _verified(identity, status, written, places)
    whole = _whole(places, record)
    if said:
        record = as_accepted(record, said)
        if accepted is not None and asdict(accepted) != record[ACCEPTED_SINCE]:
            _LOG.warning(
                "Request %s: %s accepted its result before; accept in the job changes nothing.", identity, said["by"]
            )
    elif status == NOT_ACCEPTED and accepted is not None:
        told = as_accepted(record, asdict(accepted))
        if is_accepted(told):
            _accept(identity, places, told, digest, whole)
            record = told
        else:
            _LOG.warning(
                "Request %s: what was measured is not undecidable, so that nobody's word accepts its result (accept).",
                identity,
            )
    for folder in places.private.glob("journal-*"):  # where a crash came between the last entry and the clearing
        with Journal(folder) as journal:
            journal.clear()
    _LOG.warning("Request %s was carried out already: this is its evidence, nothing was done again.", identity)
    since = {ACCEPTED_SINCE: record[ACCEPTED_SINCE]} if ACCEPTED_SINCE in record else {}
    return summary({**(whole or record), **since}, places.out, ledger)


def _accept(identity: str, places: Places, record: Record, delivered: str, whole: Record | None) -> None:
    """Put on the ledger who accepts the record, and write its pages anew where this version made them here.

    Args:
        record: verified, with who accepts it. delivered: digest of the record without that.
    """
    if rewritten := record["format"] == FORMAT and "files" in record:
        if record["pdf"] and not portable.available():
            raise InputError(
                f"{places.out} has a report.pdf, which is to say who accepted the result. Install the extra pdf and repeat "
                "this."
            )
        rewritten = not other_version(record) and same_machine(record, *(("typst",) if record["pdf"] else ()))
    person, key = record[ACCEPTED_SINCE], signing_key()
    digest = digest_bytes(as_json(record)) if rewritten else delivered
    with Ledger(places.ledger) as opened:
        word = signature(identity, person, digest, key)
        RequestBook(opened).accept(identity, person["by"], person["reason"], evidence=digest, signature=word)
    if rewritten:
        write_accepted(places.out, record, whole)
    else:
        _LOG.warning("Another version, or another machine, made %s: its pages stay as they are.", places.out)
    _LOG.warning("Request %s: %s accepted its result, which the ledger now says.", identity, person["by"])


def again(identity: str, ledger: Path) -> str:
    """How the same request is made again where its result was not accepted, as a sentence."""
    return (
        f" To try another method or other settings instead, let the next run take its place: expunge requests "
        f"supersede {identity} --ledger {ledger} --by NAME --why REASON"
    )


def _finish(identity: str, places: Places, said: Record) -> None:
    """Write pages that a crash left unwritten after the ledger said who accepted the result.

    Both the entry of the ledger and the record must bear this installation's signature, the record in the statement of before:
    else whoever can write the folder could have a crash of his own making repaired into evidence that its owner signs.
    """
    path = places.out / EVIDENCE
    if not path.is_file() or not isinstance(found := read_json(path), dict):
        return
    told = as_accepted(found, said)
    if digest_bytes(as_json(told)) != said["evidence"]:  # of another request, or of before, which stays as it is
        return
    try:
        envelope = read_json(places.out / STATEMENT)
        signed = verify(envelope, signing_key().public_key())["subject"]
    except (InputError, TamperedError) as error:
        raise TamperedError(
            f"Request {identity} was accepted, and {places.out / STATEMENT} is not this installation's ({error}), so that "
            "nothing vouches for what lies there. Restore the folder from a backup, or from a copy that was handed out."
        ) from None
    named = {item["name"]: item["digest"]["sha256"] for item in signed}.get(EVIDENCE)
    if named == said["evidence"]:
        return  # nothing is unfinished
    if named != digest_bytes(as_json(as_delivered(found))) or not signed_by(identity, said, signing_key()):
        raise TamperedError(
            f"Request {identity} was accepted, as the ledger says, and this installation signed neither that nor the record "
            f"that lies in {places.out}. Restore folder and ledger from a backup."
        )
    write_accepted(places.out, told, _whole(places, told))


def _verified(identity: str, status: str, evidence: Sequence[str | None], places: Places) -> tuple[dict[str, Any], str]:
    """The record in the evidence folder, after every check of ``expunge verify``, and the digest of its file."""
    path = places.out / EVIDENCE
    content = path.read_bytes() if path.is_file() else b""
    record = parse_json(content, str(path)) if content else None
    if not isinstance(record, dict) or not {digest_bytes(content), digest_json(record)} & {*evidence}:
        raise InputError(
            f"Request {identity} is {status} already for this model, and its evidence is not in {places.out}. Name the folder "
            f"that holds it.{again(identity, places.ledger) if status == NOT_ACCEPTED else ''}"
        )
    result = verify_folder(places.out, signing_key().public_key(), ledger=places.ledger)
    problems = [f"{check.name}: {check.problem}" for check in result.checks if not check.ok]
    if result.evidence != digest_bytes(content):
        problems.append(f"{EVIDENCE} changed while it was checked")
    if problems:
        raise TamperedError(
            f"Request {identity} is {status} already, and its evidence in {places.out} does not verify: "
            f"{'; '.join(problems)[:1000]}. Restore the folder from a backup: its release is not made a second time."
        )
    return record, result.evidence


def _whole(places: Places, record: Record) -> dict[str, Any] | None:
    """What only the private folder has; ``None`` where that is gone, or was written by another version.

    Raises:
        TamperedError: where it is not the whole of ``record``.
    """
    path = places.private / REVIEWED
    if not path.is_file():
        return None
    must_be_private(places.private)
    whole = read_json(path)
    try:
        if name_of(shown(whole, record["private_below"])) == name_of(record):
            return whole
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    if other_version(record):
        _LOG.warning("%s is of another version and is not read: the summary is that of what may be shown.", path)
        return None
    raise TamperedError(
        f"{path} is not the review of the evidence in {places.out}, which is in order. Restore the private folder from a "
        "backup, or move it away."
    )
