"""Benchmarks of networks: numbers of all peers against a computation by hand, what leaves, poisoned images, shipped recipes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import yaml

from expunge.bench.recipe import load_recipe
from expunge.bench.run import BenchSettings, bench
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.data.backdoor import attack_sets, poisoned, triggered
from expunge.data.rows import Rows
from expunge.metrics.catalogue import column
from expunge.network.gossip import Gossip
from expunge.network.walk import Walk

SMALL = """
name: tiny_ring
title: A ring of four
task: classification
model: expunge.tasks.networks:SoftmaxHead
model_settings: {features: 9, classes: 10}
dtype: float64
data: {format: digits}
components: 8
network:
  clients: 4
  topology: {kind: ring}
  mixing: {consensus: false}
  recipe: {kind: gossip, rounds: 60, lr: 2.0, l2: 0.01}
forget: {kind: client}
smaller: {network.recipe: {rounds: 20}}
seeds: 1
methods:
  uncorrected: {method: no_op}
  horizon: {method: network_newton}
  stacked: {method: network_newton, correction: stacked}
  retraining: {method: retrain}
"""


def written(folder, **changes):
    content = yaml.safe_load(SMALL)
    for path, value in changes.items():
        *parts, last = path.split("__")
        place = content
        for part in parts:
            place = place[part]
        place[last] = value
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(str(path))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring")
    recipe = written(folder)
    record = bench(recipe, folder / "out", BenchSettings(jobs=1), cache=Cache(folder / "cache"))
    return recipe, record, folder


def values(record, row):
    rows = {item["method"]: item for item in (*record["rows"], record["reference"], record["source"])}
    return {name: item["mean"] for name, item in rows[row]["metrics"].items()}


def test_distances_are_those_of_the_peers_own_models(ran):
    recipe, record, folder = ran
    world = World.of(recipe, Cache(folder / "cache"))
    deletion = world.deletion(0)
    before = world.models([0])["source", 0, 0].views
    after = world.models([0])["retrain", 0, 0].views
    assert len(before) == 4 and len(after) == 3 and set(after) < set(before)
    gaps = torch.stack([(before[p]["linear.weight"] - after[p]["linear.weight"]).flatten() for p in after])
    found = values(record, "uncorrected")
    assert found["distance_to_retrained"] == pytest.approx(float(gaps.mean(0).norm()), rel=1e-9)
    assert found["distance_to_retrained_worst_peer"] == pytest.approx(float(gaps.norm(dim=1).max()), rel=1e-9)
    assert values(record, "source")["distance_to_retrained"] == found["distance_to_retrained"]
    assert len(deletion.forget) == record["n_forget"][0]


def test_corrections_come_closer_and_retraining_arrives(ran):
    _, record, _ = ran
    plain, horizon, stacked, again = (
        values(record, row) for row in ("uncorrected", "horizon", "stacked", "retraining")
    )
    assert horizon["distance_to_retrained"] < plain["distance_to_retrained"] / 2
    assert stacked["distance_to_retrained_worst_peer"] < horizon["distance_to_retrained_worst_peer"]
    assert again["distance_to_retrained_worst_peer"] == 0 and record["network"] is True
    for row in (plain, horizon):
        assert row["membership_loss_spread"] >= 0 and row["accuracy_worst_peer"] <= row["accuracy/test"]
    assert all(column(name) is not None for name in plain)
    assert all(row["outcome"] for row in record["rows"])


def test_quick_is_smaller_and_a_recipe_crosses_to_another_process(tmp_path):
    recipe = written(tmp_path)
    shorter = recipe.shortened()
    assert shorter.network.recipe.rounds == 20 and shorter.digest != recipe.digest
    crossed = pickle.loads(pickle.dumps(recipe))  # noqa: S301
    assert type(crossed) is type(recipe) and crossed == recipe


@pytest.mark.parametrize(("forget", "kind"), [
    ({"kind": "class_at_client", "label": 3}, "class"), ({"kind": "samples_at_client", "share": 0.1}, "samples"),
])  # fmt: skip
def test_what_leaves_belongs_to_one_client(tmp_path, forget, kind):
    world = World.of(written(tmp_path, forget=forget), Cache(tmp_path / "cache"))
    for number in range(2):
        deletion = world.deletion(number)
        assert len(deletion.forget.clients) == 1 and str(world.workload.request(number).kinds[0]) == kind
        assert len(deletion.after.clients) == 4
    assert world.deletion(0).forget.clients != world.deletion(1).forget.clients and world.workload.sets == 4


def test_a_backdoor_is_a_patch_with_the_attackers_label():
    generator = torch.Generator().manual_seed(0)
    rows = Rows.of(torch.rand(6, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2]))
    marked = triggered(rows, 2)
    assert (marked.x[..., -2:, -2:] == rows.x.max()).all() and torch.equal(marked.x[..., :-2, :], rows.x[..., :-2, :])
    bad = poisoned(rows, np.array([1, 4]), 2, 2)
    assert bad.y.tolist() == [0, 2, 2, 0, 2, 2] and torch.equal(bad.x[[0, 2, 3, 5]], rows.x[[0, 2, 3, 5]])
    assert torch.equal(bad.x[[1, 4]], marked.x[[1, 4]])
    sets = attack_sets(rows, 2, 2)
    assert len(sets["triggered"]) == 6 and len(sets["triggered_others"]) == 4
    assert {*sets["triggered"].y.tolist()} == {2} and torch.equal(sets["triggered"].x, marked.x)
    with pytest.raises(InputError, match="Expected images"):
        triggered(Rows.of(torch.rand(3, 4), torch.tensor([0, 1, 0])))


def test_what_cannot_be_a_network_is_refused(tmp_path):
    with pytest.raises(InputError, match="Expected images"):
        World.of(written(tmp_path, forget={"kind": "backdoor"}), Cache(tmp_path / "cache"))
    with pytest.raises(InputError, match="network holds nothing back"):
        World.of(written(tmp_path, validation=0.1), Cache(tmp_path / "cache"))
    with pytest.raises(InputError, match="kind"):
        written(tmp_path, forget={"kind": "user", "column": "person"})


@pytest.mark.parametrize("name", ["ring_newton", "client_removal", "rr_du_backdoor"])
def test_shipped_recipes_have_their_controls_and_smaller_data(name, real_data):
    recipe = load_recipe(name)
    assert recipe.shortened().data.limit == 6000
    for row in recipe.rows:
        recipe.method(row)
    kind = Walk if name == "rr_du_backdoor" else Gossip
    rows = (
        {"no_ascent", "noise_only", "ddp", "dp_sgd", "fine_tune"}
        if kind is Walk
        else {"uncorrected", "stacked", "full"}
    )
    assert rows <= recipe.rows.keys() and {item.row for item in recipe.published} <= recipe.rows.keys()
    small = recipe.shortened()
    workload = World.of(
        small.model_copy(update={"data": small.data.model_copy(update={"path": real_data("mnist")})})
    ).workload
    assert isinstance(workload.opened.recipe, kind) and len(workload.opened.data) == 6000
    assert len(workload.opened.data.clients) == 10
    if kind is Walk:
        request = workload.request(0)
        ids = np.concatenate([np.asarray(target.where["ids"]) for target in request.targets])
        poison = workload.opened.data.only(workload.opened.data.select(request.targets[0]))
        assert len(ids) == 100 and set(poison.y.tolist()) == {0} and poison.clients == ("0",)
