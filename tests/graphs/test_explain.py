"""``expunge explain``: from two files of weights and a job to a word, and numbers that say why."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import save_file

from expunge.cli import main
from expunge.core.cache import Cache
from expunge.core.data import selected
from expunge.core.errors import InputError
from expunge.evidence.explanations import attack
from expunge.jobs.schema import load_job
from expunge.modalities.graph import MODALITY
from expunge.modalities.graph.explaining import explain
from expunge.modalities.graph.page import page, write_explained

GONE = [3, 8, 9, 13, 22, 30, 31, 37, 40, 45, 51, 58, 60, 66, 71]


def write(folder: Path, targets: list) -> Path:
    """A graph whose words say little: training nodes are remembered, so that there is something to forget."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 200)
    x = (draw.random((200, 60)) < 0.1).astype(np.float32)
    pairs = np.unique(np.sort(draw.integers(0, 200, (260, 2)), 1), axis=0)
    np.savez(folder / "graph.npz", x=x, y=y, edges=pairs[pairs[:, 0] != pairs[:, 1]])
    job = {
        "task": "graph", "model": "gcn", "model_settings": {"hidden": 32, "dropout": 0.0},
        "data": {"format": "graph", "path": "graph.npz"},
        "training": {"kind": "whole_graph", "epochs": 80, "l2": 0.0},
        "request": {"subject": "a", "targets": targets}, "method": {"name": "retrain"},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


@functools.cache
def files(folder: Path) -> dict[str, Path]:
    """Weights trained on everything, on everything from another seed, and without what the job names."""
    job = load_job(write(folder, [{"kind": "node", "where": {"ids": GONE}}]))
    opened = MODALITY.open(job)
    assert opened.recipe is not None
    after = opened.data.without(selected(opened.data, job.request.asked()))
    made = {"original": (opened.data, 0), "other": (opened.data, 7), "retrained": (after, 7)}
    for name, (data, seed) in made.items():
        save_file(
            dict(opened.recipe.fit(opened.task, data, seed=seed).artifact.tensors), folder / f"{name}.safetensors"
        )
    return {name: folder / f"{name}.safetensors" for name in made}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("explain")


@pytest.mark.parametrize(
    ("name", "finding"), [("original", "residual"), ("other", "residual"), ("retrained", "forgotten")]
)
def test_a_model_is_told_from_one_whose_graph_was_cut(name, finding, place):
    weights = files(place)
    found = explain(
        load_job(place / "job.yaml"), weights["original"], weights[name], nulls=8, cache=Cache(place / "cache")
    )
    assert found["finding"] == finding, found["reason"]
    assert found["structure"]["as_asked"] and found["forgotten"] == {"node": len(GONE)}
    assert (
        found["legacy"]["ra_after"] == 0.0 < found["legacy"]["ra_before"]
    )  # of every model: it cannot tell them apart
    kl = found["replay"]["replay_kl"]
    assert (kl["unlearned"] > 3 * kl["retrained"]) == (finding == "residual")
    assert {each["decides"] for key, each in found["replay"].items() if key in ("replay_kl", "replay_accuracy")} == {
        False
    }


@pytest.mark.parametrize("targets", [
    [{"kind": "edge", "where": {"pairs": "first"}}],
    [{"kind": "feature", "where": {"node": GONE}}],
])  # fmt: skip
def test_edges_and_features_have_the_same_record(targets, place, tmp_path):
    weights = files(place)
    with np.load(place / "graph.npz") as found:
        pairs = found["edges"][:6].tolist()
    targets = [{**t, "where": {"pairs": pairs} if t["kind"] == "edge" else t["where"]} for t in targets]
    job = load_job(write(tmp_path, targets))
    record = explain(job, weights["original"], weights["original"], nulls=4, cache=Cache(tmp_path / "cache"))
    assert record["structure"]["edit_distance"] == (6 if targets[0]["kind"] == "edge" else 0)
    assert record["replay"]["replay_ra"]["original"] == record["replay"]["replay_ra"]["unlearned"] > 0
    assert record["finding"] in ("residual", "undecidable")  # nothing changed, and little may be remembered


def test_the_command_prints_one_object_and_a_table(place, capsys, monkeypatch):
    weights = files(place)
    monkeypatch.setenv("EXPUNGE_CACHE", str(place / "cache"))
    arguments = ["expunge", "explain", *map(str, (weights["original"], weights["original"]))]
    for more in (["--json"], []):
        monkeypatch.setattr("sys.argv", [*arguments, "--request", str(place / "job.yaml"), "--nulls", "8", *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        out = capsys.readouterr().out
        if more:
            assert json.loads(out)["finding"] == "residual"
        else:
            assert "residual (under-forgets)" in out and "replay_nll" in out and "decide nothing" in out


def test_a_page_draws_bands_and_a_neighbourhood_for_its_owner_alone(place, tmp_path):
    """Every number of the figures is in the record; the page holds no script and nothing from elsewhere."""
    weights = files(place)
    job = load_job(place / "job.yaml")
    record = explain(job, weights["original"], weights["other"], nulls=8, cache=Cache(place / "cache"))
    nll, around = record["replay"]["replay_nll"], record["neighbourhood"]
    low, high = nll["band"]
    assert len(nll["nulls"]) == 8 and low < min(nll["nulls"]) and max(nll["nulls"]) < high
    assert (low <= nll["unlearned"] <= high) == (abs(nll["z"]) <= 5.41)  # t at 0.1 % with 7 degrees
    assert set(np.array(around["nodes"])[around["named"]]) <= set(GONE) and sum(around["named"]) >= around["centres"]
    assert all(sum(shares) <= 100 + 1e-9 for shares in around["attribution"].values())
    assert record["fidelity"]["agreement"]["retrained"] <= 100
    assert record["fidelity"]["logit_distance"]["unlearned"] > 0
    paths = write_explained(record, tmp_path / "private")
    text = paths[0].read_text()
    assert text.count("<svg") == 2 and "<script" not in text and "http" not in text.replace("http://www.w3.org", "")
    assert "replay_" in record["reason"] and "replay_" not in text and "ra_before" not in text  # in words
    assert record["finding"].capitalize() in text and json.loads(paths[1].read_text())["finding"] == record["finding"]
    assert [path.stat().st_mode & 0o077 for path in (*paths, tmp_path / "private")] == [0, 0, 0]
    assert page(record) == page(json.loads(json.dumps(record)))


def test_another_explainer_changes_the_share_of_attribution_alone(place, monkeypatch):
    monkeypatch.setattr("expunge.evidence.explanations.explainers.STEPS", 3)
    weights = files(place)
    job, given = load_job(place / "job.yaml"), (weights["original"], weights["retrained"])
    one = explain(job, *given, nulls=4, cache=Cache(place / "cache"))
    other = explain(job, *given, nulls=4, explainer="integrated_gradients", cache=Cache(place / "cache"))
    assert other["explainer"] == "integrated_gradients"
    same = {name for name in one["replay"] if one["replay"][name]["unlearned"] == other["replay"][name]["unlearned"]}
    assert one["replay"].keys() - same == {"replay_ra"}
    with pytest.raises(InputError, match="explainer among saliency"):
        explain(job, *given, nulls=4, explainer="tea leaves")
    monkeypatch.setattr("expunge.modalities.graph.explaining.retrain_all", None)  # refused before anything is trained
    with pytest.raises(InputError, match="Attention is read of networks that have it"):
        explain(job, *given, nulls=4, explainer="attention")


def test_what_cannot_be_explained_is_refused_in_words(place, tmp_path):
    weights = files(place)
    job = load_job(place / "job.yaml")
    with pytest.raises(InputError, match="at least 3"):
        explain(job, weights["original"], weights["original"], nulls=2)
    with pytest.raises(InputError, match="another architecture"):
        other = load_job(place / "job.yaml", ["model_settings.hidden=16"])
        explain(other, weights["original"], weights["original"])
    with pytest.raises(InputError, match="task: graph"):
        explain(object(), weights["original"], weights["original"])


def test_likeness_and_movement_by_hand():
    p = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.0, 0.1, 0.9], [0.1, 0.0, 0.9]])
    area = attack.link_similarity(p, np.array([[0, 1], [2, 3]]), np.array([[0, 2], [1, 3]])).value
    likeness = np.corrcoef(p)
    assert area == 1.0 and min(likeness[0, 1], likeness[2, 3]) > max(likeness[0, 2], likeness[1, 3])
    moved = p + np.array([[0.0], [0.5], [0.0], [0.0]]) * np.array([1, -1, 0])
    assert attack.update_detection(p, moved, np.array([False, True, False, False])).value == 1.0
