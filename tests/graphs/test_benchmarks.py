"""Benchmarks of methods that need what training left: a closed form, a perturbation, who is in which shard."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from expunge.bench.run import BenchSettings, bench
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.modalities.graph.recipes import GraphRecipe
from expunge.modalities.recipes import SOURCE
from expunge.training.graph_ridge import INVERSE
from expunge.training.graph_shards import NODES
from expunge.training.perturbed import PERTURBATION

LINEAR = {"model": "sgc", "model_settings": {"bias": False}, "dtype": "float64"}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "graph_editor": ({**LINEAR, "training": {"kind": "ridge"}}, INVERSE),
    "cgu": ({**LINEAR, "training": {"kind": "minimum", "l2": 1.0, "sigma": 0.5, "loss": "one_vs_rest"}}, PERTURBATION),
    "graph_eraser": ({"model": "gcn", "training": {"kind": "shards", "shards": 2, "epochs": 30}}, NODES),
}


def recipe_of(name: str) -> GraphRecipe:
    return GraphRecipe(
        name="tiny", title="tiny", task="graph", data={"format": "block_model", "preset": "small"}, **CASES[name][0],
        forget={"kind": "node", "share": 0.03}, retrained_models=3, seeds=1,
        methods={**({"retrain_again": {"method": "retrain"}, "no_op": {}} if name == "graph_editor" else {}), name: {}},
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_methods_find_what_training_left_and_so_does_a_later_run(name, tmp_path):
    recipe, cache = recipe_of(name), Cache(tmp_path / "cache")
    record = bench(recipe, tmp_path / "out", BenchSettings(jobs=1), cache=cache)
    rows = {row["method"]: row for row in record["rows"]}
    for row in rows.values():  # a budget that was too small was counted from what training left
        counted = "residuals of all removals come to" in row["reason"] and "inf" not in row["reason"]
        assert row["outcome"] is not None or counted, row
    worlds = [World.of(recipe, cache) for _ in range(2)]
    first, second = (world.source(world.models([0])[SOURCE, 0, 0]) for world in worlds)
    kept = CASES[name][1]
    assert torch.equal(first.secret[kept], second.secret[kept]) and first.facts == second.facts
    assert set(first.artifact.tensors) == set(
        first.task.released(first.task.build())
    )  # nothing secret is among the weights
    assert {"rows", "selection"} <= first.facts.keys()
    if name == "graph_editor":  # one solution whatever the seed
        assert (rows["retrain_again"]["finding"], rows["graph_editor"]["finding"]) == ("forgotten", "forgotten")
        assert rows["no_op"]["finding"] == "residual"
