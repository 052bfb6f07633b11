"""Names of the request that stand in titles, file names and columns."""

from __future__ import annotations

import pytest

from expunge.core.request import Request, Target

KEY = b"k" * 32


def names(subject="Maria Gonzalez", **where):
    return Request(subject, (Target("user", where or {"patient": "P-66"}),)).names(KEY)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Deletion for Maria Gonzalez", "Deletion for (name "),
        ("maria_gonzalez.csv", "(name "),
        ("Maria's request", "(name "),
        ("for p-66, again", "for (name "),
        ("scan-P_66-old.csv", "scan-(name "),
    ],
)
def test_a_name_is_hidden_however_it_is_written(text, left):
    shown = names().hide(text)
    assert shown.startswith(left)
    assert not {"maria", "gonzalez", "66"} & set(shown.lower().replace("-", " ").replace("_", " ").split())


@pytest.mark.parametrize("text", ["Mariana", "xP-66x", "patient 66a", "heart disease, 17 patients", "P 6"])
def test_only_whole_words_are_hidden(text):
    assert names().hide(text) == text


def test_a_small_number_and_a_word_of_the_columns_name_nobody():
    request = names("person 17", person=17)
    assert request.hide("one person of 17") == "one person of 17"
    assert request.hide("for person 17").startswith("for (name ")
    assert request.hide("person") == "person"


def test_equal_names_get_equal_hashes_and_other_keys_other_ones():
    request = Request("Maria Gonzalez", (Target("user", {"patient": "P-66"}),))
    assert request.names(KEY).hide("Maria") == request.names(KEY).hide("MARIA")
    assert request.names(KEY).hide("Maria") != request.names(b"other" * 7).hide("Maria")


def test_the_record_of_a_request_names_nobody():
    request = Request("Ann Lee", (Target("user", {"ann": "x1"}),), ground="Ann Lee asked")
    assert "ann" not in str(request.record(KEY)).lower()
