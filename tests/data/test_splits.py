"""Parts drawn from a seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.data.rows import Rows
from expunge.data.splits import holdout_per_class, subset


def rows(labels, **columns):
    labels = np.asarray(labels)
    return Rows.of(torch.arange(len(labels), dtype=torch.float32)[:, None], labels, columns)


@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_check_16_the_split_of_another_seed_is_another_training_set(order):
    """SalUn's family trained on seed 1 and forgot on seed 2: 4,488 of 45,000 rows were never trained on."""
    labels = np.repeat(np.arange(10), 5_000)
    if order == "mixed":
        labels = np.random.default_rng(0).permutation(labels)
    (one, held_one), (two, held_two) = (holdout_per_class(rows(labels), 0.1, seed) for seed in (1, 2))
    assert len(one) == len(two) == 45_000
    assert held_one.y.bincount().tolist() == held_two.y.bincount().tolist() == [500] * 10
    assert len(np.setdiff1d(two.ids, one.ids)) == len(np.setdiff1d(one.ids, two.ids)) == 4_488
    again, _ = holdout_per_class(rows(labels), 0.1, 1)
    assert again.digest == one.digest


def test_both_parts_keep_ids_and_columns_and_make_the_whole():
    whole = rows(np.arange(60) % 3, who=np.arange(60) // 6)
    gone = whole.without(whole.select(Target("user", {"who": 4})))
    rest, held = holdout_per_class(gone, 0.25, 0)
    assert sorted([*rest.ids, *held.ids]) == [i for i in range(60) if i // 6 != 4]
    for part in (rest, held):
        assert part.x[:, 0].tolist() == part.ids.tolist()
        assert part.columns["who"].tolist() == (part.ids // 6).tolist()
        assert part.y.tolist() == (part.ids % 3).tolist()
    assert held.y.bincount().tolist() == [4, 4, 4], "4.5 of 18, rounded to the even neighbour"


def test_classes_of_different_size_each_give_their_share():
    _, held = holdout_per_class(rows([0] * 40 + [1] * 10 + [3] * 3), 0.3, 0)
    assert held.y.bincount().tolist() == [12, 3, 0, 1]


@pytest.mark.parametrize("settings", [{"count": 20}, {"per_class": 5}])
def test_a_subset_is_the_same_each_time_and_another_for_another_seed(settings):
    whole = rows(np.arange(60) % 4)
    part = subset(whole, **settings, seed=3)
    assert len(part) == 20 and part.ids.tolist() == sorted(part.ids) == part.x[:, 0].tolist()
    assert part.digest == subset(whole, **settings, seed=3).digest != subset(whole, **settings, seed=4).digest
    if "per_class" in settings:
        assert part.y.bincount().tolist() == [5] * 4


def test_every_row_is_drawn_sometimes():
    drawn = [subset(rows(np.arange(20) % 4), per_class=1, seed=seed).ids for seed in range(200)]
    assert np.bincount(np.concatenate(drawn), minlength=20).min() > 20  # 40 expected, spread 5.7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: holdout_per_class(data, 0, 0), "strictly between 0 and 1; got 0"),
        (lambda data: holdout_per_class(data, float("nan"), 0), "strictly between 0 and 1"),
        (lambda data: holdout_per_class(data, 0.95, 0), "of the 5 row.s. of class 0 leaves none"),
        (lambda data: holdout_per_class(data, 0.05, 0), "no row in any class; the largest has 5"),
        (subset, "both or neither"),
        (lambda data: subset(data, count=1, per_class=1), "both or neither"),
        (lambda data: subset(data, count=11), "from 1 to 10; got 11"),
        (lambda data: subset(data, per_class=0), "from 1 to 5, the size of class 0; got 0"),
    ],
)
def test_what_cannot_be_drawn(call, message):
    with pytest.raises(InputError, match=message):
        call(rows([0, 1] * 5))
