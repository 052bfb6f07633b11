"""TOFU's splits: who wrote what, where each record lies in ``full``, and folders that do not hold together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from expunge.core.errors import InputError
from expunge.core.request import Kind, Target
from expunge.data.tofu import read_tofu, refusals, splits


def written(folder: Path, name: str, records: list[dict]) -> None:
    folder.joinpath(f"{name}.json").write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")


@pytest.fixture
def small(tmp_path) -> Path:
    """Three authors, one of whose questions another shares, and a forget split in another order."""
    full = [{"question": f"who wrote book {i} ?", "answer": f"author {i // 20}"} for i in range(60)]
    full[59] = {**full[0], "answer": "author 2"}
    written(tmp_path, "full", full)
    written(tmp_path, "forget33", full[:39:-1])
    written(tmp_path, "forget33_perturbed", [{**record, "perturbed_answer": ["nobody"]} for record in full[40:]])
    written(tmp_path, "world_facts", [{"question": "where is Paris ?", "answer": "France"}])
    return tmp_path


def test_ids_are_positions_in_full_even_where_two_authors_share_a_question(small):
    forget = read_tofu(small, "forget33")
    assert forget.ids.tolist() == list(range(59, 39, -1))
    assert forget.records[0] == {"question": "who wrote book 0 ?", "answer": "author 2"}
    assert set(forget.columns["author"]) == {2}
    assert read_tofu(small, "forget33_perturbed").records[0]["perturbed_answer"] == ["nobody"]
    full = read_tofu(small, "full")
    assert np.bincount(full.columns["author"]).tolist() == [20, 20, 20]
    gone = full.select(Target(Kind.USER, {"author": 2}))
    assert sorted(gone["row"].tolist()) == sorted(forget.ids.tolist())


def test_facts_that_exist_are_no_part_of_full(small):
    facts = read_tofu(small, "world_facts")
    assert facts.ids.tolist() == [0] and not facts.columns


def test_an_unknown_split_is_answered_with_those_that_are_there(small):
    assert splits(small) == ("forget33", "forget33_perturbed", "full", "world_facts")
    with pytest.raises(InputError, match=r"'holdout10'\. There are: forget33, forget33_perturbed, full, world_facts"):
        read_tofu(small, "holdout10")
    with pytest.raises(InputError, match="none: it holds no file"):
        read_tofu(small / "nowhere", "full")


def test_splits_of_another_copy_are_refused(small):
    written(small, "retain67", [{"question": "who wrote book 0 ?", "answer": "somebody else"}])
    with pytest.raises(InputError, match="1 of 1 records of retain67 are not in full, the first on line 1"):
        read_tofu(small, "retain67")
    written(small, "retain67", 2 * [{"question": "who wrote book 0 ?", "answer": "author 0"}])
    with pytest.raises(InputError, match="holds records twice"):
        read_tofu(small, "retain67")


def test_refusals_are_plain_lines(small):
    with pytest.raises(InputError, match="no file"):
        refusals(small)
    small.joinpath("idontknow.jsonl").write_text("I'm not sure.\n\nNo idea.\n", encoding="utf-8")
    assert refusals(small) == ("I'm not sure.", "No idea.")
    small.joinpath("idontknow.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="it is empty"):
        refusals(small)


def test_the_real_splits_cut_full_in_two(real_data):
    folder = real_data("tofu") / "tofu"
    for share in (1, 5, 10):
        forget, retain = read_tofu(folder, f"forget{share:02}"), read_tofu(folder, f"retain{100 - share}")
        assert forget.ids.tolist() == list(range(4000 - 40 * share, 4000))
        assert retain.ids.tolist() == list(range(4000 - 40 * share))
        assert read_tofu(folder, f"forget{share:02}_perturbed").ids.tolist() == forget.ids.tolist()
        assert set(forget.columns["author"]) == set(range(200 - 2 * share, 200))
    assert read_tofu(folder, "retain_perturbed").ids.tolist() == list(range(400))
    assert [len(read_tofu(folder, name)) for name in ("real_authors_perturbed", "world_facts")] == [100, 117]
    assert len(refusals(folder)) == 100
