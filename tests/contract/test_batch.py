"""Columns are sliced by example, shared tensors never."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import expunge
from cases import PointTask, attraction, small_language, softmax_head
from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import (
    Autoregressive,
    FromFactory,
    HasFeatures,
    Initialised,
    Pairable,
    Pretrained,
    autoregressive,
    with_features,
)  # fmt: skip
from expunge.tasks.passes import evaluating, in_passes, joined
from node_graphs import NodeClassification

SOURCE = Path(expunge.__file__).parent
X, Y, EDGES = torch.arange(10.0).view(5, 2), torch.arange(5), torch.arange(12).view(2, 6)
BATCH = Batch({"x": X, "y": Y}, {"edges": EDGES})


def test_a_batch_reads_columns_and_shared_tensors_by_name_and_counts_examples():
    assert len(BATCH) == 5 and BATCH["x"] is X and BATCH["edges"] is EDGES and BATCH.device == X.device
    assert "y" in BATCH and "edges" in BATCH and "z" not in BATCH
    with pytest.raises(InputError, match="one of x, y, edges; the batch has no 'z'"):
        BATCH["z"]


@pytest.mark.parametrize("index", [[], [4], [3, 0, 3]])
def test_take_follows_the_order_of_the_index(index):
    taken = BATCH.take(torch.tensor(index, dtype=torch.long))
    assert len(taken) == len(index) and taken["y"].tolist() == index and taken["x"].tolist() == X[index].tolist()
    assert taken["edges"] is EDGES and len(BATCH) == 5


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_parts_are_all_examples_in_order(size):
    parts = list(BATCH.parts(size))
    assert [len(part) for part in parts] == [min(size, 5 - at) for at in range(0, 5, size)]
    assert torch.equal(torch.cat([part["x"] for part in parts]), X) and all(part["edges"] is EDGES for part in parts)
    assert torch.equal(in_passes(lambda part: part["y"] * part["edges"].sum(), BATCH, size), Y * EDGES.sum())


def test_with_columns_adds_and_replaces_and_leaves_the_batch_as_it_is():
    more = BATCH.with_columns(y=Y + 1, weight=Y)
    assert more["y"].tolist() == [1, 2, 3, 4, 5] and more["weight"] is Y and more["edges"] is EDGES
    assert BATCH["y"] is Y and "weight" not in BATCH


def test_a_batch_that_contradicts_itself_is_refused():
    with pytest.raises(InputError, match="one entry for each example"):
        BATCH.with_columns(short=Y[:2])
    with pytest.raises(InputError, match="one entry for each example"):
        Batch({})
    with pytest.raises(InputError, match="edges name"):
        BATCH.with_columns(edges=Y)


def test_batches_are_joined_over_the_same_shared_tensors_only():
    both = joined(BATCH.with_columns(position=Y), BATCH.take(slice(2)))
    assert both["y"].tolist() == [0, 1, 2, 3, 4, 0, 1] and set(both.columns) == {"x", "y"} and both["edges"] is EDGES
    for other in (Batch({"x": X, "y": Y}), Batch({"x": X, "y": Y}, {"edges": EDGES + 1})):
        with pytest.raises(InputError, match="same shared tensors"):
            joined(BATCH, other)


def slices_of_batches(code: str) -> list[str]:
    """Comprehensions that slice each column of a batch by hand."""
    comprehensions = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.DictComp)]
    over = [(ast.unparse(node.generators[0].iter), ast.unparse(node.value)) for node in comprehensions]
    return [value for of, value in over if of.endswith(".columns.items()") and re.search(r"\w\[|index_select", value)]


def test_nothing_but_a_batch_slices_its_columns():
    own = SOURCE / "core" / "batch.py"
    slicing = [path for path in SOURCE.rglob("*.py") if slices_of_batches(path.read_text(encoding="utf-8"))]
    assert own in slicing  # the negative control
    # tables of people have columns of their own; stacked peers have one more dimension than a batch
    assert {path.parent.name for path in slicing if path != own} <= {"data", "network"}


def test_evaluating_gives_every_module_its_mode_back_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with pytest.raises(ValueError, match="inside"), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise ValueError("inside")
    assert [module.training for module in model.modules()] == [True, True, False, False]


def test_what_only_some_tasks_have_is_told_by_their_protocols():
    kinds = (Autoregressive, Pairable, Pretrained, HasFeatures, Initialised, FromFactory)
    has = {
        task.name: {kind.__name__ for kind in kinds if isinstance(task, kind)}
        for task in (small_language(), softmax_head(2, 3), PointTask(2, attraction(1.0)), NodeClassification())
    }
    assert has["language"] == {"Autoregressive", "Pairable", "Pretrained", "FromFactory"}
    assert has["classification"] == {"HasFeatures", "Initialised", "FromFactory"}
    assert has["nodes"] == set() and "Autoregressive" not in has["point"]
    with pytest.raises(InputError, match=r"a language model.*the task is nodes"):
        autoregressive(NodeClassification())
    with pytest.raises(InputError, match="before a classifier head; the task is language"):
        with_features(small_language())
