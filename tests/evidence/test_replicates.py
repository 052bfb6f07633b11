"""Retrainings from other seeds: small models train together, and are those that train alone."""

import functools

import pytest
import torch

from expunge import measuring, planning
from expunge.core.method import silent
from expunge.core.request import Request, Target
from expunge.data.rows import Rows
from expunge.measuring import MeasureSettings
from expunge.methods import registry
from expunge.tasks.classification import Classification
from expunge.tasks.networks import mlp
from expunge.training.recipes import Stochastic


@pytest.fixture
def outcome():
    generator = torch.Generator().manual_seed(0)
    rows = Rows.of(torch.randn(40, 4, generator=generator), torch.randint(0, 3, (40,), generator=generator))
    task = Classification(functools.partial(mlp, 4, 3, (5,)), dtype=torch.float64)
    trained = planning.train(task, rows, Stochastic(epochs=3, batch_size=8, lr=0.1, momentum=0.9), seed=2)
    request = Request("somebody", (Target("samples", {"ids": [0, 1, 2]}),))
    return planning.plan(trained, request, registry.make("fine_tune", {"epochs": 1}), key=b"k").run()


def test_replicates_that_train_together_are_those_that_train_alone(outcome, monkeypatch):
    settings, found = MeasureSettings(replicates=3), []
    retrained, _ = measuring._retrained(outcome, settings, silent)
    calls = []
    monkeypatch.setattr(measuring, "train_stacked", _counting(measuring.train_stacked, calls))
    for rule in (measuring.stackable, lambda *_: None):
        monkeypatch.setattr(measuring, "stackable", rule)
        found.append([weights("model") for weights in measuring._replicates(outcome, settings, retrained, silent)])
    assert len(calls) == 1
    together, alone = found
    for one, other in zip(together, alone, strict=True):
        assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-12
    first, second, *_ = together
    assert min(float((first[name] - second[name]).abs().max()) for name in first) > 1e-4, "seeds make a difference"


def _counting(function, calls):
    def counted(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return counted
