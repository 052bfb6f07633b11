"""Whoever withdraws a request before anything was released is kept out of nothing any more."""

from __future__ import annotations

import pytest

from expunge.core.errors import InputError
from expunge.ledger import Ledger
from expunge.requests_book import RequestBook

RECORD = {"id": "q1", "subject": "a" * 64, "targets": [{"kind": "user", "rule": "r", "where": "b" * 64}]}
OTHER = {"subject": "c" * 64, "targets": []}


@pytest.fixture
def book(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        book = RequestBook(ledger)
        book.file_request(RECORD)
        yield book


def grant(book, marks=("m1",)):
    book.decide("q1", {"decision": "grant", "reason": "asked", "by": "x", "matched": {"count": 1, "marks": [*marks]}})


def marks_kept(book, but=OTHER):
    return [(item.request, item.marks) for item in book.granted(but)]


def test_only_granted_requests_keep_examples_out(book):
    assert marks_kept(book) == []
    grant(book)
    assert marks_kept(book) == [("q1", ("m1",))]
    book.decide("q1", {"decision": "quarantine", "reason": "void", "by": "x"})
    assert marks_kept(book) == [("q1", ("m1",))]  # its result is held back; the person is not learnt again meanwhile


@pytest.mark.parametrize("word", ["refuse", "withdraw"])
def test_a_request_that_was_refused_or_withdrawn_keeps_nothing_out(book, word):
    grant(book)
    book.decide("q1", {"decision": word, "reason": "said so", "by": "x"})
    assert marks_kept(book) == []


def test_what_was_released_cannot_be_withdrawn(book):
    grant(book)
    book.release("q1", {"releases": []})
    with pytest.raises(InputError, match="already released"):
        book.withdraw("q1", "x", "no longer asks")
    assert marks_kept(book) == [("q1", ("m1",))]


def test_a_request_keeps_nothing_out_of_its_own_run(book):
    grant(book)
    assert marks_kept(book, RECORD) == []


def test_a_request_of_a_version_without_marks_is_named(book):
    book.decide("q1", {"decision": "grant", "reason": "asked", "by": "x", "matched": {"count": 1, "ids": ["0" * 20]}})
    assert [(item.request, item.marked) for item in book.granted(OTHER)] == [("q1", False)]
