from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.core.chain import GENESIS, link, verify_chain
from expunge.core.errors import TamperedError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PAYLOADS = st.lists(st.dictionaries(TEXT, JSON, max_size=3), min_size=1, max_size=6)


def chain(payloads):
    entries, previous = [], GENESIS
    for sequence, payload in enumerate(payloads, start=1):
        entry = {"sequence": sequence, "previous": previous, "payload": payload, "hash": link(previous, payload)}
        entries.append(entry)
        previous = entry["hash"]
    return entries


@given(PAYLOADS)
def test_a_chain_verifies_and_ends_in_its_last_hash(payloads):
    entries = chain(payloads)
    assert verify_chain(entries) == entries[-1]["hash"]


def test_an_empty_chain_is_whole():
    assert verify_chain([]) == GENESIS


@given(PAYLOADS, st.data())
def test_any_changed_payload_is_named(payloads, data):
    entries = chain(payloads)
    at = data.draw(st.integers(0, len(entries) - 1))
    other = data.draw(st.dictionaries(TEXT, JSON, max_size=3))
    if link(GENESIS, other) == link(GENESIS, entries[at]["payload"]):
        return
    entries[at] = entries[at] | {"payload": other}
    with pytest.raises(TamperedError, match=f"entry {at + 1} was changed"):
        verify_chain(entries)


@given(PAYLOADS, st.data())
def test_any_changed_digit_of_a_hash_is_named(payloads, data):
    entries = chain(payloads)
    at = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from(["previous", "hash"]))
    digit = data.draw(st.integers(0, 63))
    old = entries[at][field]
    entries[at][field] = old[:digit] + ("0" if old[digit] != "0" else "1") + old[digit + 1 :]
    with pytest.raises(TamperedError, match=f"entry {at + 1} "):
        verify_chain(entries)


@given(PAYLOADS.filter(lambda payloads: len(payloads) > 1), st.data())
def test_entries_left_out_doubled_or_swapped_are_found(payloads, data):
    entries = chain(payloads)
    at = data.draw(st.integers(0, len(entries) - 2))
    without = entries[:at] + entries[at + 1 :]
    doubled = entries[: at + 1] + entries[at:]
    swapped = [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]]
    for broken in (without, doubled, swapped):
        bare = [{name: entry[name] for name in ("previous", "payload", "hash")} for entry in broken]
        for found in (broken, bare):  # without sequence numbers the hashes alone find it
            with pytest.raises(TamperedError, match="entry"):
                verify_chain(found)


def test_a_chain_cut_at_its_end_still_verifies_but_has_another_head():
    entries = chain([{"a": 1}, {"b": 2}])
    assert verify_chain(entries[:1]) != verify_chain(entries)


@pytest.mark.parametrize(
    "change",
    [{"comment": "not hashed"}, {"payload": {1, 2}}, {"payload": float("nan")}, {"sequence": 2}, {"hash": None}],
)
def test_what_the_hash_does_not_cover_is_refused(change):
    [entry] = chain([{"a": 1}])
    with pytest.raises(TamperedError, match="entry 1"):
        verify_chain([entry | change])


def test_a_missing_field_is_refused():
    [entry] = chain([{"a": 1}])
    del entry["payload"]
    with pytest.raises(TamperedError, match="entry 1 has the fields"):
        verify_chain([entry])


def test_link_wants_a_hash():
    with pytest.raises(ValueError, match="64 hex digits"):
        link("", {})
