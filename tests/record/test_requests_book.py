from __future__ import annotations

import pytest

from expunge.core.digest import keyed_hash
from expunge.core.errors import InputError
from expunge.ledger import Ledger
from expunge.requests_book import STATUSES, RequestBook

GRANT = {"decision": "grant", "by": "officer-3", "method": "r2d"}
HASH = keyed_hash(b"k", "patient-17")
RECORD = {
    "id": "q1",
    "subject": HASH,
    "ground": "GDPR Art. 17(1)(b)",
    "received": "2026-11-01",
    "due": "2026-12-01",
    "targets": [{"kind": "user", "where": HASH}, {"kind": "class"}, {"kind": "user"}],
}


@pytest.fixture
def book(tmp_path):
    with Ledger(tmp_path / "ledger.db", create=True) as ledger:
        yield RequestBook(ledger)


def test_the_life_of_a_request(book):
    statuses = []
    book.file_request(RECORD)
    statuses.append(book.status_of("q1"))
    book.decide("q1", {"decision": "quarantine", "by": "screening"})
    statuses.append(book.status_of("q1"))
    book.decide("q1", {"decision": "refuse", "reason": "not over yet", "by": "officer-3"})
    statuses.append(book.status_of("q1"))
    book.decide("q1", GRANT)
    statuses.append(book.status_of("q1"))
    book.release("q1", {"model": "0" * 64})
    statuses.append(book.status_of("q1"))
    book.fulfil("q1", {"evidence": "1" * 64})
    statuses.append(book.status_of("q1"))
    assert statuses == ["received", "quarantined", "refused", "granted", "released", "fulfilled"]
    assert {*statuses, "withdrawn", "delivered-not-accepted", "abandoned", "superseded"} == set(STATUSES)
    [row] = book.requests()
    assert row["kinds"] == ["class", "user"]
    assert (row["received"], row["due"], row["ground"]) == ("2026-11-01", "2026-12-01", "GDPR Art. 17(1)(b)")
    assert (row["decision"], row["by"], row["reason"]) == ("grant", "officer-3", None)
    assert row["filed"] <= row["decided"] <= row["released"] <= row["fulfilled"]
    assert book.ledger.head()[0] == 6


def test_what_was_delivered_and_not_accepted_is_closed_and_not_fulfilled(book):
    book.file_request(RECORD)
    matched = {"count": 1, "ids": ["0" * 64], "marks": ["a" * 20]}
    book.decide("q1", {**GRANT, "matched": matched})
    book.release("q1", {"model": "0" * 64})
    book.fulfil("q1", {"evidence": "1" * 64, "accepted": False})
    assert book.status_of("q1") == "delivered-not-accepted"
    with pytest.raises(InputError):
        book.decide("q1", {"decision": "withdraw", "by": "clerk"})
    (granted,) = book.granted({})
    assert granted.marks == ("a" * 20,), "who asked stays out of later training all the same"


def test_a_resumed_run_repeats_every_step_for_nothing(book):
    def life():
        book.file_request(RECORD)
        book.decide("q1", GRANT | {"models": ("m1", "m2")})
        book.release("q1", {"model": "0" * 64})
        book.fulfil("q1", {"evidence": "1" * 64})
        return book.ledger.head()

    assert life() == life() == (4, book.ledger.head()[1])


def test_a_decision_may_return_to_an_earlier_one(book):
    book.file_request(RECORD)
    refuse = {"decision": "refuse", "reason": "r"}
    for decision in (GRANT, refuse, GRANT):
        book.decide("q1", decision)
    assert book.status_of("q1") == "granted"
    assert [entry.key for entry in book.ledger.entries(kind="decision")] == ["q1/1", "q1/2", "q1/3"]


def test_steps_out_of_order_are_refused(book):
    for step in (book.decide, book.release, book.fulfil):
        with pytest.raises(InputError, match="no request 'q1'"):
            step("q1", GRANT)
    with pytest.raises(InputError, match="no request"):
        book.status_of("q1")
    book.file_request(RECORD)
    with pytest.raises(InputError, match="received, not granted"):
        book.release("q1", {})
    book.decide("q1", {"decision": "refuse"})
    with pytest.raises(InputError, match="refused, not granted"):
        book.fulfil("q1", {})
    book.decide("q1", GRANT)
    book.release("q1", {"model": 1})
    with pytest.raises(InputError, match="another content"):
        book.release("q1", {"model": 2})
    with pytest.raises(InputError, match="can no longer change"):
        book.decide("q1", {"decision": "refuse"})
    book.fulfil("q1", {})
    with pytest.raises(InputError, match="another content"):
        book.fulfil("q1", {"more": 1})


def test_closed_without_a_release_stays_closed(book):
    book.file_request(RECORD)
    book.decide("q1", GRANT)
    book.fulfil("q1", {"reason": "the model never saw the data"})
    with pytest.raises(InputError, match="closed"):
        book.release("q1", {})


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "patient-17"},
        {"targets": [{"kind": "user", "where": {"patient": 17}}]},
        {"targets": [{"where": HASH}]},
        {"targets": {"kind": "user"}},
        {"id": "q/1"},
        {"id": "Jane Doe"},
        {"id": 7},
    ],
)
def test_a_person_in_clear_never_enters(book, change):
    with pytest.raises(InputError):
        book.file_request(RECORD | change)
    assert book.ledger.head()[0] == 0


def test_a_decision_is_one_of_three_words(book):
    book.file_request(RECORD)
    for word in ("granted", "refused", None):
        with pytest.raises(InputError, match="one of grant, refuse, quarantine"):
            book.decide("q1", {"decision": word})


def test_ids_that_begin_alike_stay_apart(book):
    for number in ("q1", "q10", "q1:0"):
        book.file_request(RECORD | {"id": number})
    book.decide("q10", GRANT)
    assert [book.status_of(number) for number in ("q1", "q10", "q1:0")] == ["received", "granted", "received"]
    assert [row["id"] for row in book.requests()] == ["q1", "q10", "q1:0"]
    assert len([e for e in book.ledger.excerpt(["q10"])["entries"] if "payload" in e]) == 2
