"""What the planner says has changed: weights, and not what counts batches."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from expunge import planning
from expunge.core.method import Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact
from expunge.data.rows import Rows
from expunge.methods import registry
from expunge.planning.released import change_of
from expunge.tasks.classification import Classification
from expunge.training.recipes import Stochastic


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_counters_are_no_weights():
    """A pass over 1,103 batches made "change 1,103": far more than all weights together."""
    task = Classification(normalised)
    before = planning.adopt(task, task.build())
    after = {name: tensor.clone() for name, tensor in before.artifact.tensors.items()}
    after["1.num_batches_tracked"] += 1103
    after["1.running_mean"] += 0.5
    change = change_of(before, Unlearned(views={"model": Artifact(after)}))
    assert "1.num_batches_tracked" not in change and change["1.running_mean"] == pytest.approx(0.5 * 4**0.5)
    assert {name: size for name, size in change.items() if size} == {"1.running_mean": pytest.approx(1.0)}


def test_a_run_on_batch_normalisation_reports_the_change_of_each_module_s_weights():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator)
    rows = Rows.of(x, (x[:, 0] > 0).int().numpy())
    trained = planning.train(Classification(functools.partial(normalised)), rows, Stochastic(epochs=2, lr=0.1))
    request = Request("somebody", (Target("samples", {"ids": [1, 2, 3]}),))
    outcome = planning.plan(trained, request, registry.make("fine_tune", {"epochs": 20, "batch_size": 4})).run()
    old, new = trained.artifact.tensors, outcome.releases[0].artifact.tensors
    assert int(new["1.num_batches_tracked"]) - int(old["1.num_batches_tracked"]) > 200, "it did count"
    assert set(outcome.change) == {name for name in old if not name.endswith("num_batches_tracked")}
    for name, size in outcome.change.items():
        assert size == pytest.approx(float((new[name] - old[name]).double().norm()), rel=1e-5)
