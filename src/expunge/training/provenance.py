"""Which rows a model was trained on, and that what is given later are those rows."""

from __future__ import annotations

from dataclasses import replace

from expunge.core.data import Data, Ids, ids_of
from expunge.core.errors import RefusedError
from expunge.core.trained import Facts, Trained
from expunge.data.rows import Rows
from expunge.training.facts import OWNERS, TRAINING_IDS


def must_be_its_rows(trained: Trained, data: Data | None) -> None:
    """Unlearning with another split than the model was trained on erases rows it never saw and keeps what it should not.

    Raises:
        RefusedError: if rows given and rows removed together are not those that training on record was given.
    """
    known = trained.facts.get(TRAINING_IDS)
    if known is None or data is None:
        return
    given = ids_of(data)
    together = trained.removed if given is None else given | trained.removed
    if together.digest == known.value:
        _must_be_owned_as_then(trained, data)
        return
    found, removed = len(together), len(trained.removed)
    trained_on = trained.fact("rows")
    if trained_on is None:
        apart = "How many differ cannot be told."
    elif found > trained_on:
        apart = f"At least {found - trained_on} of the rows given it never saw."
    elif found < trained_on:
        apart = f"At least {trained_on - found} of its rows are missing."
    else:
        apart = "As many, but at least one row given it never saw, and at least one of its rows is missing."
    raise RefusedError(
        f"The rows given are not the rows that this model was trained on: {found} ({removed} of them removed by earlier "
        f"requests) instead of {'those on record' if trained_on is None else trained_on}. {apart} Give the training rows "
        "themselves: the same split, drawn with the same seed. Where they are lost, adopt the weights without a record."
    )


def trained_again(facts: Facts, data: Data) -> Facts:
    """``facts`` of a model that was trained anew on ``data``: how many rows, and which."""
    ids = ids_of(data)
    new = {"rows": len(data), TRAINING_IDS: None if ids is None else ids.digest}
    return left_with({name: replace(fact, value=new.get(name, fact.value)) for name, fact in facts.items()}, data)


def left_with(facts: Facts, data: Data | None) -> Facts:
    """``facts`` after some rows went: whose each row is that is left."""
    if OWNERS not in facts or not isinstance(data, Rows):
        return facts
    return {**facts, OWNERS: replace(facts[OWNERS], value=data.owned())}


def _must_be_owned_as_then(trained: Trained, data: Data) -> None:
    """Raise RefusedError where rows changed hands: what somebody asks for is what was theirs when the model was trained.

    Columns may be left out, and columns that training was not given added: whom these name is the word of whoever added them.
    """
    known = trained.facts.get(OWNERS)
    if known is None or not isinstance(data, Rows):
        return
    again = trained.removed & Ids.rows(data.ids)  # a second try for the same person brings the rows of the first again
    now = (data.without(again) if len(again) else data).owned()
    if changed := [name for name, digest in now.items() if known.value.get(name, digest) != digest]:
        raise RefusedError(
            f"Column {', '.join(map(repr, changed))} does not say of every row what it said when this model was trained. Give "
            "the rows with the owners and people that they had then: what somebody asks for is what was theirs. Where the "
            "column was wrong, train and publish the model anew with the right one."
        )
