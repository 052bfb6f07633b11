"""Datasets of somebody's own code as rows, weights in several files, and models that return more than logits."""

from __future__ import annotations

import json
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from expunge.core import on_disk
from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.data.datasets import rows_of
from expunge.data.rows import Rows
from expunge.jobs.advice import dry_run
from expunge.tasks.classification import Classification, logits_of
from expunge.tasks.wrappers import unwrapped
from expunge.training.store import load_checkpoint


class Visits(torch.utils.data.Dataset):
    """Ten visits of five patients, normalised one by one."""

    def __init__(self, **changes):
        self.ids = [100 + i for i in range(10)]
        self.users = {"patient": [f"P{i // 2}" for i in range(10)]}
        self.length, self.read = 10, 0
        for name, value in changes.items():
            setattr(self, name, value)

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        if i >= 10:
            raise IndexError(i)
        return self.item(i)

    def item(self, i) -> Any:
        return torch.full((2, 3), float(i)), i % 2


def test_a_dataset_is_read_once_in_its_order_with_its_own_ids_and_people():
    rows = rows_of(Visits(), "own:visits", names=["no", "yes"])
    assert rows.x.shape == (10, 2, 3) and rows.x[3].eq(3).all() and rows.y.tolist() == [0, 1] * 5
    assert rows.select(Target("user", {"patient": "P2"}))["row"].tolist() == [104, 105]
    assert rows.select(Target("samples", {"ids": [103]}))["row"].tolist() == [103]
    test = rows_of(Visits(ids=None), "own:visits", users=False)
    assert test.columns == {} and test.ids.tolist() == list(range(10))


def test_examples_are_read_one_after_another_and_none_is_kept_beside_the_rows():
    alive: list[int] = [0, 0]  # now, and at most

    class Counted(Visits):
        def item(self, i) -> Any:
            example = np.full((2, 3), float(i), dtype=np.float32)
            alive[0] += 1
            alive[1] = max(alive)
            weakref.finalize(example, lambda: alive.__setitem__(0, alive[0] - 1))
            return example, i % 2

    rows = rows_of(Counted(), "own:visits")
    assert rows.x[:, 0, 0].tolist() == list(range(10)) and alive[1] <= 3


@pytest.fixture
def to_file(monkeypatch, tmp_path) -> None:
    """Examples of any size are written to a file."""
    monkeypatch.setattr(on_disk, "IN_MEMORY", 0)
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))


def test_large_examples_lie_in_a_file_with_the_same_bits(to_file, monkeypatch):
    visits = Visits()
    filed = rows_of(visits, "own:visits")
    assert isinstance(filed.x, on_disk.OnDisk)
    monkeypatch.setattr(on_disk, "IN_MEMORY", 2**28)
    held = rows_of(visits, "own:visits")
    assert isinstance(held.x, torch.Tensor) and torch.equal(filed.x.read(), held.x) and filed.digest == held.digest
    visits.item = lambda i: (torch.zeros(2, 3), 0)  # whatever the dataset says from now on
    assert filed.without(Ids.rows([100])).digest == held.without(Ids.rows([100])).digest


@pytest.mark.parametrize("at", [0, 5, 9])
def test_an_example_that_changes_between_two_readings_is_refused_on_disk_too(to_file, at):
    visits, times = Visits(), [0] * 10

    def item(i):
        times[i] += 1
        return torch.full((2, 3), float(i) + (i == at and times[i] > 1 + (at == 0))), 0  # the first is looked at before

    visits.item = item
    with pytest.raises(InputError, match=f"Example {at} of the dataset of own:visits came out differently"):
        rows_of(visits, "own:visits")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ids": None}, "has no ids"),
        ({"ids": [1] * 10}, "Expected each id once; 1 names 10 rows"),
        ({"ids": [0.5] * 10}, "Expected 10 whole numbers as ids"),
        ({"length": 11}, "says that it has 11 examples and has none at 10"),
        ({"length": 0}, "is empty"),
        ({"item": lambda i: (torch.rand(2), 0)}, "a random transform"),
        ({"item": lambda i: torch.zeros(2)}, r"Expected \(example, target\)"),
        ({"item": lambda i: (torch.zeros(1 + i % 2), 0)}, "examples of one shape"),
        ({"item": lambda i: (torch.zeros(2, dtype=(torch.float32, torch.float64)[i % 2]), 0)}, "one shape and type"),
        ({"item": lambda i: (torch.zeros(2), 0.5)}, "whole number"),
        ({"item": lambda i: ("a picture", 0)}, "a tensor or an array"),
        ({"users": {"patient": ["P1"]}}, "10 values under users"),
        ({"users": ["P1"] * 10}, "as a mapping"),
        ({"users": {"patient": [None] * 10}}, "names nobody"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        rows_of(Visits(**changes), "own:visits")


def test_a_dataset_whose_length_changes_is_refused():
    changing = Visits()

    def item(i):
        changing.length = 10 if i < 9 else 9
        return torch.zeros(2), 0

    changing.item = item
    with pytest.raises(InputError, match="changed from 10 to 9"):
        rows_of(changing, "own:visits")
    with pytest.raises(InputError, match="map-style"):
        rows_of(iter([]), "own:visits")


OWN = """
import torch

class Data:
    ids, users = list(range(20)), {"patient": [f"P{i // 4}" for i in range(20)]}
    def __len__(self): return 20
    def __getitem__(self, i): return torch.tensor([i / 20, 1 - i / 20]), int(i >= 10)

def data(): return Data()

class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(2, 2)
    def forward(self, x): return {"features": x, "scores": self.last(x)}
"""


def test_a_job_takes_a_dataset_and_a_model_of_somebody_s_own(tmp_path, monkeypatch):
    (tmp_path / "owncode21.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "home"))
    job = {
        "model": "owncode21:Both", "output": "scores", "data": {"format": "python", "function": "owncode21:data"},
        "training": {"kind": "stochastic", "epochs": 1, "lr": 0.1},
        "request": {"subject": "a", "targets": [{"kind": "user", "where": {"patient": "P1"}}]},
        "method": {"name": "fine_tune", "epochs": 1},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert dry_run(tmp_path / "job.yaml")["matched"] == {"count": 4, "ids": {"row": [4, 5, 6, 7]}, "users": 1}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**job, "output": "none"}))
    with pytest.raises(InputError, match="dict with features, scores"):
        dry_run(tmp_path / "job.yaml")


class Tuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 3)

    def forward(self, x):
        return x, self.last(x)


def test_the_logits_of_a_tuple_are_where_the_task_says():
    task = Classification(Tuple, output=1)
    rows = Rows.of(np.eye(2), np.array([0, 1]))
    task.check(rows)
    model = task.build()
    found = task.outputs(model, dict(model.named_parameters()), task.batch(rows)).logits
    assert torch.equal(found, model.get_submodule("last")(rows.x.float()))
    logits = torch.zeros(1, 2)
    assert logits_of({"logits": logits}) is logits and logits_of((0, logits), -1) is logits
    for output, which in (((logits, logits), None), ((logits,), 3), ({"a": logits}, None), ([logits], "a")):
        with pytest.raises(InputError, match="Say which part"):
            logits_of(output, which)


def test_weights_in_several_files_are_read_as_one(tmp_path):
    first, second = {"a": torch.ones(2)}, {"b": torch.zeros(3)}
    save_file(first, tmp_path / "w-1.safetensors")
    save_file(second, tmp_path / "w-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"

    def write(**places):
        index.write_text(json.dumps({"weight_map": places}))
        return index

    found = load_checkpoint(write(a="w-1.safetensors", b="w-2.safetensors"))
    assert found.keys() == {"a", "b"} and torch.equal(found["a"], first["a"])
    for places, said in (
        ({"a": "w-1.safetensors", "c": "w-2.safetensors"}, "do not name the same tensors"),
        ({"a": "../w-1.safetensors"}, "in its own folder"),
        ({"a": "w-3.safetensors"}, "no checkpoint"),
        ({}, "a weight_map"),
    ):
        with pytest.raises(InputError, match=said):
            load_checkpoint(write(**places))


def test_a_checkpoint_with_two_candidate_prefixes_keeps_both_and_is_refused():
    """Half of the names under one wrapper's word and half under another's: nobody can tell which model is meant."""
    expected = nn.Linear(2, 2).state_dict()
    mixed = {"module.weight": expected["weight"], "model.bias": expected["bias"]}
    assert unwrapped(expected.keys(), mixed) == (mixed, "")
    with pytest.raises(InputError, match="another architecture"):
        Classification(lambda: nn.Linear(2, 2)).build(mixed)
