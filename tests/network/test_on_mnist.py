"""Acceptance checks of corrections on real images: 6,000 of MNIST on 50 principal axes, ten clients. Minutes: ``slow``.

Thresholds are those of 60,000 images where they hold on 6,000 too; otherwise what was measured on 6,000, with room.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from expunge.bench.recipe import load_recipe
from expunge.core.cache import Cache
from expunge.core.data import Ids
from expunge.curvature.conjugate_gradient import conjugate_gradient
from expunge.modalities.network_benchmark import NetworkWorkload
from expunge.network.correction import correct, network_objective, residual_bound
from expunge.privacy.gaussian import sigma_of
from expunge.training.flat import flatten

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workload(real_data):
    from expunge.bench.world import World

    recipe = load_recipe("ring_newton").shortened()
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": real_data("mnist")})})
    found = World.of(recipe, Cache()).workload
    assert isinstance(found, NetworkWorkload)
    return found


def objectives(workload, share, l2):
    data, recipe = workload.opened.data, workload.opened.recipe
    own = data.at("0")
    gone = np.random.default_rng(0).choice(own, round(share * len(own)), replace=False)
    left, start = data.without(Ids.rows(data.ids[gone])), dict(workload.opened.task.build().state_dict())
    return [network_objective(workload.opened.task, rows, recipe.network_of(rows), l2, start) for rows in (data, left)]


def minimiser(f, theta):
    for _ in range(20):
        gradient = f.gradient(theta)
        if float(gradient.norm()) < 1e-13:
            break
        theta = theta - conjugate_gradient(functools.partial(f.hessian_product, theta), gradient, 1e-12).solution
    return theta


def right(workload, theta):
    test = workload.opened.probes["test"]
    return float(((test.x.double() @ theta.view(10, -1).T).argmax(1) == test.y).double().mean())


@pytest.mark.parametrize(("l2", "least"), [(1e-3, 150), (1e-2, 600)])
def test_checks_a04_a05_a15_a16_between_exact_minimisers(workload, l2, least):
    """A tenth of a client: one Newton step, the bound, and accuracy after noise at epsilon 1 for a distance of 4 B."""
    f, f_minus = objectives(workload, 0.1, l2)
    before = minimiser(f, torch.zeros(510, dtype=torch.float64))
    after = minimiser(f_minus, before)
    step = correct("difference", f, f_minus, before, tolerance=1e-12).step
    corrected = before - step
    actual = float((corrected - after).norm())
    assert float((before - after).norm()) / actual >= least
    bound = residual_bound(float(f_minus.gradient(corrected).norm()), 0.0, l2)
    assert actual <= bound <= 8 * actual  # A12: at most 6 on 60,000; 6.04 was measured here at 1e-3
    assert abs(right(workload, corrected) - right(workload, after)) <= 0.002  # A16
    generator, sigma = torch.Generator().manual_seed(0), sigma_of(4 * bound, 1.0, 1e-5)
    noisy = np.mean([
        right(workload, corrected + sigma * torch.randn(510, generator=generator, dtype=torch.float64)) for _ in range(20)
    ])  # fmt: skip
    assert abs(noisy - right(workload, after)) <= 0.003  # A15, which no unconverged network keeps


def test_checks_a06_a07_a18_of_unconverged_gossip(workload):
    """Gains of the mean model for a client and a tenth of one, and what a correction costs in passes over the data."""
    opened = workload.opened
    recipe = replace(opened.recipe, consensus=True)
    before = recipe.fit(opened.task, opened.data)
    names = list(before.artifact.tensors)
    theta = flatten(before.artifact.tensors, names)
    for number, share in ((0, None), (1, 0.1)):
        gone = opened.data.at(str(number))
        gone = gone if share is None else gone[: round(share * len(gone))]
        left = opened.data.without(Ids.rows(opened.data.ids[gone]))
        again = flatten(recipe.fit(opened.task, left).artifact.tensors, names)
        f, f_minus = (
            network_objective(opened.task, rows, recipe.network_of(rows), recipe.l2, before.artifact.tensors)
            for rows in (opened.data, left)
        )
        plain = float((theta - again).norm())
        for kind, least in (("difference", 7.5), ("horizon", 12)):
            found = correct(kind, f, f_minus, theta, lr=recipe.lr, rounds=recipe.rounds)
            assert plain / float((theta - found.step - again).norm()) >= least, (kind, share)
            # a product with the Hessian is two passes over the data where a gradient is one
            assert 2 * (found.products + 2) <= 0.5 * recipe.rounds, (kind, found.products)
