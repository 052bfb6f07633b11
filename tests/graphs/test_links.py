"""Prediction of edges: pairs and their labels, the loss by its formula, and jobs from file to verified evidence."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from expunge import planning
from expunge.bench.run import BenchSettings, bench
from expunge.core.cache import Cache
from expunge.core.data import Deletion, selected
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import Links, split_links
from expunge.evidence.explanations import attribution
from expunge.evidence.explanations.links import answered
from expunge.evidence.explanations.replay import Scene, played
from expunge.jobs.run import run_job
from expunge.jobs.schema import load_job
from expunge.methods import registry
from expunge.metrics.intervals import auc_interval
from expunge.modalities.graph import MODALITY
from expunge.modalities.graph.config import GraphJob
from expunge.modalities.graph.explaining import explain
from expunge.modalities.graph.page import page
from expunge.modalities.graph.recipes import GraphRecipe
from expunge.report.verify import verify_folder
from expunge.tasks.graphs.links import LinkPrediction
from expunge.tasks.graphs.networks import GCN
from expunge.training.graphs import GraphTraining


@functools.cache
def made(seed: int = 0) -> tuple[Links, dict[str, Links]]:
    found = block_model(BlockModel(150, 500, 30, 5, homophily=0.9, words=8, topical=0.7), seed)
    links, sets = split_links(found, 0.85, 0.05, seed)
    return links.deep(2), {name: each.deep(2) for name, each in sets.items()}


def task_of(**settings) -> LinkPrediction:
    return LinkPrediction.of(functools.partial(GCN, 30, 16, hidden=16, **settings))


@functools.cache
def trained(seed: int = 0) -> Trained:
    return planning.train(task_of(), made(seed)[0], GraphTraining(epochs=80, l2=0.0), seed=seed)


def edges(links: Links, count: int, start: int = 0) -> Request:
    return Request("a", (Target("edge", {"pairs": links.graph.edges[start : start + count].tolist()}),))


def scores(model: Trained, links: Links) -> np.ndarray:
    built, batch = model.task.build(model.artifact.tensors).eval(), model.task.batch(links)
    with torch.no_grad():
        logits = model.task.outputs(built, dict(built.named_parameters()), batch).logits
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def area(model: Trained, links: Links) -> float:
    found = scores(model, links)
    return auc_interval(found[links.joined], found[~links.joined]).value


def test_pairs_are_edges_and_as_many_others_and_none_is_in_two_sets():
    whole = block_model(BlockModel(150, 500, 30, 5, homophily=0.9, words=8, topical=0.7), 0)
    links, sets = made()
    known = {tuple(pair) for pair in whole.edges.tolist()}
    every = [links, *sets.values()]
    joined = [tuple(pair) for each in every for pair in each.pairs[each.joined].tolist()]
    apart = [tuple(pair) for each in every for pair in each.pairs[~each.joined].tolist()]
    assert len(joined) == len(set(joined)) == len(apart) == len(set(apart)) == 500
    assert set(joined) == known and not known & set(apart) and all(a < b for a, b in joined + apart)
    assert np.array_equal(links.graph.edges, links.pairs[links.joined]) and len(links.graph.edges) == 425
    assert all(each.graph is not whole and len(each.graph.edges) == 425 for each in sets.values())
    with pytest.raises(InputError, match="leave some to test on"):
        split_links(whole, 0.9, 0.1, 0)


def test_what_goes_leaves_its_pairs_and_the_rest_keeps_its_ids():
    links, _ = made()
    pair, node = links.graph.edges[3].tolist(), int(links.graph.edges[40, 0])
    targets = (Target("edge", {"pairs": [pair]}), Target("node", {"ids": [node]}))
    deletion = Deletion.of(links, Request("a", targets))
    left = {tuple(each) for each in deletion.after.pairs[deletion.after.joined].tolist()}
    assert left == {tuple(e) for e in links.graph.edges.tolist() if e != pair and node not in e}
    assert not (deletion.after.pairs[~deletion.after.joined] == node).any()
    assert deletion.forget.joined.all() and {tuple(p) for p in deletion.forget.pairs.tolist()} == {
        tuple(e) for e in links.graph.edges.tolist() if e == pair or node in e
    }
    assert links.examples_in(deletion.ids) == len(links) - len(deletion.after)
    assert deletion.after.digest != links.digest == made()[0].digest
    reached = {tuple(np.divmod(int(i), 2**32)) for i in deletion.touched["edge"]}
    assert reached and reached <= left


def test_the_loss_is_the_logistic_loss_of_inner_products():
    links, _ = made()
    task = task_of()
    model, batch = task.build(seed=2).eval(), task.batch(links)
    params = dict(model.named_parameters())
    z = model(batch["x"], batch["edge_index"]).detach().double().numpy()
    first, second = links.graph.positions(links.pairs).T
    s = (z[first] * z[second]).sum(1)
    expected = np.log1p(np.exp(-np.where(links.joined, s, -s)))
    assert np.allclose(task.losses(model, params, batch).detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    assert np.allclose(
        task.losses(model, params, batch.take(torch.tensor([5, 2]))).detach().numpy(), expected[[5, 2]], rtol=1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_links_are_learnt_and_retraining_is_training_without_the_edges(seed):
    links, sets = made(seed)
    model = trained(seed)
    assert area(model, sets["test"]) > 0.7 and area(model, links) > area(model, sets["test"])
    outcome = planning.plan(model, edges(links, 20), registry.make("retrain")).run()
    by_hand = GraphTraining(epochs=80, l2=0.0).fit(model.task, links.without(outcome.deletion.ids), seed=seed)
    for name, tensor in by_hand.artifact.tensors.items():
        assert torch.equal(outcome.releases[0].artifact.tensors[name], tensor)
    gone = outcome.deletion.forget
    assert scores(outcome.after, gone).mean() < scores(model, gone).mean()  # on the graph as it was


@pytest.mark.parametrize("name", ["utu", "gnn_delete", "fine_tune", "gradient_ascent"])
def test_methods_serve_links(name):
    model, (links, sets) = trained(), made()
    settings = {"gnn_delete": {"epochs": 10, "lr": 1e-2}, "gradient_ascent": {"lr": 0.05}}.get(name, {})
    outcome = planning.plan(model, edges(links, 10), registry.make(name, settings), probes=sets).run()
    assert len(outcome.after.data.graph.edges) == len(links.graph.edges) - 10
    if name == "utu":
        assert outcome.after.artifact is model.artifact
    if name == "gnn_delete":
        assert any(key.startswith("deletion.") for key in outcome.releases[0].artifact.tensors)


@pytest.mark.parametrize("name", ["gif", "graph_editor", "graph_eraser"])
def test_methods_for_labels_are_refused(name):
    with pytest.raises(RefusedError):
        planning.plan(trained(), edges(made()[0], 3), registry.make(name)).run()


JOB = {
    "task": "graph", "model": "gcn", "predict": "links",
    "data": {"format": "block_model", "preset": "small", "split": {"kind": "shares", "train": 0.8, "validation": 0.05}},
    "training": {"kind": "whole_graph", "epochs": 5}, "method": {"name": "retrain"},
    "evidence": {"replicates": 0, "pdf": False},
}  # fmt: skip


def job(folder: Path, **changes) -> Path:
    graph: Graph = split_links(block_model("small"), 0.8, 0.05, 0)[0].graph
    request = {"subject": "a", "targets": [{"kind": "edge", "where": {"pairs": graph.edges[[3, 50]].tolist()}}]}
    (folder / "job.yaml").write_text(yaml.safe_dump({**JOB, "request": request, **changes}))
    return folder / "job.yaml"


@pytest.mark.parametrize("name", ["retrain", "utu"])
def test_a_job_on_links_runs_to_verified_evidence(name, tmp_path):
    run_job(job(tmp_path, method={"name": name}), (), tmp_path / "out")
    assert verify_folder(tmp_path / "out").consistent
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["runs"][0]["verdict"] == {"retrain": "certified-under-declared-constants", "utu": "unchanged"}[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"format": "block_model", "preset": "small", "split": {"kind": "per_class"}}}, "split by shares"),
        ({"training": {"kind": "ridge"}}, "for labels of nodes"),
    ],
)
def test_jobs_on_links_that_cannot_be_meant_are_refused(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run_job(job(tmp_path, **changes), (), tmp_path / "out")


# --- replay, explanations and tables ------------------------------------------------------------------------------------


def test_replay_of_edges_is_the_logistic_loss_on_the_graph_as_it_was():
    links, sets = made()
    model, request = trained(), edges(made()[0], 12, 30)
    deletion = Deletion.of(links, request)
    scene = Scene.of(deletion, sets["test"], 3)
    found = played(model.task, model.artifact.tensors, scene)
    own = scores(model, links)[links.joined][30:42]  # joined pairs stand in the order of the edges
    assert found.statistics["replay_nll"] == pytest.approx(np.log1p(np.exp(-own)).mean(), rel=1e-5)
    assert found.statistics["replay_probability"] == pytest.approx(100 * (1 / (1 + np.exp(-own))).mean(), rel=1e-5)
    assert len(scene.unseen) == 12 and scene.unseen.joined.all() and scene.unseen.graph is links.graph
    unseen = {tuple(pair) for pair in scene.unseen.pairs.tolist()}
    assert unseen <= {tuple(pair) for pair in sets["test"].pairs[sets["test"].joined].tolist()}
    others = scores(model, scene.unseen)
    above = (own[:, None] > others[None, :]).mean() + (own[:, None] == others[None, :]).mean() / 2
    assert found.statistics["replay_auc"] == pytest.approx(above)


def test_the_attribution_of_edges_is_a_finite_difference_of_the_loss_of_pairs():
    links, _ = made()
    task = LinkPrediction.of(functools.partial(GCN, 30, 16, hidden=16), dtype=torch.float64)
    tensors = task.released(task.build(seed=1))
    model, batch, h = task.build(tensors).eval(), task.batch(links), 1e-5
    found = attribution.of_edges(task, tensors, links)
    for edge in (0, 7, 100):
        values = []
        for more in (h, -h):
            weight = torch.ones(2 * len(links.graph.edges), dtype=torch.float64)
            weight[[edge, edge + len(links.graph.edges)]] += more
            with torch.no_grad():
                values.append(float(task.losses(model, dict(model.named_parameters()), batch, weight).mean()))
        assert found[edge] == pytest.approx(abs(values[0] - values[1]) / (2 * h), rel=1e-4, abs=1e-9)


def test_what_gnndelete_measures_by_hand():
    links, sets = made()
    model, deletion = trained(), Deletion.of(links, edges(links, 9))
    found = answered(model.task, model.artifact.tensors, deletion.after, deletion, sets["test"])
    gone = scores(model, deletion.forget.within(deletion.after))
    kept = scores(model, deletion.after)[deletion.after.joined]
    assert found["deleted_auc"] == pytest.approx((kept[:, None] > gone[None, :]).mean(), abs=1e-9)
    assert found["deleted_probability"] == pytest.approx(100 * (1 / (1 + np.exp(-gone))).mean(), rel=1e-5)
    test = sets["test"].within(deletion.after)
    s = scores(model, test)
    assert found["link_auc"] == pytest.approx((s[test.joined][:, None] > s[~test.joined][None, :]).mean(), abs=1e-9)
    assert found["link_stealing"] == pytest.approx((gone[:, None] > s[~test.joined][None, :]).mean(), abs=1e-9)


def written(folder: Path, seed: int = 0, nodes: int = 60, count: int = 150, epochs: int = 10) -> Path:
    """Edges among nodes whose features say nothing of them are remembered, so that there is something to forget."""
    draw = np.random.default_rng(seed)
    pairs = np.unique(np.sort(draw.integers(0, nodes, (count, 2)), 1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    x = (draw.random((nodes, 80)) < 0.1).astype(np.float32)
    np.savez(folder / "graph.npz", x=x, y=np.zeros(nodes, int), edges=pairs)
    split = {"kind": "shares", "train": 0.8, "validation": 0.05}
    chosen = split_links(Graph.of(x, np.zeros(nodes, int), pairs), 0.8, 0.05, 0)[0].graph.edges[::4].tolist()
    changes = {
        "data": {"format": "graph", "path": "graph.npz", "split": split},
        "model_settings": {"hidden": 32, "dropout": 0.0}, "training": {"kind": "whole_graph", "epochs": epochs, "l2": 0.0},
        "request": {"subject": "a", "targets": [{"kind": "edge", "where": {"pairs": chosen}}]},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump({**JOB, **changes}))
    return folder / "job.yaml"


def weights_of(read: GraphJob, folder: Path) -> dict[str, Path]:
    """Weights trained on everything, on everything from another seed, and without what the job names."""
    opened = MODALITY.open(read)
    assert opened.recipe is not None
    after = opened.data.without(selected(opened.data, read.request.asked()))
    made = {"original": (opened.data, 0), "other": (opened.data, 7), "retrained": (after, 7)}
    for name, (data, seed) in made.items():
        tensors = opened.recipe.fit(opened.task, data, seed=seed).artifact.tensors
        save_file(dict(tensors), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in made}


def test_explanations_of_links_have_the_same_record(tmp_path):
    read = load_job(written(tmp_path))
    weights = weights_of(read, tmp_path)
    record = explain(read, weights["original"], weights["original"], nulls=3, cache=Cache(tmp_path / "cache"))
    gone = record["forgotten"]["edge"]
    assert record["structure"] == {"edit_distance": gone, "nodes": 0, "edges": gone, "features": 0, "as_asked": True}
    assert record["finding"] in ("residual", "undecidable")  # not a weight changed
    for each in record["replay"].values():
        assert each["original"] == each["unlearned"] != each["retrained"]
    kept = record["replay"]["replay_kept"]
    assert kept["decides"] and len(kept["nulls"]) == 3
    assert {"link_auc_after", "deleted_auc_before", "deleted_probability_after"} <= record["legacy"].keys()
    assert 0 <= record["attack"]["link_stealing_retrained"] <= 1
    text = page(record)
    assert text.count("<svg") == 2 and record["finding"].capitalize() in text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_model_is_told_from_one_whose_edges_were_merely_cut(seed, tmp_path):
    """Truth known: the same weights, weights from another seed on everything, and one more retraining."""
    read = load_job(written(tmp_path, seed, 250, 900, 100))
    weights, cache = weights_of(read, tmp_path), Cache(tmp_path / "cache")
    for name, words in {"original": ["residual"], "other": ["residual", "partial"], "retrained": ["forgotten"]}.items():
        record = explain(read, weights["original"], weights[name], cache=cache)
        assert record["finding"] in words, (name, record["reason"])


def test_a_table_of_methods_on_links(tmp_path):
    recipe = GraphRecipe(
        name="tiny", title="tiny", task="graph", predict="links", model="gcn", data=JOB["data"],
        model_settings={"dropout": 0.0}, training={"kind": "whole_graph", "epochs": 60, "lr": 0.02},
        forget={"kind": "edge", "share": 0.05},
        retrained_models=3, seeds=1, methods={"no_op": {}, "utu": {}},
    )  # fmt: skip
    record = bench(recipe, tmp_path / "out", BenchSettings(jobs=1), cache=Cache(tmp_path / "cache"))
    rows = {row["method"]: row for row in record["rows"]}
    names = {"replay_nll", "replay_ra", "replay_auc", "replay_kept", "link_auc", "deleted_auc", "link_stealing"}
    for row in rows.values():
        assert names <= row["metrics"].keys() and "legacy_ra" not in row["metrics"] and row["finding"]
    same = {name: [rows[row]["metrics"][name]["mean"] for row in ("no_op", "utu")] for name in names}
    assert all(first == second for first, second in same.values())  # neither changes a weight
