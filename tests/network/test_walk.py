"""Token walks: statistics in closed form, the accountants' table, and training by a token."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tests.network.networks import NAMES, head, partition

from expunge import planning
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.network.topology import KINDS, Topology
from expunge.network.walk import Token, Walk, segments, walk, walk_with_restarts
from expunge.privacy.token_walk import (
    claimed_epsilon,
    conservative_epsilon,
    conservative_sigma,
    inverse_delay,
    iterated_mu,
    sensitivity,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restart", [0.1, 0.3])
def test_check_b01_visits_are_binomial_and_segments_geometric(kind, restart):
    topology, generator = Topology.make(kind, NAMES), np.random.default_rng(0)
    walks = [walk_with_restarts(topology, 100, 3, restart, generator) for _ in range(400)]
    visits = np.array([holders.count(3) for holders in walks])
    assert abs(visits.mean() - 100 * restart) < 4 * np.sqrt(100 * restart * (1 - restart) / 400)
    assert visits.var() == pytest.approx(100 * restart * (1 - restart), rel=0.3)
    long = walk_with_restarts(topology, 40_000, 3, restart, generator)
    gaps = np.array(segments(long, 3))
    counted = np.bincount(np.minimum(gaps, 12), minlength=13)[1:]
    expected = np.array([restart * (1 - restart) ** (k - 1) for k in range(1, 12)] + [(1 - restart) ** 11]) * len(gaps)
    assert chisquare(counted, expected).pvalue > 1e-3
    for before, after in itertools.pairwise(long):
        assert after in (3, before) or topology.graph.has_edge(before, after)
        assert after != before or before == 3 or set(topology.graph.neighbors(before)) <= {3}


@pytest.mark.parametrize(("peers", "restart"), [(10, 0.1), (50, 0.02), (10, 0.5)])
def test_check_b01_the_mean_of_one_over_the_delay(peers, restart):
    q = (1 - restart) / (peers - 1)
    exact = sum(q * (1 - q) ** (k - 1) / k for k in range(1, 20_000))
    assert inverse_delay(peers, restart) == pytest.approx(exact, rel=1e-6)
    drawn = np.random.default_rng(0).geometric(q, 200_000)
    assert (1 / drawn).mean() == pytest.approx(exact, rel=0.02)


def test_a_walk_on_a_complete_graph_visits_all_peers_alike():
    holders = walk(Topology.make("complete", NAMES), 50_000, np.random.default_rng(1))
    counts = np.bincount(holders, minlength=10)
    assert np.abs(counts / 5000 - 1).max() < 0.06


# Delta → epsilon at sigma 2.574 (conservative, as claimed), and sigma for epsilon 1 (conservative); N = 10, p = .1, 10 visits
TABLE = [(1.0, 5.56, 2.76, 11.80), (0.5, 2.51, 1.28, 5.90), (0.5 / 6, 0.35, 0.18, 0.98)]


@pytest.mark.parametrize(("apart", "conservative", "claimed", "sigma"), TABLE)
def test_check_b04_the_accountants_table(apart, conservative, claimed, sigma):
    kappa = inverse_delay(10, 0.1)
    assert conservative_epsilon(10, apart, 2.574, 1e-5) == pytest.approx(conservative, abs=5.1e-3)
    assert claimed_epsilon(10, apart, 2.574, 1e-5, kappa) == pytest.approx(claimed, abs=1e-2)
    assert conservative_sigma(10, apart, 1.0, 1e-5) == pytest.approx(sigma, abs=6e-3)
    # by a grid over orders instead of a search
    rho = kappa * 10 * apart**2 / (2 * 2.574**2)
    alphas = 1 + np.geomspace(1e-3, 1e5, 400_000)
    assert claimed_epsilon(10, apart, 2.574, 1e-5, kappa) == pytest.approx(
        (rho * alphas + np.log1p(-1 / alphas) + (np.log(1e5) - np.log(alphas)) / (alphas - 1)).min(), rel=1e-6
    )


@pytest.mark.parametrize("peers", [5, 10, 50, 100])
@pytest.mark.parametrize("sigma", [1.0, 2.574, 10.0])
@pytest.mark.parametrize("visits", [1, 10, 27])
def test_check_b05_what_is_claimed_is_below_the_conservative_and_both_are_monotone(peers, sigma, visits):
    kappa = inverse_delay(peers, 1 / peers)
    one, both = conservative_epsilon(visits, 0.5, sigma, 1e-5), claimed_epsilon(visits, 0.5, sigma, 1e-5, kappa)
    assert both <= one
    assert conservative_epsilon(visits + 1, 0.5, sigma, 1e-5) > one > conservative_epsilon(visits, 0.5, 2 * sigma, 1e-5)
    assert (
        claimed_epsilon(visits + 1, 0.5, sigma, 1e-5, kappa)
        > both
        > claimed_epsilon(visits, 0.5, 2 * sigma, 1e-5, kappa)
    )


def test_check_b05_adjacencies_say_what_depends_on_how_much_goes():
    assert [sensitivity("query", 0.5, share, False) for share in (0.01, 0.9)] == [0.5, 0.5]
    assert [sensitivity("replace", 0.5, share, False) for share in (0.01, 0.9)] == [1.0, 1.0]
    assert [sensitivity("forgotten", 0.5, share, False) for share in (0.1, 0.5)] == [0.05, 0.25]
    assert sensitivity("forgotten", 0.5, 0.5, True) == 0
    with pytest.raises(InputError, match="replace, query, forgotten"):
        sensitivity("nobody", 0.5, 0.5, True)


@pytest.mark.parametrize("seed", range(5))
def test_tier_t1b_is_exact_where_all_maps_are_linear(seed):
    """x <- c x + noise from two starts: two Gaussians of one variance, whose distance over deviation is mu."""
    generator = np.random.default_rng(seed)
    contractions, noise, apart = generator.uniform(0.3, 1.0, 6).tolist(), 0.7, 2.0
    mean, variance = apart, 0.0
    for c in contractions:
        mean, variance = c * mean, c**2 * variance + noise**2
    assert iterated_mu(apart, noise, contractions) == pytest.approx(mean / variance**0.5, rel=1e-12)
    assert iterated_mu(apart, noise, [1.0] * 9) == pytest.approx(apart / (3 * noise))  # the square root of the visits
    for wrong in ([], [1.2], [0.0]):
        with pytest.raises(InputError, match="contractions in"):
            iterated_mu(apart, noise, wrong)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_token_trains_a_network_and_all_get_its_model(optimizer):
    data = partition()
    settings = {"hops": 20, "steps": 3, "lr": 0.1 if optimizer == "adam" else 1.0, "optimizer": optimizer}
    recipe = Walk(topology=Topology.make("ring", NAMES), **settings)
    trained = planning.train(head(data), data, recipe)
    again = planning.train(head(data), data, recipe)
    assert torch.equal(trained.artifact.tensors["linear.weight"], again.artifact.tensors["linear.weight"])
    assert tuple(trained.views) == NAMES and len({id(view) for view in trained.views.values()}) == 1
    task, batch = trained.task, trained.task.batch(data)
    outputs = task.outputs(task.build(), trained.artifact.tensors, batch).logits
    assert (outputs.argmax(1) == data.y).double().mean() > 0.6
    left = data.without(data.select(Target("client", {"client": "3"})))
    assert "3" not in recipe.fit(head(data), left).views


def test_moments_stay_with_the_peers_and_the_token_is_the_model_alone():
    data = partition()
    task = head(data)
    token = Token.of(task, dict(task.build().state_dict()), "adam", 0.1)
    first, second, generator = token.local(), token.local(), np.random.default_rng(0)
    token.descend(data, data.at("0"), first, generator, 2, 8)
    assert first.state and not second.state
    assert set(token.tensors()) == {"linear.weight"}


def test_settings_that_cannot_be_meant_are_refused():
    ring = Topology.make("ring", NAMES)
    for settings in ({"hops": 0}, {"lr": 0.0}, {"steps": 0}):
        with pytest.raises(InputError, match="Expected"):
            Walk(**{"topology": ring, "hops": 3, "lr": 0.1, **settings})
    with pytest.raises(InputError, match="restart probability"):
        walk_with_restarts(ring, 5, 0, 0.0, np.random.default_rng(0))
    with pytest.raises(InputError, match="nowhere to go"):
        walk_with_restarts(Topology.make("ring", ["a"]), 5, 0, 0.5, np.random.default_rng(0))
    with pytest.raises(InputError, match="adam or sgd"):
        Walk(topology=ring, hops=1, lr=0.1, optimizer="none").fit(head(partition()), partition())
