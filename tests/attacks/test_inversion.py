"""A peer that kept the model from before reads the forgotten record off the correction; noise for epsilon 1 hides it."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch
from tests.network.networks import digits, head, recipe

from expunge import planning
from expunge.attacks.inversion import inverted
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.core.trained import Budget, InMemoryBook
from expunge.data.partition import evenly
from expunge.methods.network_newton import NetworkNewton
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron

L2 = 0.05
FORGOTTEN = range(0, 960, 120)


@pytest.fixture(scope="module")
def network():
    data = evenly(digits(), 10)
    return planning.train(head(data), data, recipe(rounds=150, lr=1.5, l2=L2))


def read_off(network, method, row):
    """What another peer sees: whether label and record are the forgotten ones, and the share."""
    request = Request("a", (Target("samples", {"ids": [row]}),))
    outcome = planning.plan(replace(network, book=InMemoryBook()), request, method).run()
    data = network.data
    attacker = "1" if data.owners[row] == "0" else "0"
    found = inverted(
        network.task, data.held_by([attacker]), network.view(attacker).tensors, outcome.after.view(attacker).tensors, L2
    )
    return found.label == int(data.y[row]), found.nearest(data.x) == row, found.share


def test_a_difference_without_noise_is_the_record(network):
    """One of a thousand rows, by the curvature of a hundred others; guessing finds none in eight tries."""
    seen = [read_off(network, NetworkNewton(correction="difference"), row) for row in FORGOTTEN]
    labels, rows, shares = zip(*seen, strict=True)
    assert sum(labels) == 8 and sum(rows) >= 6 and min(shares) > 0.5


def test_noise_of_epsilon_one_hides_it(network):
    method = NetworkNewton(correction="full", distance=0.1, tau=2e-3)
    noisy = planning.publish(network, Budget(1.0, 1e-5, 10), method=method)
    seen = [read_off(noisy, method, row) for row in FORGOTTEN]
    labels, rows, shares = zip(*seen, strict=True)
    # by chance a label is right one time in ten, a row one time in a thousand; a single share was once .52, typically .3 to .4
    assert sum(labels) <= 4 and sum(rows) <= 1 and statistics.median(shares) < 0.5


def test_what_cannot_be_inverted_is_refused(network):
    data, task = network.data, network.task
    with pytest.raises(InputError, match="two models that differ"):
        inverted(task, data, network.secret, network.secret, L2)
    deep = Classification(lambda: perceptron([17, 4, 10]), dtype=torch.float64)
    weights = dict(deep.build().state_dict())
    with pytest.raises(InputError, match="linear head"):
        inverted(deep, data, weights, weights, L2)
