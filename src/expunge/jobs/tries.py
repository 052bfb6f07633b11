"""Which ledger and journal all tries of a request share: whoever could change either could draw noise until it pleases."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import uuid4

from expunge.core.errors import InputError
from expunge.core.journal import Journal
from expunge.core.request import Request
from expunge.ledger import Ledger
from expunge.requests_book import BEGINNING, UNFINISHED, RequestBook

_FILED = "try"  # the stage of a journal that names it; written once the request is on the ledger
_EXCERPT = "excerpt"  # the stage that shows what the ledger said when the evidence was written


def on_record(request: Request, key: bytes, path: Path) -> tuple[Request, str | None, bool]:
    """The request as it was filed (its dates count, not today's), its status, and whether a run of it began and did not end.

    Raises:
        TamperedError: if the ledger does not verify.
        InputError: if it is no ledger, or the request was filed in a form that this one cannot be brought into.
    """
    identity = request.id(key)
    if not path.exists():
        return request, None, False
    with Ledger(path, create=True) as ledger:  # a crash may have left an empty file
        book = RequestBook(ledger)
        if not (entries := book.entries_of(identity)):
            return request, None, False
        filed = entries[0].payload
        request = replace(
            request, ground=filed["ground"], received=date.fromisoformat(filed["received"]),
            due=date.fromisoformat(filed["due"]),
        )  # fmt: skip
        if request.record(key) != filed:
            raise InputError(
                f"{path} has request {identity} with its targets in another order; name them in that order."
            )
        status, kinds = book.status_of(identity), {entry.kind for entry in entries}
        return request, status, status == "released" or (status in UNFINISHED and BEGINNING in kinds)


def must_be_the_same_ledger(journal: Journal, identity: str, path: Path) -> None:
    """Refuse a ledger that lacks what an earlier try of this run wrote into it; before anything is written into that one.

    Raises:
        InputError: if it is gone, or does not have the request.
        TamperedError: if it does not continue what the evidence shows of it.
    """
    if not journal.has(_FILED):
        return
    known = False
    if path.exists():
        with Ledger(path, create=True) as ledger:
            known = bool(RequestBook(ledger).entries_of(identity))
            if known and journal.has(_EXCERPT):
                ledger.extends(journal.once_json(_EXCERPT, dict))
    if not known:
        raise InputError(
            f"A try that was interrupted put request {identity} on the ledger {path}, which does not have it now. Restore that "
            f"ledger. Where it is lost, so is the proof of what was released: remove {journal.folder.parent} by hand, and file "
            "the request anew."
        )


def must_be_the_first(book: RequestBook, identity: str, journal: Journal, draws: bool) -> None:
    """Note that this journal has a request on the ledger, and on the ledger that it is this journal, if noise is drawn in it.

    Raises:
        InputError: where the request was begun in another one.
    """
    mine = journal.once_json(_FILED, lambda: uuid4().hex)
    if draws and book.begin(identity, mine).payload["journal"] != mine:
        raise begun_elsewhere(identity, journal.folder.parent)


def excerpt(journal: Journal, book: RequestBook, keys: list[str]) -> dict[str, object]:
    """What the ledger shows of ``keys``, once: two evidence folders of one request would differ in it."""
    return journal.once_json(_EXCERPT, lambda: book.ledger.excerpt(keys))


def begun_elsewhere(identity: str, folder: Path) -> InputError:
    """Whoever may draw noise again may choose which draw is released."""
    return InputError(
        f"Request {identity} was begun by another run, whose journal is not in {folder}: this run would draw noise a second "
        "time. If the other one is still at work, wait: it serves this request. If it stopped, run it again with its folder. "
        f"Where that folder is lost, record it: expunge requests supersede {identity}; the next run is then another request, "
        "and the ledger shows both."
    )
