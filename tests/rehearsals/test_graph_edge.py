"""Rehearsal 1: edges go, rows that stay change, and a closed form follows them exactly."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from cases import FIXED, PointTask, squares
from expunge import planning
from expunge.core.certificate import Claim
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Trained
from expunge.measuring import measure
from expunge.training.facts import enforced

from .graphs import Graph


def ridge(x, y, more=0.0, moment=0.0):
    gram, right = x.T @ x + 0.1 * torch.eye(x.shape[1], dtype=x.dtype) + more, x.T @ y.double() + moment
    return Artifact({"theta": torch.linalg.solve(gram, right)}, "state")


class ClosedForm:
    def fit(self, task, data, *, seed, watch=None):
        facts = {"start": enforced("independent"), "selection": enforced("fixed"), "preprocessing": FIXED}
        return Trained(task, ridge(data.x, data.y), data, self, None, facts)


@dataclass(frozen=True)
class Downdate:
    name: ClassVar[str] = "downdate"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ("edge",), ("point",), ("retained data", "forgotten data"), "weights", True
    )

    def check(self, context):
        return Estimate(len(context.deletion.touched))

    def run(self, context):
        d = context.deletion
        old, new = (data.only(d.touched) for data in (d.before, d.after))
        more = new.x.T @ new.x - old.x.T @ old.x, (new.x - old.x).T @ new.y.double()
        state = ridge(d.before.x, d.before.y, *more)
        return Unlearned({"model": state}, Claim("retrain", {"sigma": 0.0, "delta": 1e-5}, {}, d.after.digest))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_edge_goes_and_retained_rows_change(seed):
    rng = np.random.default_rng(seed)
    edges = {10 + i: (i, (i + 1 + i % 3) % 12) for i in range(12)}
    graph = Graph(*map(torch.from_numpy, (rng.standard_normal((12, 3)), rng.integers(0, 2, 12))), edges, np.arange(12))
    trained = planning.train(PointTask(3, squares), graph, ClosedForm())
    outcome = planning.plan(trained, Request("a", (Target("edge", {"ids": [13, 15]}),)), Downdate()).run()
    evidence = measure(outcome)
    assert outcome.deletion.size == 2 and len(outcome.deletion.touched) == 4 and len(outcome.after.data) == 12
    distance = evidence["distance"]
    assert outcome.verdict == "unreplayed-plug-in"  # exact, and only its author says so
    assert distance.value < 1e-12 < distance.original
    assert evidence["loss/touched"].agrees and outcome.after.removed["edge"].tolist() == [13, 15]
