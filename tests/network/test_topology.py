"""Who talks to whom, and what mixing does: closed forms."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch
from scipy import sparse

from expunge.core.errors import InputError, RefusedError
from expunge.network.influence import spread, unequal
from expunge.network.mixing import as_torch, metropolis, mixed, must_mix, rounds_to, second_eigenvalue, with_drops
from expunge.network.topology import KINDS, Topology

NAMES = tuple(str(i) for i in range(10))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 10, 12])
def test_check_a01_metropolis_weights_are_symmetric_and_doubly_stochastic(kind, count):
    topology = Topology.make(kind, [str(i) for i in range(count)])
    matrix = metropolis(topology)
    must_mix(matrix, topology)
    dense = matrix.toarray()
    assert np.abs(dense - dense.T).max() <= 1e-12 and np.abs(dense.sum(0) - 1).max() <= 1e-12 and dense.min() >= 0
    assert second_eigenvalue(matrix) < 1


def test_check_a01_eigenvalues_are_those_of_the_cosine():
    """Of a ring every weight is 1/3: eigenvalues (1 + 2 cos(2 pi k / n)) / 3."""
    ring = metropolis(Topology.make("ring", NAMES))
    assert second_eigenvalue(ring) == pytest.approx((1 + 2 * np.cos(2 * np.pi / 10)) / 3, abs=1e-12)
    assert second_eigenvalue(ring) == pytest.approx(0.873, abs=1e-3)
    assert second_eigenvalue(metropolis(Topology.make("grid", NAMES))) == pytest.approx(0.905, abs=1e-3)
    assert second_eigenvalue(metropolis(Topology.make("complete", NAMES))) == pytest.approx(0, abs=1e-12)
    large = metropolis(Topology.make("ring", [str(i) for i in range(600)]))  # by iteration
    assert second_eigenvalue(large) == pytest.approx((1 + 2 * np.cos(2 * np.pi / 600)) / 3, abs=1e-9)
    assert [rounds_to(1e-2, metropolis(Topology.make(kind, NAMES))) for kind in ("ring", "grid", "complete")] == [
        34,
        46,
        1,
    ]


@pytest.mark.parametrize("count", [10, 100])  # dense and sparse products
def test_mixing_keeps_the_mean_and_shrinks_disagreement_by_the_eigenvalue(count):
    topology = Topology.make("ring", [str(i) for i in range(count)])
    matrix = metropolis(topology)
    stacked = torch.randn(count, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = as_torch(matrix)
    for rounds in (1, 5, 20):
        after = mixed(product, stacked, rounds)
        assert torch.allclose(after.mean(0), stacked.mean(0), atol=1e-13)
        apart, before = after - after.mean(0), stacked - stacked.mean(0)
        assert apart.norm() <= second_eigenvalue(matrix) ** rounds * before.norm() * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_round_that_loses_messages_still_keeps_the_mean(seed):
    topology = Topology.make("erdos_renyi", NAMES, seed=seed)
    matrix, lost = metropolis(topology), np.random.default_rng(seed).random(len(topology.edges)) < 0.3
    effective = with_drops(matrix, lost, topology)
    must_mix(effective, topology)
    for (i, j), gone in zip(topology.edges, lost, strict=True):
        assert effective[i, j] == (0 if gone else pytest.approx(matrix[i, j]))
    assert np.array_equal(with_drops(matrix, lost & False, topology).toarray(), matrix.toarray())
    assert np.array_equal(with_drops(matrix, lost | True, topology).toarray(), np.eye(10))  # nobody hears anybody


def test_a_matrix_that_does_not_fit_is_refused():
    topology = Topology.make("ring", NAMES)
    matrix = metropolis(topology).toarray()
    for change, said in (
        (lambda q: q + np.eye(10) * 1e-6, "doubly stochastic"),
        (lambda q: np.eye(9), "shape"),
        (lambda q: np.full((10, 10), 0.1), "no neighbours"),
        (lambda q: np.where(np.eye(10) > 0, np.nan, q), "negative or none"),
    ):
        with pytest.raises(InputError, match=said):
            must_mix(sparse.csr_array(change(matrix)), topology)


def test_a_network_in_parts_is_refused_and_says_which():
    with pytest.raises(InputError, match="falls into 2 parts, for example 4 apart from 0, 1"):
        Topology(("0", "1", "4"), ((0, 1),))
    with pytest.raises(InputError, match=r"among ring, grid.*got 'star'"):
        Topology.make("star", NAMES)
    with pytest.raises(InputError, match="No connected graph"):
        Topology.make("erdos_renyi", [str(i) for i in range(60)], probability=0.01)
    with pytest.raises(InputError, match="undirected"):
        Topology.of(networkx.DiGraph([(0, 1)]))
    with pytest.raises(InputError, match="different names"):
        Topology(("a", "a"), ((0, 1),))


def test_leaving_peers_that_are_a_cut_set_are_refused_or_the_rest_is_joined():
    star = Topology.of(networkx.star_graph(4), ["hub", "a", "b", "c", "d"])
    assert star.without(["a"]).peers == ("hub", "b", "c", "d")
    with pytest.raises(RefusedError, match=r"Without hub the network falls into 4 parts.*are a cut set"):
        star.without(["hub"])
    joined = star.without(["hub"], rewire=True)
    assert joined.peers == ("a", "b", "c", "d") and joined.edges == ((0, 1), (1, 2), (2, 3))
    with pytest.raises(RefusedError, match="Everybody leaves"):
        star.without(star.peers)
    with pytest.raises(InputError, match="nobody are none"):
        star.without(["nobody"])
    ring = Topology.make("ring", NAMES)
    assert len(ring.without(["3"]).edges) == 8 and ring.diameter == 5
    with pytest.raises(RefusedError, match="cut set"):
        ring.without(["3", "7"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("client", [0, 7])
def test_check_a03_every_peer_owes_the_same_share_up_to_the_bound(kind, client):
    """For any sequence of differences, every peer and every number of rounds."""
    matrix, generator = metropolis(Topology.make(kind, NAMES)), np.random.default_rng(client)
    differences, lr = generator.standard_normal((40, 5)), 0.3
    largest = np.linalg.norm(differences, axis=1).max()
    bound = unequal(float(largest), second_eigenvalue(matrix), lr)
    powers = [np.linalg.matrix_power(matrix.toarray(), k) for k in range(40)]
    for rounds in (1, 2, 7, 40):
        models = spread(matrix, client, differences[:rounds], lr)
        by_hand = -lr * sum(np.outer(powers[rounds - 1 - k][:, client], differences[k]) for k in range(rounds))
        assert np.allclose(models, by_hand, atol=1e-12)
        equal = -lr / 10 * differences[:rounds].sum(0)
        assert (np.linalg.norm(models - equal, axis=1) <= bound * (1 + 1e-12)).all()
