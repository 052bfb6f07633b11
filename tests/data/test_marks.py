"""Examples that an earlier request removed are recognised in later data, and nobody else is."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core.data import Deletion
from expunge.core.request import Request, Target
from expunge.data.marks import marks_of, recognised
from expunge.data.rows import Rows
from expunge.data.texts import Texts

KEY = b"k" * 32
X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = [0, 0, 1, 1, 2, 2]


def rows(order=range(6), **columns):
    order = list(order)
    return Rows.of(X[order], np.array(Y)[order], {name: [values[i] for i in order] for name, values in columns.items()})


def marks(data, *targets):
    request = Request("someone", targets)
    return marks_of(Deletion.of(data, request), targets, KEY)


def test_a_user_is_recognised_at_other_places_and_among_new_rows():
    data = rows(patient=["a", "b", "a", "c", "c", "b"])
    kept = marks(data, Target("user", {"patient": "a"}))
    later = rows([5, 2, 0, 3], patient=["a", "b", "a", "c", "c", "b"])  # b, a, a, c
    assert recognised(later, kept, KEY)["row"].tolist() == [1, 2]
    assert not len(recognised(rows(nurse=["a"] * 6), kept, KEY))  # another column names other people
    assert not len(recognised(later, kept, b"other" * 7))


def test_each_value_of_a_list_is_recognised_by_itself_and_columns_only_together():
    data = rows(patient=[1, 2, 1, 2, 3, 3], site=["x", "x", "y", "y", "x", "y"])
    kept = marks(data, Target("user", {"patient": [1, 2], "site": "x"}))
    assert recognised(data, kept, KEY)["row"].tolist() == [0, 1]


def test_numbers_and_their_texts_are_one_user():
    kept = marks(rows(patient=[1, 2, 1, 2, 3, 3]), Target("user", {"patient": "1"}))
    assert recognised(rows(patient=["1", "2", "3", "1", "01", "1.0"]), kept, KEY)["row"].tolist() == [0, 3]


def test_a_record_about_two_people_is_recognised_by_the_one_who_asked():
    texts = Texts.of(
        [{"text": "one"}, {"text": "two"}, {"text": "three"}], {"about": [["ann", "bob"], ["bob"], ["cy"]]}
    )
    kept = marks(texts, Target("user", {"about": "ann"}))
    assert recognised(texts, kept, KEY)["row"].tolist() == [0]
    other = Texts.of([{"text": "new"}, {"text": "two"}], {"about": [["ann"], ["bob"]]})
    assert recognised(other, kept, KEY)["row"].tolist() == [0]


def test_single_examples_are_recognised_by_their_content():
    kept = marks(rows(), Target("samples", {"ids": [1, 4]}))
    assert recognised(rows([4, 0, 1]), kept, KEY)["row"].tolist() == [0, 2]
    other = Rows.of(X + 1, Y)
    assert not len(recognised(other, kept, KEY))


@pytest.mark.parametrize("names", [(), ("cat", "dog", "fox")])
def test_a_class_is_recognised_by_its_name(names):
    data = Rows.of(X, Y, names=names)
    kept = marks(data, Target("class", {"label": 1}))
    assert recognised(data, kept, KEY)["row"].tolist() == [2, 3]


def test_marks_name_nobody_and_are_few():
    data = rows(patient=["a", "b", "a", "c", "c", "b"])
    kept = marks(data, Target("user", {"patient": "a"}), Target("class", {"label": 2}))
    assert len(kept) == 2 and all(set(mark) <= set("0123456789abcdef") and len(mark) == 20 for mark in kept)
