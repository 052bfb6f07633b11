"""What a reader established of its rows is not said of rows that were changed since: it is then somebody's word."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import expunge
from cases import samples
from expunge import Budget, Request, Rows, Target
from expunge.core.certificate import Status, Verdict
from expunge.core.data import Ids
from expunge.core.errors import RefusedError
from expunge.core.trained import Fact, Origin
from expunge.data.texts import Texts
from expunge.training.facts import prepared

from .worlds import forget, head, never_certified, not_holding, published, r2d, rows


def standardised(x):
    return (x - x.mean(0)) / x.std(0)


def in_place(data):
    data.x.copy_(standardised(data.x))
    return data


def through_numpy(data):
    data.x.numpy()[:] = standardised(data.x).numpy()  # which PyTorch's own version counter does not see
    return data


def after_a_digest(data):
    assert data.digest
    return in_place(data)


def labels_of_neighbours(data):
    return replace(data, y=data.y.roll(1))


CHANGES = {
    "replaced": lambda data: replace(data, x=standardised(data.x)),
    "typed in": lambda data: replace(Rows.of(standardised(data.x), data.y), preprocessing=data.preprocessing),
    "handed on": lambda data: Rows.of(standardised(data.x), data.y, data.columns, preprocessing=data.preprocessing),
    "in another type": lambda data: replace(data, x=standardised(data.x)).to("cpu", torch.float32),
    "a part of it": lambda data: replace(data, x=standardised(data.x)).without(Ids.rows([0])),
    "rows in another order": lambda data: replace(data, x=data.x.flip(0)),
    "in place": in_place,
    "through numpy": through_numpy,
    "after a digest": after_a_digest,
    "labels": labels_of_neighbours,
}


def known(data):
    return prepared(data)["preprocessing"].origin


@pytest.mark.parametrize("change", CHANGES)
def test_rows_that_were_changed_before_training_are_never_certified(change):
    data = CHANGES[change](rows(outlier=3.0))
    outcome = forget(published(head(), data), r2d())
    assert not_holding(outcome)["preprocessing"] is Status.UNCHECKED
    never_certified(outcome)


@pytest.mark.parametrize("method", [r2d(), expunge.methods.Retrain()], ids=lambda method: method.name)
@pytest.mark.parametrize("part", ["before", "after"])
def test_rows_that_were_changed_after_publishing_are_never_certified(part, method):
    data = rows(outlier=3.0)
    trained = published(head(), data, method=method)
    if part == "before":
        in_place(data)
        outcome = forget(trained, method)
    else:
        plan = expunge.plan(trained, expunge.Request("subject", expunge.Target("samples", {"ids": [3]})), method)
        in_place(plan.deletion.after)
        outcome = plan.run()
    assert outcome.verdict != Verdict.CERTIFIED


def test_what_leaves_every_row_as_it_was_read_keeps_what_is_known():
    data = rows(outlier=3.0)
    same = {
        "itself": data,
        "a part": data.without(Ids.rows([3])),
        "single precision": data.to("cpu", torch.float32),
        "a part of that": data.to("cpu", torch.float32).only(Ids.rows([3, 5])),
        "other people": replace(data, columns={"ward": np.arange(len(data)) % 3}),
        "another shape": replace(data, x=data.x.reshape(-1, 1, 2)),
    }
    assert {name: known(each) for name, each in same.items()} == dict.fromkeys(same, Origin.ENFORCED)


@pytest.mark.parametrize("origin", [Origin.PROVED, Origin.ENFORCED])
def test_an_origin_that_somebody_typed_is_their_word_whatever_the_kind_of_data(origin):
    class Own:
        preprocessing = Fact("fixed", origin)

        def __len__(self):
            return 1

    texts = replace(Texts.of([{"text": "one"}]), preprocessing=Fact("fixed", origin))
    plain = Rows(torch.ones(1, 1), torch.zeros(1, dtype=torch.long), np.arange(1), {}, Fact("fixed", origin))
    assert {known(Own()), known(texts), known(plain)} == {Origin.DECLARED}


@pytest.mark.parametrize("how", ["in place", "anew"])
def test_two_people_who_exchanged_names_after_publishing_are_not_taken_for_each_other(how):
    """One would leave with the other one's rows, under a certificate that is right about the rows that went."""
    data = replace(rows(), columns={"who": np.array([f"p{i // 2}" for i in range(len(rows()))])})
    trained = published(head(), data)
    names = np.array([{"p0": "p1", "p1": "p0"}.get(name, name) for name in data.columns["who"]])
    if how == "anew":
        trained = replace(trained, data=replace(data, columns={"who": names}))
    else:
        data.columns["who"][:] = names
    with pytest.raises(RefusedError, match="Column 'who' does not say of every row what it said"):
        expunge.plan(trained, Request("Ann", Target("user", {"who": "p0"})), r2d())


def test_columns_may_come_and_go_after_training():
    data = replace(rows(), columns={"who": np.array([f"p{i // 2}" for i in range(len(rows()))])})
    trained = published(head(), data, budget=Budget(1.0, 1e-5, 4, releases=2))
    for columns in ({}, {"who": data.columns["who"], "site": np.array(["here"] * len(data))}):
        with_these = replace(trained, data=replace(data, columns=columns))
        assert expunge.plan(with_these, samples(2), r2d()).estimate
