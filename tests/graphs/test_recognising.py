"""Nodes, edges and features that were forgotten stay out of later training, whatever ids they have in another file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from expunge.core.data import Deletion, Ids
from expunge.core.request import Request, Target
from expunge.data.graphs import names
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.marks import marks_of, recognised
from expunge.jobs.run import run_job
from expunge.report.verify import verify_folder

KEY = b"k" * 32
TARGETS = (
    Target("node", {"ids": [3, 8]}), Target("edge", {"pairs": "some"}), Target("feature", {"node": [11]}),
)  # fmt: skip


def made(named: bool = False) -> Graph:
    found = block_model(BlockModel(40, 70, 30, 3, words=6), 1)
    called = np.array([f"n{i}" for i in range(40)]) if named else None
    return Graph.of(found.x, found.y, found.edges, called=called)


def shuffled(graph: Graph) -> tuple[Graph, np.ndarray]:
    """The same graph with other ids, and the new id of each old one."""
    new = np.random.default_rng(0).permutation(len(graph.nodes)) + 500
    called = graph.called
    return Graph.of(graph.x, graph.y, new[graph.edges], nodes=new, called=called), new


@pytest.mark.parametrize("named", [False, True])
def test_what_was_forgotten_is_recognised_under_other_ids(named):
    graph = made(named)
    pair = next(edge for edge in graph.edges.tolist() if not {3, 8, 11} & set(edge))
    targets = (TARGETS[0], Target("edge", {"pairs": [pair]}), TARGETS[2])
    deletion = Deletion.of(graph, Request("a", targets))
    marks = marks_of(deletion, targets, KEY)
    assert len(marks) == deletion.size == 3 + graph.x[[11]].nnz
    other, new = shuffled(graph)
    found = recognised(other, marks, KEY)
    columns = graph.x[[11]].nonzero()[1]
    features = names.joined(np.full(len(columns), new[11]), columns)
    expected = Ids({"node": new[[3, 8]], "edge": names.of_edges(new[[pair]]), "feature": features})
    assert found == expected and recognised(graph, marks, KEY) == deletion.ids
    assert not len(recognised(other, marks, b"x" * 32)) and not len(recognised(other, [], KEY))
    changed = replace(other, x=other.x * 2) if not named else replace(other, called=np.char.add(other.called, "x"))
    assert not len(recognised(changed, marks, KEY))


def test_an_earlier_request_on_the_ledger_keeps_its_nodes_out_of_a_new_training(tmp_path):
    def run(number: int, node: int, folder: Path) -> dict:
        job = {
            "task": "graph", "model": "gcn", "data": {"format": "block_model", "preset": "small"}, "ledger": "book.sqlite",
            "training": {"kind": "whole_graph", "epochs": 5}, "method": {"name": "retrain"},
            "request": {"subject": f"s{number}", "targets": [{"kind": "node", "where": {"ids": [node]}}]},
            "evidence": {"replicates": 0, "pdf": False},
        }  # fmt: skip
        (tmp_path / f"job{number}.yaml").write_text(yaml.safe_dump(job))
        run_job(tmp_path / f"job{number}.yaml", (), folder)
        assert verify_folder(folder).consistent
        return json.loads((folder / "evidence.json").read_text())

    first, second = run(1, 5, tmp_path / "one"), run(2, 9, tmp_path / "two")
    assert "earlier granted request" not in json.dumps(first)
    assert "1 example of 1 earlier granted request on the ledger are not among those retained" in json.dumps(second)
