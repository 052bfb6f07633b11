"""Rehearsal 2: two peers without a server, one release for each."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from cases import FIXED, Partition, PointTask, attraction
from expunge import planning
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Trained
from expunge.measuring import measure


class Gossip:
    """Each peer keeps the mean of its own rows, then leans a quarter towards its neighbour."""

    def fit(self, task, data, *, seed, watch=None):
        own = [data.x[torch.from_numpy(data.columns["peer"] == peer)].mean(0) for peer in (0, 1)]
        views = {f"peer {i}": Artifact({"theta": 0.75 * own[i] + 0.25 * own[1 - i]}) for i in (0, 1)}
        return Trained(task, views["peer 0"], data, self, seed=seed, views=views)


@dataclass(frozen=True)
class Correction:
    name: ClassVar[str] = "correction"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ("samples", "client"), ("point",), ("retained data",), "weights", False, "-"
    )

    def check(self, context):
        return Estimate(len(context.deletion.forget))

    def run(self, context):
        views = Gossip().fit(context.task, context.deletion.after, seed=0).views
        return Unlearned({name: Artifact(dict(view.tensors)) for name, view in views.items()})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_peer_gets_its_own_release_and_the_next_request_starts_there(seed):
    x = np.random.default_rng(seed).standard_normal((20, 3))
    columns = {"peer": np.arange(20) % 2, "owner": np.arange(20) // 4}
    data = Partition.of(x, np.zeros(20, dtype=int), columns, preprocessing=FIXED)
    trained = planning.train(PointTask(3, attraction(1.0)), data, Gossip())
    outcome = planning.plan(trained, Request("a", (Target("client", {"owner": 2}),)), Correction()).run()
    evidence = measure(outcome)
    assert [release.view for release in outcome.releases] == ["peer 0", "peer 1"] and outcome.deletion.size == 4
    assert all(np.isfinite(size) and size > 0 for size in outcome.change.values())
    for release in outcome.releases:
        assert outcome.after.view(release.view) is release.artifact
        assert evidence["distance", None, release.view].value == 0
        assert evidence["loss", "retain", release.view].agrees
    assert evidence["loss/forget@peer 0"].value != evidence["loss/forget@peer 1"].value
    second = planning.plan(outcome.after, Request("b", (Target("samples", {"ids": [0, 1]}),)), Correction()).run()
    assert second.after.removed["row"].tolist() == [0, 1, 8, 9, 10, 11]
    assert second.before.view("peer 1").digest == outcome.releases[1].artifact.digest
