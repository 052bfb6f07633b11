"""Whose turn it is, which rows it gets, and that both follow from numbers alone (vision spec 6.1, check 5)."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.descent.schedule import Interleave, Joint, Mixed, Passes
from expunge.descent.streams import batches_per_pass, endless, generator_for, mixed_seed

SIZES, BATCHES = {"forget": 4500, "retain": 40500, "mixed": 45000}, {"forget": 128, "retain": 128, "mixed": 128}


def counts(schedule, sizes=SIZES, batches=BATCHES) -> Counter:
    turns = list(schedule.turns(sizes, batches, 0))
    assert len(turns) == schedule.length(sizes, batches)
    assert [turn.step for turn in turns] == list(range(len(turns))) and {turn.steps for turn in turns} <= {len(turns)}
    assert {turn.role for turn in turns} <= schedule.roles
    return Counter(turn.role for turn in turns)


def test_check_05_steps_of_the_papers():
    assert counts(Interleave(1, 5, retain_steps=1500)) == {"forget": 300, "retain": 1500}
    assert counts(Passes(10)) == {"forget": 360, "retain": 3170}
    forget10 = {"forget": 400, "retain": 3600}, {"forget": 40, "retain": 40}
    assert counts(Interleave(1, 5, epochs=5), *forget10) == {"forget": 50, "retain": 250}


def test_check_05_the_other_schedules():
    assert counts(Passes(10, forget=0)) == {"retain": 3170} and counts(Passes(10, retain=0)) == {"forget": 360}
    assert counts(Passes(10, forget_until=2)) == {"forget": 72, "retain": 3170}
    assert counts(Passes(3, forget=2)) == {"forget": 3 * 72, "retain": 3 * 317}
    assert counts(Joint(2)) == {"joint": 634} and counts(Joint(2, of="forget")) == {"joint": 72}
    assert counts(Mixed(2)) == {"mixed": 704}
    assert counts(Interleave(2, 1, retain_steps=7)) == {"forget": 14, "retain": 7}
    assert counts(Interleave(1, 5, retain_steps=7)) == {"forget": 2, "retain": 7}
    assert counts(Interleave(2, 1, epochs=1), {"forget": 12, "retain": 99}, {"forget": 4, "retain": 4})["forget"] == 4


def test_a_round_begins_with_forgetting_and_an_epoch_ends_with_retaining():
    roles = [turn.role[0] for turn in Interleave(1, 2, retain_steps=5).turns(SIZES, BATCHES, 0)]
    assert "".join(roles) == "frrfrrfr"
    small = {"forget": 5, "retain": 9}, {"forget": 3, "retain": 5}
    turns = list(Passes(2, forget_until=1).turns(*small, 0))
    assert "".join(turn.role[0] for turn in turns) == "ffrrrr"
    assert [turn.epoch for turn in turns] == [0, 0, 0, 0, 1, 1]
    assert [turn.ends_epoch for turn in turns] == [False, False, False, True, False, True]
    assert [turn.progress for turn in turns] == [pytest.approx(i / 6) for i in range(6)]


def test_sfron_fades_over_all_of_its_forget_steps():
    """c(t) of the i-th of 300 forget steps is that of i / 300, although retain steps lie between."""
    turns = Interleave(1, 5, retain_steps=1500).turns(SIZES, BATCHES, 0)
    assert [turn.progress for turn in turns if turn.role == "forget"] == [pytest.approx(i / 300) for i in range(300)]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), size=st.integers(1, 20), seed=st.integers(-(2**63), 2**64))
def test_a_pass_sees_every_row_once_in_as_many_batches_as_were_counted(rows, size, seed):
    number = batches_per_pass(rows, size)
    stream = endless(rows, size, seed, "forget")
    passes = [[next(stream) for _ in range(number)] for _ in range(2)]
    for batches in passes:
        assert torch.cat(batches).sort().values.tolist() == list(range(rows))
        assert all(len(batch) > 1 or rows == 1 or size == 1 for batch in batches), "a row alone has no variance"
        assert all(len(batch) <= size + 1 for batch in batches)


def test_passes_differ_and_so_do_streams_and_seeds():
    def first(seed: int, name: str, skip: int = 0) -> list[int]:
        return next(islice(endless(100, 100, seed, name), skip, None)).tolist()

    orders = [first(0, "forget"), first(0, "forget", 1), first(0, "retain"), first(1, "forget")]
    assert len({tuple(order) for order in orders}) == 4
    assert first(0, "forget", 1) == first(0, "forget", 1)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 5))
def test_turns_can_be_taken_up_anywhere_and_recycled_streams_go_on(data, seed):
    sizes = {"forget": data.draw(st.integers(1, 9)), "retain": data.draw(st.integers(1, 30))}
    sizes["mixed"] = sizes["forget"] + sizes["retain"]
    batches = {name: data.draw(st.integers(1, 8)) for name in sizes}
    schedules = [Passes(2), Interleave(1, 2, epochs=2), Interleave(2, 3, retain_steps=7), Joint(2), Mixed(2)]
    schedule = data.draw(st.sampled_from(schedules))
    turns = list(schedule.turns(sizes, batches, seed))
    at = data.draw(st.integers(0, len(turns)))
    again = list(islice(schedule.turns(sizes, batches, seed), at, None))
    for turn, other in zip(turns[at:], again, strict=True):
        assert turn.index.keys() == other.index.keys() and turn.role == other.role and turn.step == other.step
        assert all(torch.equal(turn.index[name], other.index[name]) for name in turn.index)
    for name in sizes:  # what one stream yields, over all turns, is that stream from its beginning
        drawn = [turn.index[name] for turn in turns if name in turn.index]
        for index, expected in zip(drawn, endless(sizes[name], batches[name], seed, name), strict=False):
            assert torch.equal(index, expected)


def test_draws_of_different_purposes_and_numbers_are_different():
    seeds = {
        mixed_seed(seed, name, number) for seed in range(5) for name in ("labels", "layers") for number in range(50)
    }
    assert len(seeds) == 500
    assert torch.equal(
        torch.rand(3, generator=generator_for(1, "a", 2)), torch.rand(3, generator=generator_for(1, "a", 2))
    )


@pytest.mark.parametrize(
    "broken",
    [
        lambda: Passes(0), lambda: Passes(1, forget=0, retain=0), lambda: Passes(1, forget=-1),
        lambda: Passes(1, forget_until=-1), lambda: Interleave(0, 1, epochs=1), lambda: Interleave(1, 0, epochs=1),
        lambda: Interleave(), lambda: Interleave(epochs=1, retain_steps=1), lambda: Interleave(retain_steps=0),
        lambda: Joint(0), lambda: Joint(1, of="mixed"), lambda: Mixed(0),
    ],
)  # fmt: skip
def test_schedules_that_make_no_sense_are_refused(broken):
    with pytest.raises(InputError, match="Expected"):
        broken()
