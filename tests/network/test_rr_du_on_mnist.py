"""Acceptance checks of RR-DU on real images: 6,000 of MNIST at ten clients, a small CNN on a token walk. Minutes: ``slow``.

What decides is compared with its controls on the same walks: the others descending alone, and noise alone. Thresholds of 60,000
images stand beside those of 6,000 where they differ. Figures of the backdoor are over three trainings and a walk after each.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from expunge import planning
from expunge.bench.recipe import load_recipe
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.data import Ids
from expunge.core.request import Request, Target
from expunge.data.partition import Partition
from expunge.data.rows import Rows
from expunge.methods.rr_du import RRDU
from expunge.metrics.membership import auc

pytestmark = pytest.mark.slow
SEEDS = 0, 2, 5  # of 0 to 5, those whose training visited client 0 in its last five hops
QUIET = {"lr": 0.02, "sigma": 0.0, "weight": 1.0}
NOISE = {**QUIET, "sigma": 2.57}
CONTROL = {**QUIET, "weight": 0.0}
EVERYWHERE = {"lr": 0.02, "everywhere": True}  # DDP


class Network:
    """Tokens trained on 6,000 images, 100 of the 600 at client 0 poisoned (m / n_u = 1/6), and what walks make of them."""

    def __init__(self, path):
        recipe = load_recipe("rr_du_backdoor").shortened()
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": path})})
        self.workload = World.of(recipe, Cache()).workload
        self.opened, self.request = self.workload.opened, self.workload.request(0)
        self.task, self.probes = self.opened.task, self.opened.probes
        self.trained = functools.cache(lambda seed: self.fit(self.opened.data, seed))
        self.after = functools.cache(self._after)

    def fit(self, data, seed=0):
        return planning.train(self.task, data, self.opened.recipe, seed=seed)

    @functools.cached_property
    def retrained(self):
        data = self.opened.data
        return self.fit(data.without(data.select(self.request.targets[0]))).artifact.tensors

    def accuracy(self, tensors, rows):
        outputs = self.task.outputs(self.task.build(), tensors, self.task.batch(rows)).logits
        return float((outputs.argmax(1) == rows.y).double().mean())

    def losses(self, tensors, rows):
        return self.task.losses(self.task.build(), tensors, self.task.batch(rows)).detach().numpy()

    def ran(self, trained, request, walk, settings):
        method = RRDU(**dict(settings))
        return planning.plan(trained, request, method, seed=walk).run().releases[0].artifact.tensors

    def _after(self, seed, settings):
        return self.ran(self.trained(seed), self.request, 0, settings)

    def over_walks(self, of, settings):
        """Accuracy on the set ``of`` after a walk from each training, (3,)."""
        fixed = tuple(settings.items())
        return np.array([self.accuracy(self.after(seed, fixed), self.probes[of]) for seed in SEEDS])


@pytest.fixture(scope="module")
def network(real_data):
    found = Network(real_data("mnist"))
    for seed in SEEDS:
        start = found.accuracy(found.trained(seed).artifact.tensors, found.probes["triggered"])
        assert start >= 0.6, f"seed {seed}: the backdoor did not take ({start:.0%}); nothing can be seen of its removal"
    return found


def test_checks_b06_b15_the_backdoor_goes_with_the_others_descent_and_noise_is_in_its_way(network):
    """60,000 images: without noise at most 20 %, with it at most 35 % and half of the start; a retrained model 10 %.

    Measured on 6,000, from 93 % (mean): 15 to 17 % without noise, 11 to 16 % without ascent either, 12, 15 and 36 % with noise.
    """
    start = [network.accuracy(network.trained(seed).artifact.tensors, network.probes["triggered"]) for seed in SEEDS]
    quiet, control, noisy = (network.over_walks("triggered", settings) for settings in (QUIET, CONTROL, NOISE))
    assert network.accuracy(network.retrained, network.probes["triggered"]) <= 0.15
    assert quiet.max() <= 0.2 and control.max() <= 0.2
    assert np.median(noisy) <= 0.35 and (noisy <= np.array(start) / 2).all()
    assert (noisy >= quiet - 0.03).all()  # B15: noise is a cost and no way to forget


def test_checks_b07_b11_what_a_walk_costs_and_what_noise_at_every_hop_does(network):
    """60,000 images: at most 2.5 points. Measured on 6,000: 1.3, 2.4 and 2.5.

    DDP keeps the backdoor (81 to 100 %) and more of the accuracy (95.1 to 96.5 %): the trust region takes back what noise of
    that size does, and every step with it.
    """
    again = network.accuracy(network.retrained, network.probes["test"])
    assert again - np.median(network.over_walks("test", NOISE)) <= 0.03
    assert network.over_walks("triggered", EVERYWHERE).min() >= 0.5


def test_check_b14_an_attack_sees_as_much_at_every_peer(network):
    """The areas under the curve of an attack by losses on each peer's own rows against test rows."""
    data = network.opened.data
    for seed in SEEDS:
        tensors = network.after(seed, tuple(NOISE.items()))
        outside = network.losses(tensors, network.probes["test"])
        areas = [auc(-network.losses(tensors, data.held_by([peer])), -outside) for peer in data.clients if peer != "0"]
        assert np.std(areas) <= 0.05  # measured: .011 to .012


def test_check_b08_a_class_that_one_client_held_is_gone_whatever_u_does(network):
    """A sanity check and no evidence: the control forgets it as well, and a retrained model never saw it."""
    data = network.opened.data
    owners = np.where(data.y.numpy() == 0, 0, np.array([int(owner) for owner in data.owners]))
    held = Partition.of_rows(Rows.of(data.x, data.y, {"client": owners}), "client")
    request = Request("class", (Target("class", {"label": 0, "client": "0"}),))
    test = network.probes["test"]
    zero = test.y.numpy() == 0
    zeros, others = test.only(Ids.rows(test.ids[zero])), test.only(Ids.rows(test.ids[~zero]))
    one = network.fit(held)
    assert network.accuracy(one.artifact.tensors, zeros) >= 0.5
    light, control = (network.ran(one, request, 0, settings) for settings in (NOISE, CONTROL))
    assert network.accuracy(light, zeros) <= 0.12 >= network.accuracy(control, zeros)
    assert abs(network.accuracy(light, others) - network.accuracy(control, others)) <= 0.025


def test_check_b09_forgotten_samples_stay_known_as_after_retraining(network):
    data = network.opened.data
    own = data.ids[data.at("3")][:300]
    plain = Request("samples", (Target("samples", {"ids": own.tolist()}),))
    gone = data.only(Ids.rows(own))
    again = network.accuracy(network.fit(data.without(Ids.rows(own))).artifact.tensors, gone)
    here = network.accuracy(network.ran(network.trained(0), plain, 0, NOISE), gone)
    assert here >= 0.8 and abs(here - again) <= 0.015  # measured: 97.0 and 97.3 %, and not 10 %
