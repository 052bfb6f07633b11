"""Acceptance checks of corrections on real images: 6,000 of MNIST on 50 principal axes, ten clients. Minutes: ``slow``.

Thresholds are those of 60,000 images where they hold on 6,000 too; elsewhere what was measured on 6,000, with room, and that of
60,000 beside it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from expunge import planning
from expunge.bench.recipe import load_recipe
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.data import Ids
from expunge.core.method import InMemory
from expunge.core.request import Request, Target
from expunge.core.trained import InMemoryBook
from expunge.curvature.conjugate_gradient import conjugate_gradient
from expunge.curvature.weighted_head import WeightedHead
from expunge.data.partition import Partition, by_label
from expunge.data.rows import Rows
from expunge.methods.rr_du import RRDU
from expunge.modalities.network_benchmark import NetworkWorkload
from expunge.network.correction import correct, correct_stacked, head_objective, residual_bound
from expunge.network.topology import Topology
from expunge.network.walk import Walk
from expunge.privacy.audit import two_world
from expunge.privacy.gaussian import epsilon_of, sigma_of
from expunge.privacy.noise import SeededNoise

pytestmark = pytest.mark.slow
NAMES = tuple(str(i) for i in range(10))
SHARES = {"hundredth": 0.01, "tenth": 0.1, "class": None, "client": 1.0}  # of what one client holds


@pytest.fixture(scope="module")
def workload(real_data):
    recipe = load_recipe("ring_newton").shortened()
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": real_data("mnist")})})
    found = World.of(recipe, Cache()).workload
    assert isinstance(found, NetworkWorkload)
    return found


def leaving(data: Partition, scope: str, seed: int) -> Partition:
    """``data`` without a share, class 0 or all of what client ``seed`` holds."""
    own, share = data.at(str(seed)), SHARES[scope]
    gone = own[data.y.numpy()[own] == 0] if share is None else own
    if share is not None and share < 1:
        gone = np.random.default_rng(seed).choice(own, round(share * len(own)), replace=False)
    return data.without(Ids.rows(data.ids[gone]))


def right(workload, theta):
    test = workload.opened.probes["test"]
    return float(((test.x.double() @ theta.view(10, -1).T).argmax(1) == test.y).double().mean())


# --- exact minimisers: what a retraining that goes on forever is compared with ----------------------------------------


def minimiser(f, theta):
    for _ in range(20):
        gradient = f.gradient(theta)
        if float(gradient.norm()) < 1e-13:
            break
        theta = theta - conjugate_gradient(f.gauss_newton(theta), gradient, 1e-12).solution
    return theta


@dataclass
class Exact:
    """Minimisers on all rows and on what is left, and one Newton step from the first."""

    before: Tensor
    after: Tensor
    corrected: Tensor
    bound: float

    @property
    def actual(self) -> float:
        return float((self.corrected - self.after).norm())

    @property
    def gain(self) -> float:
        return float((self.before - self.after).norm()) / self.actual


@pytest.fixture(scope="module")
def exact(workload):
    opened = workload.opened
    start = dict(opened.task.build().state_dict())

    @functools.cache
    def found(l2: float, seed: int) -> Exact:
        f, f_minus = (
            head_objective(opened.task, rows, opened.recipe.network_of(rows), l2, start)
            for rows in (opened.data, leaving(opened.data, "tenth", seed))
        )
        before = minimiser(f, torch.zeros(510, dtype=torch.float64))
        after = minimiser(f_minus, before)
        corrected = before - correct("difference", f, f_minus, before, tolerance=1e-12).step
        return Exact(before, after, corrected, residual_bound(float(f_minus.gradient(corrected).norm()), 1e-13, l2))

    return found


@pytest.mark.parametrize(("l2", "least"), [(1e-3, 300), (1e-2, 1000)])
def test_checks_a04_a05_a12_a15_a16_between_exact_minimisers(workload, exact, l2, least):
    """A tenth of a client: one Newton step, the bound, and accuracy after noise at epsilon 1 for a distance of 4 B.

    Measured over four seeds: gains of 466 to 559 (l2 = .001) and 1,251 to 1,761 (.01); B is 4.7 to 6.04 and 2.7 to 3.3 times
    the distance; accuracy after noise at most .06 points away.
    """
    for seed in range(4):
        e = exact(l2, seed)
        sigma, generator = sigma_of(4 * e.bound, 1.0, 1e-5), torch.Generator().manual_seed(seed)
        noisy = np.mean([
            right(workload, e.corrected + sigma * torch.randn(510, generator=generator, dtype=torch.float64))
            for _ in range(20)
        ])  # fmt: skip
        assert e.gain >= least
        assert e.actual <= e.bound <= 8 * e.actual  # 60,000: at most 6
        assert abs(right(workload, e.corrected) - right(workload, e.after)) <= 0.002
        assert abs(noisy - right(workload, e.after)) <= 0.003  # no unconverged network keeps this


def test_check_a17_ten_thousand_draws_show_no_more_than_is_certified(exact):
    """The optimal linear test between the corrected and the retrained minimiser, each with noise for B."""
    for l2, seed in ((1e-3, 0), (1e-3, 1), (1e-2, 0)):
        e, generator = exact(l2, seed), torch.Generator().manual_seed(seed)
        way = (e.corrected - e.after) / e.actual

        def scores(sigma, e=e, way=way, generator=generator):
            draw = lambda: torch.randn(10_000, 510, generator=generator, dtype=torch.float64)  # noqa: E731
            return [((theta + sigma * draw()) @ way).tolist() for theta in (e.corrected, e.after)]

        sigma = sigma_of(e.bound, 1.0, 1e-5)
        honest, true = two_world(*scores(sigma), 1.0, 1e-5), epsilon_of(e.actual / sigma, 1e-5)
        small = two_world(*scores(sigma / 20), 1.0, 1e-5)
        assert honest.epsilon_lower <= true <= 1 and not honest.refuted
        assert small.refuted  # the control: the same test sees a noise that is too small


# --- gossip that stopped early: what a retraining of the same length is compared with --------------------------------


class Gossiped:
    """A network trained for 800 rounds with and without what leaves."""

    def __init__(self, workload, kind: str, alpha: float | None):
        opened = workload.opened
        self.task, data = opened.task, opened.data
        self.data = data if alpha is None else by_label(Rows.of(data.x, data.y), 10, alpha, 0)
        topology = Topology.make(kind, NAMES, probability=0.4, columns=5)
        self.recipe = replace(opened.recipe, topology=topology)
        self.old = self.recipe.models(self.task, self.data)
        self.theta = self.old[2].models.mean(0)
        self.f = self.objective(self.data)

    def objective(self, rows) -> WeightedHead:
        start = dict(self.task.build().state_dict())
        return head_objective(self.task, rows, self.recipe.network_of(rows), self.recipe.l2, start)

    @functools.cache  # noqa: B019
    def without(self, scope: str, seed: int):
        left = leaving(self.data, scope, seed)
        return self.recipe.models(self.task, left), self.objective(left)

    def correction(self, kind, scope, seed):
        return correct(
            kind, self.f, self.without(scope, seed)[1], self.theta, lr=self.recipe.lr, rounds=self.recipe.rounds
        )


@pytest.fixture(scope="module")
def gossiped(workload):
    return functools.cache(lambda kind, alpha=None: Gossiped(workload, kind, alpha))


@pytest.mark.parametrize(("kind", "alpha"), [
    ("ring", None), ("grid", None), ("erdos_renyi", None), ("complete", None), ("ring", 0.5),
])  # fmt: skip
def test_checks_a06_a07_a11_a16_a18_of_unconverged_gossip(workload, gossiped, kind, alpha):
    """Gains of the mean model, the bound at every peer, accuracy, and what a correction costs in passes over the data.

    Measured: ``difference`` 9.1 to 13.4; ``horizon`` 16.5 to 22.8 where rows or a client leave, 8.6 to 12.3 where a class does;
    accuracy at most .02 points away. Shares by label: 4.3 to 13.4 where rows or a class leave. A whole client there is a figure
    (docs/networks.md): 1.9 and 2.8, where 60,000 images gave at least 2.5, and accuracy .23 points apart.
    """
    network = gossiped(kind, alpha)
    for scope in SHARES:
        for seed in (0, 1) if kind == "ring" else (0,):
            (topology, _, run), f_minus = network.without(scope, seed)
            again = run.models.mean(0)
            models = network.old[2].models[[network.old[0].peers.index(peer) for peer in topology.peers]]
            tau = float(f_minus.gradient(again).norm())
            apart = float((models - network.theta).norm(dim=1).max() + (run.models - again).norm(dim=1).max())
            for which, least in (("difference", 8), ("horizon", 8 if scope == "class" else 15)):
                found = network.correction(which, scope, seed)
                corrected = network.theta - found.step
                gain = float((network.theta - again).norm() / (corrected - again).norm())
                figure = alpha is not None and scope == "client"
                assert gain >= (1 if figure else least if alpha is None else 2.5), (scope, seed, which, gain)
                bound = residual_bound(float(f_minus.gradient(corrected).norm()), tau, network.recipe.l2, apart)
                assert float((models - found.step - run.models).norm(dim=1).max()) <= bound
                assert figure or abs(right(workload, corrected) - right(workload, again)) <= 0.002
                # a product with the Hessian is two passes over the data where a gradient is one
                assert 2 * (found.products + 2) <= 0.5 * network.recipe.rounds, (which, found.products)


@pytest.mark.parametrize("seed", [0, 1])
def test_checks_a10_a18_the_worst_peer_of_a_ring(gossiped, seed):
    """One broadcast, a consensus before it, and the stacked system, where class 0 leaves a client.

    Measured: 2.9 and 3.1, 12.8 and 12.7, 18.8 and 16.9 times closer.
    """
    network = gossiped("ring")
    (topology, peers, run), _ = network.without("class", seed)
    stay = [network.old[0].peers.index(peer) for peer in topology.peers]
    models, step = network.old[2].models[stay], network.correction("difference", "class", seed).step
    worst = lambda made, of: float((made - of).norm(dim=1).max())  # noqa: E731
    plain = worst(models, run.models)
    whole = run.models.mean(0).expand_as(models)
    stacked = correct_stacked(
        (network.old[0], network.old[1]), (topology, peers), network.old[2].models, network.recipe.lr
    )
    assert plain / worst(models - step, run.models) >= 2.5
    assert plain / worst((network.theta - step).expand_as(models), whole) >= 12
    assert plain / worst(models - stacked.step, run.models) >= 15
    assert 2 * (stacked.products + 2) <= 0.5 * network.recipe.rounds  # 138 and 139 products; 800 rounds


# --- a token that walks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "honest"), [(4.0, True), (0.04, False)])
def test_check_b12_shadow_walks_do_not_tell_more_than_the_conservative_accountant(workload, sigma, honest):
    """200 runs each with and without u's ascent, from one start, told apart along the ascent's own direction.

    The negative control: with a hundredth of the noise that the stated epsilon is for, the same audit refutes it.
    """
    task, data = workload.opened.task, workload.opened.data
    trained = planning.train(task, data, Walk(topology=Topology.make("complete", NAMES), hops=12, steps=5, lr=0.05))
    request = Request("a", (Target("samples", {"ids": data.ids[data.at("4")][:60].tolist()}),))
    settings = {
        "hops": 8,
        "restart": 0.5,
        "batches": 1,
        "batch_size": 8,
        "lr": 0.05,
        "optimizer": "sgd",
        "radius": 100.0,
    }
    plans = {
        weight: planning.plan(
            replace(trained, book=InMemoryBook()), request, RRDU(**settings, sigma=4.0, weight=weight), seed=0
        )
        for weight in (1.0, 0.0)
    }

    def final(weight, noise, seed=0):
        method = replace(plans[weight].method, sigma=noise)
        context = replace(plans[weight].context, noise=SeededNoise(seed), journal=InMemory())
        return method.run(context).views["0"].tensors["linear.weight"].flatten()

    way = final(1.0, 0.0) - final(0.0, 0.0)
    scores = [[float(final(weight, sigma, 1000 * int(weight) + i) @ way) for i in range(200)] for weight in (1.0, 0.0)]
    stated = plans[1.0].run().certificate.epsilon
    result = two_world(*scores, stated, 1e-5)
    assert stated < 2 and result.refuted is not honest, result.statement
