"""Requests that cannot be finished are abandoned, and those that did not end well are superseded, both on record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.jobs.identity import identified
from expunge.ledger import Ledger
from expunge.requests_book import RequestBook

RECORD = {"id": "q1", "subject": "a" * 64, "targets": [{"kind": "user", "rule": "r", "where": "b" * 64}]}
OTHER = {"subject": "c" * 64, "targets": []}
GRANT = {"decision": "grant", "reason": "asked", "by": "x", "matched": {"count": 1, "marks": ["m1"]}}
STEPS = {
    "received": (), "granted": ("grant",), "quarantined": ("grant", "quarantine"), "refused": ("refuse",),
    "withdrawn": ("withdraw",), "released": ("grant", "release"), "fulfilled": ("grant", "release", "fulfil"),
}  # fmt: skip


@pytest.fixture
def book(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        book = RequestBook(ledger)
        book.file_request(RECORD)
        yield book


def brought_to(book: RequestBook, status: str) -> RequestBook:
    for step in STEPS[status]:
        match step:
            case "grant":
                book.decide("q1", GRANT)
            case "release":
                book.release("q1", {"releases": []})
            case "fulfil":
                book.fulfil("q1", {"evidence": "e"})
            case _:
                book.decide("q1", {"decision": step, "reason": "r", "by": "x"})
    assert book.status_of("q1") == status
    return book


@pytest.mark.parametrize("status", ["received", "granted", "quarantined", "released"])
def test_what_was_not_finished_can_be_abandoned(book, status):
    brought_to(book, status).abandon("q1", "A. Clerk", "the weights are lost")
    row = book.requests()[0]
    assert (row["status"], row["by"], row["reason"]) == ("abandoned", "A. Clerk", "the weights are lost")
    assert row["decided"] and book.ending_of("q1")["decision"] == "abandon"
    with pytest.raises(InputError, match="is abandoned, not granted"):
        book.fulfil("q1", {"evidence": "e"})
    for word in ("grant", "withdraw"):
        with pytest.raises(InputError, match="already abandoned"):
            book.decide("q1", {"decision": word, "reason": "again", "by": "y"})


@pytest.mark.parametrize("status", ["refused", "withdrawn", "fulfilled"])
def test_what_came_to_an_end_cannot_be_abandoned(book, status):
    with pytest.raises(InputError, match=f"is {status}: only a request that was not finished"):
        brought_to(book, status).abandon("q1", "x", "y")
    assert book.status_of("q1") == status


@pytest.mark.parametrize("status", ["granted", "quarantined", "released"])
def test_what_was_tried_can_be_superseded_also_after_it_was_abandoned(book, status):
    brought_to(book, status).abandon("q1", "x", "y")
    book.supersede("q1", "x", "another method")
    assert book.status_of("q1") == "superseded"
    with pytest.raises(InputError, match="is superseded"):
        book.abandon("q1", "x", "y")


@pytest.mark.parametrize("status", ["received", "refused", "withdrawn", "fulfilled"])
def test_what_was_not_tried_or_ended_well_is_not_superseded(book, status):
    with pytest.raises(InputError, match=f"is {status}: only a request that was tried"):
        brought_to(book, status).supersede("q1", "x", "y")


def test_saying_it_twice_is_one_entry(book):
    first = brought_to(book, "granted").abandon("q1", "x", "y")
    assert book.abandon("q1", "x", "y") == first
    assert sum(entry.kind == "end" for entry in book.ledger.entries()) == 1


@pytest.mark.parametrize("status, kept", [("received", []), ("granted", ["q1"]), ("released", ["q1"])])
def test_an_abandoned_request_that_was_granted_keeps_the_person_out(book, status, kept):
    brought_to(book, status).abandon("q1", "x", "y")
    assert [item.request for item in book.granted(OTHER)] == kept
    if kept:
        book.supersede("q1", "x", "y")
        assert [item.request for item in book.granted(OTHER)] == kept


# --- the request in its place -----------------------------------------------------------------------------------------

REQUEST, KEY = Request("Jo", (Target("user", {"person": 17}),)), b"k" * 32


def filed(book: RequestBook, request: Request) -> str:
    book.file_request(request.record(KEY))
    book.decide(request.id(KEY), GRANT)
    return request.id(KEY)


def test_each_request_in_the_place_of_another_has_an_id_of_its_own(tmp_path):
    path, seen = tmp_path / "ledger.sqlite", []
    for _ in range(3):
        now = identified(REQUEST, "", KEY, path)
        assert identified(now, "", KEY, path) == now
        with Ledger(path, create=True) as ledger:
            book = RequestBook(ledger)
            seen.append(filed(book, now))
            book.supersede(seen[-1], "x", "did not forget")
            rows = book.requests()
    assert len(set(seen)) == 3 and [row["supersedes"] for row in rows] == [None, *seen[:2]]
    assert all(row["subject"] == rows[0]["subject"] and row["id"].startswith(seen[0]) for row in rows)
    assert "supersedes" not in REQUEST.record(KEY), "records of other requests are as they were"
    assert replace(REQUEST, supersedes="x").id(KEY) != replace(REQUEST, model="y").id(KEY) != REQUEST.id(KEY)


def test_an_abandoned_request_is_not_run_again(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, create=True) as ledger:
        name = filed(book := RequestBook(ledger), REQUEST)
        book.abandon(name, "A. Clerk", "the disk is gone")
    with pytest.raises(RefusedError, match=r"abandoned by A. Clerk: the disk is gone.*supersede req-"):
        identified(REQUEST, "", KEY, path)
