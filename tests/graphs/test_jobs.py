"""Jobs on graph networks from file to verified evidence; what a graph method leaves behind; requests that are refused."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from expunge import planning
from expunge.core.certificate import UNCHANGED
from expunge.core.data import Deletion, Ids
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.measurement import FORBIDDEN, OWN_PROBES
from expunge.core.method import Capabilities
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.graphs.block_model import block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.splits import shares
from expunge.jobs.run import run_job
from expunge.jobs.schema import load_job
from expunge.measuring import measure
from expunge.methods import registry
from expunge.methods.utu import UtU
from expunge.modalities.graph import MODALITY
from expunge.modalities.graph.opening import note_of
from expunge.modalities.graph.readings import read, score
from expunge.report.verify import verify_folder
from expunge.tasks.graphs.networks import GCN
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.graphs import GraphTraining

JOB: dict[str, Any] = {
    "task": "graph", "model": "gcn", "data": {"format": "block_model", "preset": "small"},
    "training": {"kind": "whole_graph", "epochs": 30},
    "request": {"subject": "a", "targets": [{"kind": "node", "where": {"ids": [1, 5, 9, 17]}}]},
    "method": {"name": "retrain"}, "evidence": {"replicates": 2, "pdf": False},
}  # fmt: skip
GRADIENT = {"fine_tune": {}, "gradient_ascent": {"lr": 0.05}, "random_labels": {"lr": 0.05, "retain_lr": 0.05}}


def own(**sets) -> dict:
    """The graph of the job with sets of somebody's own."""
    return {**JOB["data"], "split": {"kind": "shares"}, **sets}


def job(folder: Path, **changes) -> Path:
    (folder / "job.yaml").write_text(yaml.safe_dump({**JOB, **changes}))
    return folder / "job.yaml"


@functools.cache
def trained() -> tuple[Trained, dict[str, Graph]]:
    graph, sets = shares(block_model("small"), 0.6, 0.2, 0)
    graph = replace(graph, depth=2)
    task = NodeClassification.of(functools.partial(GCN, graph.x.shape[1], graph.label_count))
    return planning.train(task, graph, GraphTraining(epochs=30)), sets


def nodes(*ids: int) -> Request:
    return Request("a", (Target("node", {"ids": list(ids)}),))


TARGETS = {
    "node": [{"kind": "node", "where": {"ids": [1, 5]}}],
    "edge": [{"kind": "edge", "where": {"pairs": block_model("small").edges[[3, 40, 77]].tolist()}}],
    "feature": [{"kind": "feature", "where": {"node": [1, 5]}}],
    "mixed": [{"kind": "node", "where": {"ids": [1]}}, {"kind": "feature", "where": {"node": 5}}],
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_job_of_each_kind_of_request_retrains_and_verifies(kind, tmp_path):
    run_job(job(tmp_path, request={"subject": "a", "targets": TARGETS[kind]}), (), tmp_path / "out")
    assert verify_folder(tmp_path / "out").consistent
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["runs"][0]["verdict"] == "certified-under-declared-constants"
    full = json.loads((tmp_path / "out.private" / "review.json").read_text())
    names = {item["name"]: item for item in full["runs"][0]["evidence"]["measurements"]}
    assert names["distance to retrained"]["value"] == 0 and names["loss/touched"]["n"] > 0


UNPROMISED = {**GRADIENT, "gnn_delete": {"epochs": 3}}


@pytest.mark.parametrize(
    "name", [*(pytest.param(n, marks=[pytest.mark.slow] * (i % 2)) for i, n in enumerate(UNPROMISED)), "no_op", "utu"]
)
def test_methods_without_a_promise_carry_none(name, tmp_path):
    settings = {"name": name, **UNPROMISED.get(name, {})}
    run_job(job(tmp_path, method=settings), (), tmp_path / "out")
    assert verify_folder(tmp_path / "out").consistent
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["runs"][0]["verdict"] == ("no-certificate" if name in UNPROMISED else "unchanged")


LINEAR = {"model": "sgc", "model_settings": {"bias": False}, "dtype": "float64"}
TRAININGS = {
    "graph_editor": ({**LINEAR, "training": {"kind": "ridge"}}, "no-certificate"),
    "cgu": ({**LINEAR, "training": {"kind": "minimum", "l2": 1.0, "sigma": 50.0, "loss": "one_vs_rest"}}, "as-claimed"),
    "graph_eraser": ({"training": {"kind": "shards", "shards": 12, "epochs": 5}}, "no-certificate"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_methods_that_need_a_training_of_their_own_run_from_file_to_verified_evidence(name, tmp_path):
    changes, verdict = TRAININGS[name]
    evidence = {"replicates": 0, "pdf": False}
    run_job(job(tmp_path, **changes, method={"name": name}, evidence=evidence), (), tmp_path / "out")
    assert verify_folder(tmp_path / "out").consistent
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["runs"][0]["verdict"] == verdict


def test_retraining_equals_training_on_the_cut_graph():
    model, _ = trained()
    outcome = planning.plan(model, nodes(1, 5), registry.make("retrain")).run()
    by_hand = GraphTraining(epochs=30).fit(model.task, model.data.without(model.data.select(nodes(1, 5).targets[0])))
    for name, tensor in by_hand.artifact.tensors.items():
        assert torch.equal(outcome.releases[0].artifact.tensors[name], tensor)


def test_ids_keep_their_meaning_over_requests_and_the_cut_graph_is_handed_on():
    """Two requests by a method that only cuts the graph, then a retraining: it knows neither."""
    model, _ = trained()
    first = planning.plan(model, nodes(1, 5), UtU()).run()
    assert first.status == UNCHANGED == first.verdict and first.certificate is None
    assert first.after.artifact is model.artifact and not first.after.data.has(np.array([1, 5])).any()
    second = planning.plan(first.after, nodes(9), UtU()).run()
    assert second.deletion.before.digest == first.after.data.digest
    assert not second.after.data.has(np.array([1, 5, 9])).any() and second.after.data.has(np.array([10])).all()
    third = planning.plan(second.after, nodes(17), registry.make("retrain")).run()
    alone = model.data.without(model.data.select(nodes(1, 5, 9, 17).targets[0]))
    assert third.deletion.after.digest == alone.digest
    with pytest.raises(InputError, match=r"ids 5 \(1 of 1\)|removed already"):
        planning.plan(second.after, nodes(5), UtU())


class Moves(UtU):
    """Declares that it leaves the weights, and does not."""

    def run(self, context):
        result = super().run(context)
        moved = {name: tensor + 1 for name, tensor in context.trained.artifact.tensors.items()}
        return replace(result, views={"model": replace(context.trained.artifact, tensors=moved)})


def test_a_graph_method_that_moves_weights_has_failed():
    with pytest.raises(FailedError, match="changes no weights"):
        planning.plan(trained()[0], nodes(1), Moves()).run()
    assert UtU.capabilities == Capabilities(
        ("node", "edge", "feature"), ("graph", "links"), ("retained data",), "graph"
    )


def test_what_is_forgotten_is_read_on_the_graph_as_it_was_and_all_else_on_the_graph_as_it_is():
    model, sets = trained()
    request = nodes(1, 5, 9)
    outcome = planning.plan(model, request, registry.make("fine_tune"), probes=sets).run()
    evidence, tensors, task = measure(outcome), outcome.releases[0].artifact.tensors, model.task
    built = task.build(tensors).eval()

    def loss(graph: Graph) -> float:
        return float(task.losses(built, dict(built.named_parameters()), task.batch(graph)).mean().detach())

    before, after = outcome.deletion.before, outcome.deletion.after
    assert evidence["loss/forget"].value == pytest.approx(loss(before.only(outcome.deletion.ids)), rel=1e-6)
    assert evidence["loss/test"].value == pytest.approx(loss(sets["test"].within(after)), rel=1e-6)
    assert loss(sets["test"].within(after)) != loss(sets["test"])


def test_a_whole_class_is_refused_in_words(tmp_path):
    graph, _ = shares(block_model("small"), 0.6, 0.2, 0)
    ids = graph.examples[graph.labels(graph.examples) == 1].tolist()
    targets = [{"kind": "node", "where": {"ids": ids}}]
    with pytest.raises(InputError, match="every training node of class 1"):
        run_job(job(tmp_path, request={"subject": "a", "targets": targets}), (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nodes_without_a_trained_label_are_noted_and_nothing_can_be_learnt_from_them(tmp_path):
    _, sets = shares(block_model("small"), 0.6, 0.2, 0)
    targets = [{"kind": "node", "where": {"ids": sets["test"].examples[:2].tolist()}}]
    request = {"subject": "a", "targets": targets}
    run_job(job(tmp_path, request=request), (), tmp_path / "out")
    assert "labels of 2 of 2 nodes were never trained on" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(RefusedError, match="learns from forgotten examples"):
        run_job(job(tmp_path, request=request, method={"name": "gradient_ascent"}), (), tmp_path / "other")


def test_nodes_without_edges_are_noted():
    graph = Graph.of(np.eye(5), [0, 1, 0, 1, -1], [(0, 1), (1, 2)])
    note = lambda *ids: note_of(graph, Ids({"node": np.array(ids)}))  # noqa: E731
    assert note(0, 3) == "1 of 2 nodes have no edge." and note(0) == ""
    assert "labels of 1 of 1 nodes were never trained on" in note(4) and note(4).endswith("nothing of it was learnt.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gcnn"}, "Expected model among gcn"),
        ({"model_settings": {"width": 3}}, "does not take model_settings"),
        ({"data": {"format": "block_model", "preset": "huge"}}, "preset among"),
        ({"data": {"format": "planetoid", "name": "Cora", "path": "nowhere"}}, r"no ind\.cora\.x"),
        ({"data": {"format": "graph", "path": "absent.npz"}}, r"no file .*absent\.npz"),
        ({"depth": 5}, "says 2 itself"),
        ({"training": {"kind": "stochastic", "epochs": 3}}, "whole_graph"),
        ({"data": own(sets={"hub": "absent.txt"})}, r"no file .*absent\.txt; it is to hold ids of nodes"),
        (
            {"data": own(sets={"hub": "gone.txt"})},
            r"data\.sets, hub \(gone\.txt\): .*among the nodes of the graph; 999999",
        ),
        ({"data": own(sets={"hub": "twice.txt"})}, "each example once"),
        ({"data": own(probes="words.txt")}, "words.txt"),
        ({"data": own(sets={"test": "hub.txt"})}, "'test' is what evidence calls"),
        ({"data": own(sets={"hub": "hub.txt"}), "predict": "links"}, "measured on edges"),
    ],
)
def test_jobs_that_cannot_be_meant_are_refused_before_work(changes, message, tmp_path):
    for name, lines in ("hub.txt", "1 2"), ("gone.txt", "1 999999"), ("twice.txt", "3 3"), ("words.txt", "one two"):
        (tmp_path / name).write_text(lines.replace(" ", "\n"))
    with pytest.raises(InputError, match=message):
        run_job(job(tmp_path, **changes), (), tmp_path / "out")


def test_sets_and_probes_of_one_s_own_are_nodes_by_their_ids(tmp_path):
    """Forgotten nodes among them have left the graph; the rest is read on the graph as it is now."""
    (tmp_path / "hub.txt").write_text("2\n1\n7\n8\n")
    (tmp_path / "probes.json").write_text("[5, 20, 21]")
    data = own(sets={"hub": "hub.txt"}, probes="probes.json")
    checked = load_job(job(tmp_path, data=data))
    opened = MODALITY.open(checked)
    deletion = Deletion.of(opened.data, nodes(1, 5), opened.probes)
    tensors = dict(opened.task.build(seed=3).state_dict())
    readings = read(opened.task, tensors, {"retain": deletion.after, **deletion.probes})
    after, model = deletion.after, opened.task.build(tensors).eval()
    for name, ids in ("hub", [2, 7, 8]), (OWN_PROBES, [20, 21]):
        assert readings[name].labels.tolist() == block_model("small").labels(np.array(ids)).tolist()
        logits = opened.task.outputs(model, tensors, opened.task.batch(after.on(ids))).logits
        assert np.array_equal(readings[name].logits, logits.detach().double().numpy())
    counted = {(each.metric, each.set): each for each in score(readings)}
    assert counted["accuracy", "hub"].n == 3 and counted[FORBIDDEN, OWN_PROBES].n == 2
    assert counted[FORBIDDEN, OWN_PROBES].value == (logits.argmax(1).numpy() == readings[OWN_PROBES].labels).sum()
    assert checked.identity() == load_job(job(tmp_path, data=own())).identity()


class OneLayer(torch.nn.Module):
    """A user's own module: dense features, sums over neighbours, and it does not say how far it gathers."""

    def __init__(self, inputs: int = 60, classes: int = 3):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        h = self.linear(x)
        return h.index_add(0, edge_index[1], h[edge_index[0]])


def test_a_module_of_unknown_depth_may_change_wherever_something_is_connected(tmp_path):
    place = f"{__name__}:OneLayer"
    for depth, least in ((None, 100), (1, 1)):
        out = tmp_path / f"out{depth}"
        changes = {} if depth is None else {"depth": depth}
        run_job(job(tmp_path, model=place, **changes), (), out)
        full = json.loads((out.parent / f"{out.name}.private" / "review.json").read_text())
        names = {item["name"]: item for item in full["runs"][0]["evidence"]["measurements"]}
        assert names["loss/touched"]["n"] >= least and (depth is None) == (names["loss/touched"]["n"] >= 100)


@pytest.mark.parametrize("name", ["retrain", "utu", "gnn_delete"])
def test_a_stored_model_takes_a_second_request(name, tmp_path):
    from expunge.training.store import load_trained, save_trained

    model, _ = trained()
    after = planning.plan(model, nodes(1, 5), registry.make(name, UNPROMISED.get(name))).run().after
    save_trained(tmp_path / "model", after)
    again = load_trained(tmp_path / "model", model.task, model.data if name == "utu" else after.data)
    assert again.recipe == model.recipe and again.data is not None and again.data.digest == after.data.digest
    later = planning.plan(again, nodes(9), registry.make("retrain")).run()
    assert not later.after.data.has(np.array([1, 5, 9])).any()


def test_another_share_of_nodes_is_another_forget_set():
    """Peers have been seen to reuse the forget set of before when the number of nodes was changed."""
    from expunge.bench.cells import Cell
    from expunge.bench.world import World
    from expunge.core.cache import Cache
    from expunge.modalities.graph.recipes import GraphRecipe

    common = {key: JOB[key] for key in ("task", "model", "data", "training")}
    recipes = [
        GraphRecipe(name="a", title="a", **common, forget={"kind": "node", "share": share}, methods={"utu": {}})
        for share in (0.1, 0.2)
    ]
    few, many = (World.of(recipe, Cache()).deletion(0).ids["node"] for recipe in recipes)
    assert len(few) == 18 and len(many) == 36
    keys = {Cell(row, 0, 0).key(recipe) for recipe in recipes for row in ("utu", "retrain")}
    assert len(keys) == 4 and recipes[0].digest != recipes[1].digest
