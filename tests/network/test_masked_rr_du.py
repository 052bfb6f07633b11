"""RR-DU with a masked start (tier T1): what it promises and refuses, and that no deep network gets it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tests.network.networks import digits, head, recipe
from torch import nn

from cases import beside_ledger
from expunge import planning
from expunge.core.certificate import Claim, Status, Verdict
from expunge.core.errors import InputError, RefusedError
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Budget, Fact, Origin
from expunge.data.partition import evenly
from expunge.measuring import MeasureSettings, measure
from expunge.methods.masked_rr_du import MaskedRRDU
from expunge.methods.release import noisy_release
from expunge.network.topology import Topology
from expunge.network.walk import Walk
from expunge.report.record import build
from expunge.report.verify.record import certificate_problems
from expunge.tasks.classification import Classification
from expunge.tasks.networks import mlp, perceptron

MU, TAU, DISTANCE = 0.05, 2e-3, 0.25
METHOD = MaskedRRDU(distance=DISTANCE, tau=TAU, hops=12, batches=1, batch_size=8, optimizer="sgd")
PROMISE = Budget(1.0, 1e-5, 200)
QUICK = MeasureSettings(shadow_models=0, replicates=0, trials=0, audit=False)


@functools.cache
def trained(task=None):
    data = replace(evenly(digits(n=400), 4), drawn=False)  # as if the rows had come with a column of owners
    rounds = 150 if task is None else 2
    return planning.train(task or head(data), data, recipe(clients=4, rounds=rounds, lr=1.5, l2=MU))


def asked(count=3):
    data = trained().data
    return Request("a", (Target("samples", {"ids": data.ids[data.at("2")][:count].tolist()}),))


@functools.cache
def served():
    return planning.plan(beside_ledger(planning.publish(trained(), PROMISE, method=METHOD)), asked(), METHOD).run()


def statuses(certificate):
    return {item.name: item.status for item in certificate.assumptions}


def test_a_published_head_is_certified_and_the_bound_is_above_the_distance():
    outcome = served()
    certificate = outcome.certificate
    assert outcome.verdict == Verdict.CERTIFIED and certificate.epsilon == pytest.approx(1.0, rel=1e-6)
    assert certificate.parameters["tier"].startswith("T1") and "tier T1" in certificate.covers[0]
    retrained = outcome.before.recipe.fit(outcome.before.task, outcome.deletion.after).artifact.tensors
    apart = float((outcome.after.state["linear.weight"] - retrained["linear.weight"]).norm())
    assert apart <= outcome.details["bound"] <= DISTANCE
    assert len(outcome.releases) == 1 and len(outcome.after.views) == 4


def test_the_walk_is_made_again_from_the_masked_start_and_another_release_is_found():
    outcome = served()
    evidence = measure(outcome, QUICK)
    (check,) = [check for check in evidence.checks if check.name == "replayed recovery"]
    assert check.passed is True and evidence.outcome.verdict == Verdict.CERTIFIED
    record = build([("net", evidence.outcome, evidence)], request=outcome.request, title="t", dataset="d")
    assert certificate_problems(record, record["runs"][0]) == []
    moved = {name: tensor + 1e-3 for name, tensor in outcome.releases[0].artifact.tensors.items()}
    forged = replace(outcome, releases=(replace(outcome.releases[0], artifact=Artifact(moved)),))
    assert measure(forged, QUICK).outcome.verdict == Verdict.VOID


def test_after_the_mask_no_forgotten_record_is_read():
    network = planning.publish(trained(), PROMISE, method=METHOD)
    plan = planning.plan(network, asked(), METHOD)
    context, start = plan.context, network.artifact.tensors
    forget = replace(context.deletion.forget, x=torch.full_like(context.deletion.forget.x, torch.nan))
    blind = replace(context, deletion=replace(context.deletion, forget=forget, before=None))
    walked = METHOD.recover(context, start)["linear.weight"]
    assert torch.equal(walked, METHOD.recover(blind, start)["linear.weight"])
    assert not torch.equal(walked, start["linear.weight"])


def test_what_cannot_be_masked_is_refused_in_words():
    with pytest.raises(RefusedError, match="agreed when the network was published"):
        planning.plan(trained(), asked(), METHOD)
    with pytest.raises(InputError, match="Expected distance="):
        planning.publish(trained(), PROMISE, method=MaskedRRDU())
    far = replace(METHOD, distance=1.01 * TAU / MU)
    network = planning.publish(trained(), PROMISE, method=far)
    with pytest.raises(RefusedError, match=r"may be .* from a retrained model, more than the agreed"):
        planning.plan(network, asked(60), far).run()
    with pytest.raises(RefusedError, match="distance that this network was published with"):
        planning.plan(network, asked(), METHOD)
    walked = planning.train(
        trained().task, trained().data, Walk(topology=Topology.make("ring", "0123"), hops=8, steps=2, lr=0.1)
    )
    with pytest.raises(InputError, match=r"Train by gossip without batch_size|needs strong_convexity"):
        planning.publish(walked, PROMISE, method=METHOD)


# --- no deep network gets T1 -------------------------------------------------------------------------------------------------

DEEP = {
    "smooth perceptron": lambda: perceptron([17, 4, 10]),
    "perceptron": lambda: mlp(17, 10, [4]),
    "two linear layers": lambda: nn.Sequential(nn.Linear(17, 4), nn.Linear(4, 10)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 17)), nn.Conv1d(1, 2, 8), nn.Flatten(), nn.Linear(20, 10)),
}


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Says of any network that its start was masked for a distance."""

    name: ClassVar[str] = "claims"
    capabilities: ClassVar[Capabilities] = MaskedRRDU.capabilities

    def check(self, context):
        return Estimate(1)

    def run(self, context):
        trained, kept = context.trained, Fact(True, Origin.PROVED, "believe me")
        start = dict(trained.secret)
        noisy = noisy_release(context.task.build(), start, trained.budget.sigma, context.noise, context.journal)
        parameters = {"forget": 1, "distance": DISTANCE, "tau": TAU, "sigma": trained.budget.sigma, "tier": "T1"}
        claim = Claim("masked-rr-du", parameters, {"residual_within": kept}, context.deletion.after.digest)
        return Unlearned(dict.fromkeys(context.deletion.after.clients, Artifact(noisy)), claim, start)


@pytest.mark.parametrize("name", DEEP)
def test_no_deep_network_gets_tier_t1(name):
    """By its method, by a constant that somebody declares, or by a claim: strong convexity is proved of linear heads alone."""
    network = trained(Classification(DEEP[name], dtype=torch.float64))
    assert "strong_convexity" not in network.facts
    with pytest.raises(InputError, match=r"above tau|strong_convexity"):
        planning.publish(network, PROMISE, method=METHOD)
    by_hand = Budget(None, 1e-5, 200, sigma=1.0)
    loose = replace(METHOD, tau=1e3, distance=1e6)
    network = planning.publish(network, by_hand, method=loose)
    with pytest.raises(RefusedError, match="No deep network gets tier T1"):
        planning.plan(network, asked(), loose)
    outcome = planning.plan(beside_ledger(network), asked(), Claims()).run()
    assert outcome.verdict == Verdict.VOID
    assert statuses(outcome.certificate)["strong_convexity"] is Status.VIOLATED
    facts = {**network.facts, "strong_convexity": Fact(MU, Origin.PROVED, "typed")}
    typed = planning.plan(beside_ledger(replace(network, facts=facts)), asked(), Claims()).run()
    assert statuses(typed.certificate)["strong_convexity"] is Status.UNCHECKED
    assert measure(typed, QUICK).outcome.verdict != Verdict.CERTIFIED
