"""Requests in a ledger: list, show, add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError
from expunge.core.files import read_json, write_atomic
from expunge.core.keys import subject_key
from expunge.core.request import Request, Target
from expunge.data.marks import mark_of
from expunge.jobs.due import due_within
from expunge.jobs.yaml_files import read_value
from expunge.ledger import Ledger
from expunge.modalities.id_files import with_ids
from expunge.report.checkpoint import checkpoint, opened
from expunge.report.folder import EXCERPT, as_json
from expunge.report.signing import signing_key
from expunge.requests_book import RequestBook


def list_requests(path: Path, due: str | None = None) -> list[dict[str, Any]]:
    """All requests of a ledger with their status; with ``due`` (``7d``) those that are open and due within that time.

    Raises:
        InputError: for a time that cannot be read.
    """
    with Ledger(path) as ledger:
        rows = RequestBook(ledger).requests()
    return rows if due is None else due_within(rows, due)


def requests_about(path: Path, kind: str, where: Sequence[str]) -> list[dict[str, Any]]:
    """The granted requests of a ledger that cover somebody, by columns and values as a target names them: whether a person of
    a batch was forgotten can be asked without naming the others.

    Raises:
        InputError: as :func:`add_request`; for single examples, which are recognised by content alone.
    """
    mark = mark_of(Target(kind, _where(where, "--about", as_written=True)), subject_key())
    with Ledger(path) as ledger:
        book = RequestBook(ledger)
        covering = {item.request for item in book.granted({}) if mark in item.marks}
        return [row for row in book.requests() if row["id"] in covering]


def show_request(path: Path, identity: str) -> dict[str, Any]:
    """One request and every entry about it; raises InputError where the ledger has no such request."""
    with Ledger(path) as ledger:
        rows = {row["id"]: row for row in RequestBook(ledger).requests()}
        if identity not in rows:
            known = ", ".join(rows) or "none"
            raise InputError(f"The ledger has no request {identity!r}; it has {known}.")
        own = [entry for entry in ledger.entries(prefix=identity) if entry.key.split("/")[0] == identity]
        entries = [entry.record() for entry in own]
    return {"request": rows[identity], "entries": entries}


def add_request(
    path: Path, subject: str, kind: str, where: Sequence[str], ground: str, received: str | None, due: str | None,
    where_file: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """File a request; the same one again is the same entry.

    Args:
        where_file: ``column=people.csv``: the values of a column, from a file.

    Raises:
        InputError: for an unknown kind, a ``where`` that is not column=value or that YAML understands as something else
            than is written, or a date that is none.
    """
    stated = _where(where)
    for item in where_file:
        column, equals, name = item.partition("=")
        if not equals or column in stated:
            raise InputError(
                f"Expected --where-file column=people.csv, for a column that is named once; got {item!r:.80}."
            )
        stated[column] = {"file": name}
    place = with_ids(kind, stated, Path.cwd())
    days = {name: _day(name, text) for name, text in (("received", received), ("due", due)) if text}
    request = Request(subject, (Target(kind, place),), ground, days.get("received", date.today()), days.get("due"))
    key = subject_key()
    identity = request.id(key)
    with Ledger(path, create=not path.exists()) as ledger:
        book = RequestBook(ledger)
        rows = {row["id"]: row for row in book.requests()}
        if identity not in rows:
            book.file_request(request.record(key))
            rows = {row["id"]: row for row in book.requests()}
    return rows[identity]


def approve_request(path: Path, identity: str, by: str, why: str) -> dict[str, Any]:
    """Record that a person lets a request be carried out; see :meth:`~expunge.requests_book.RequestBook.approve`.

    Raises:
        InputError: where the ledger has no such request, or it is neither received nor held back.
    """
    return _ended(path, identity, lambda book: book.approve(identity, by, why))


def reject_request(path: Path, identity: str, by: str, why: str) -> dict[str, Any]:
    """Record that a person refuses a request; see :meth:`~expunge.requests_book.RequestBook.reject`.

    Raises:
        InputError: where the ledger has no such request, or something was released for it already.
    """
    return _ended(path, identity, lambda book: book.reject(identity, by, why))


def withdraw_request(path: Path, identity: str, by: str, why: str) -> dict[str, Any]:
    """Record that a request was withdrawn, before anything was released for it.

    Raises:
        InputError: where the ledger has no such request, or something was released for it already.
    """
    return _ended(path, identity, lambda book: book.withdraw(identity, by, why))


def abandon_request(path: Path, identity: str, by: str, why: str) -> dict[str, Any]:
    """Record that a request will not be finished; see :meth:`~expunge.requests_book.RequestBook.abandon`.

    Raises:
        InputError: where the ledger has no such request, or it came to an end already.
    """
    return _ended(path, identity, lambda book: book.abandon(identity, by, why))


def supersede_request(path: Path, identity: str, by: str, why: str) -> dict[str, Any]:
    """Record that the next run of the same job is another request in the place of this one; see
    :meth:`~expunge.requests_book.RequestBook.supersede`.

    Raises:
        InputError: where the ledger has no such request, or it needs no other one in its place.
    """
    return _ended(path, identity, lambda book: book.supersede(identity, by, why))


def _ended(path: Path, identity: str, end: Callable[[RequestBook], Any]) -> dict[str, Any]:
    with Ledger(path) as ledger:
        book = RequestBook(ledger)
        end(book)
        return next(item for item in book.requests() if item["id"] == identity)


def write_checkpoint(path: Path, out: Path, since: Sequence[Path]) -> dict[str, Any]:
    """Sign length and root of a ledger and write them to ``out``; returns what was signed.

    Args:
        since: evidence folders whose excerpts the checkpoint shall prove to continue.

    Raises:
        InputError: where a folder's excerpt has no root, or is not of this ledger.
    """
    with Ledger(path) as ledger:
        lengths = []
        for folder in since:
            excerpt = read_json(folder / EXCERPT)
            ledger.extends(excerpt)
            lengths.append(excerpt["length"])
        envelope = checkpoint(ledger, signing_key(), since=lengths)
    write_atomic(out, as_json(envelope))
    return opened(envelope, None)


def _where(items: Sequence[str], option: str = "--where", *, as_written: bool = False) -> dict[str, Any]:
    """Columns and their values, each column once.

    Args:
        as_written: take a value that YAML reads as another one than is written for the text that it is: nobody is forgotten by
            a question.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"Expected {option} column=value; got {item!r}.")
        if name in found:
            raise InputError(
                f"{option} names {name!r} twice. Name several at once as a list: {option} '{name}=[…, …]'."
            )
        try:
            found[name] = read_value(value, f"{option} {name}")
        except InputError:
            if not as_written:
                raise
            found[name] = value
    return found


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"Expected --{name} as YYYY-MM-DD; got {text!r}.") from None
