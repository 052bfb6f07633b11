"""Which request on a ledger a job's request is: on a second model, or in the place of a superseded one, it is another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from expunge.core.digest import keyed_hash
from expunge.core.errors import RefusedError
from expunge.core.request import Request
from expunge.ledger import Ledger
from expunge.requests_book import RequestBook


def identified(request: Request, model: str, key: bytes, path: Path | None) -> Request:
    """``request`` under the id that the ledger at ``path`` knows it by, or will know it by. Asking again changes nothing.

    Args:
        model: tells the models of the ledger apart; empty where it belongs to one model.

    Raises:
        RefusedError: for a request that was abandoned.
        InputError, TamperedError: for a ledger that cannot be used.
    """
    if path is None or not path.exists():
        return request
    with Ledger(path, create=True) as ledger:  # a crash may have left an empty file
        book = RequestBook(ledger)
        if model and book.model_of(request.id(key)) not in (None, keyed_hash(key, model)):
            request = replace(request, model=model)
        known = {row["id"]: row["status"] for row in book.requests()}
        while known.get(request.id(key)) == "superseded":
            request = replace(request, supersedes=request.id(key))
        if known.get(identity := request.id(key)) == "abandoned":
            end = book.ending_of(identity)
            raise RefusedError(
                f"Request {identity} was abandoned by {end['by']}: {end['reason']}. To carry it out in another way, put it on "
                f"record first: expunge requests supersede {identity} --ledger {path} --by … --why …"
            )
    return request


def approved_on(path: Path, identity: str) -> str | None:
    """Who approved a request on the ledger at ``path`` after it was held back; ``None`` where nobody did."""
    if not path.exists():
        return None
    with Ledger(path, create=True) as ledger:
        return RequestBook(ledger).approval_of(identity)
