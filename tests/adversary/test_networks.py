"""Attacks on certificates of networks: training that stopped early, promises changed afterwards, peers that are left out,
claims of a plug-in, records of other settings."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import expunge
from cases import FIXED, beside_ledger
from expunge import Budget, Request, Target
from expunge.core.certificate import Claim, Status, Verdict
from expunge.core.data import Ids
from expunge.core.errors import InputError, RefusedError
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.trained import Artifact, Fact, InMemoryBook, Origin
from expunge.data.partition import Partition, evenly
from expunge.data.rows import Rows
from expunge.methods.network_newton import NetworkNewton
from expunge.methods.release import noisy_release
from expunge.methods.retrain import Retrain
from expunge.network.gossip import Gossip
from expunge.network.topology import Topology
from expunge.report.record import build
from expunge.report.verify.record import certificate_problems

from .worlds import head, measured, not_holding
from .worlds import rows as drawn

MU, TAU, DISTANCE = 0.3, 1e-2, 0.2
METHOD = NetworkNewton(distance=DISTANCE, tau=TAU)
PROMISE = Budget(1.0, 1e-5, 40, releases=2)


@functools.cache
def data() -> Partition:
    return replace(evenly(drawn(60, outlier=3.0), 4), drawn=False)  # as if the rows had come with a column of owners


def trained(rounds: int = 200, **settings: Any) -> Any:
    recipe = Gossip(topology=Topology.make("ring", "0123"), **{"rounds": rounds, "lr": 0.5, "l2": MU, **settings})
    return expunge.train(head(), data(), recipe)


def published(network: Any = None, method: Any = METHOD) -> Any:
    return beside_ledger(expunge.publish(network or trained(), PROMISE, method=method))


def asked(*ids: int, client: str = "") -> Request:
    where = Target("client", {"client": client}) if client else Target("samples", {"ids": list(ids or (3,))})
    return Request("somebody", where)


def ran(network: Any, method: Any = METHOD, request: Request | None = None) -> Any:
    return expunge.plan(network, request or asked(client="1"), method).run()


def test_an_honest_network_is_certified():
    outcome = ran(published())
    assert outcome.verdict == Verdict.CERTIFIED
    assert measured(outcome).outcome.verdict == measured(outcome, "none").outcome.verdict == Verdict.CERTIFIED


# --- training that stopped early: what it is compared with would never have come of it -----------------------


def test_training_that_stopped_early_cannot_promise_what_a_longer_one_would_keep():
    """Two Newton steps reach the minimiser from anywhere; a retrained network of three rounds is far from it."""
    method = replace(METHOD, correction="full", iterations=3)
    with pytest.raises(InputError, match=r"stopped with a gradient of norm.*above tau"):
        published(trained(rounds=3), method)
    early = trained(rounds=3)
    forged = beside_ledger(replace(early, budget=replace(PROMISE, sigma=0.1, method={"name": "network_newton", "settings": {
        "distance": DISTANCE, "tau": TAU}})))  # fmt: skip
    with pytest.raises(RefusedError, match="stopped with a gradient of norm"):
        ran(forged, method)
    with pytest.raises(InputError, match="where a retraining stops is chance"):
        published(trained(batch_size=5), replace(METHOD, tau=1.0, distance=6.0))
    with pytest.raises(RefusedError, match="Nobody recorded with which gradient"):
        ran(replace(forged, facts={n: f for n, f in forged.facts.items() if n != "residual"}), method)
    outcome = ran(published(early, replace(method, tau=1.0, distance=6.0)), replace(method, tau=1.0, distance=6.0))
    assert outcome.verdict == Verdict.CERTIFIED  # with noise for what such a retrained network can be apart
    assert measured(outcome).outcome.verdict == Verdict.CERTIFIED


# --- promises that are changed after publication -------------------------------------------------------------


@pytest.mark.parametrize("change", [{"distance": DISTANCE / 2}, {"tau": 2 * TAU}])
def test_a_distance_that_is_chosen_after_the_request_is_refused(change):
    """The smallest distance that a run keeps follows from what is forgotten."""
    with pytest.raises(RefusedError, match="that this network was published with"):
        ran(published(), replace(METHOD, **change))


def test_a_network_that_was_published_for_another_method_agreed_on_no_distance():
    by_hand = replace(PROMISE, epsilon=None, sigma=1.0)
    network = beside_ledger(expunge.publish(trained(), by_hand, method=NetworkNewton(distance=1.0, tau=TAU)))
    with pytest.raises(RefusedError, match=r"distance that this network was published with \(1\.0\)"):
        ran(network)


# --- a plug-in that claims the theorem -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Forged:
    """The own correction, with a claim, views and a guard of its own."""

    name: ClassVar[str] = "forged"
    capabilities: ClassVar[Capabilities] = replace(NetworkNewton.capabilities)
    claimed: float = DISTANCE
    left_out: str = ""

    def check(self, context):
        return Estimate(1)

    def run(self, context):
        own = replace(METHOD)
        trained = context.trained
        made = own.replay(replace(context, trained=replace(trained, budget=None)))  # no budget: no bound is kept
        sigma = trained.budget.sigma
        noisy = Artifact(noisy_release(context.task.build(), made, sigma, context.noise, context.journal))
        peers = [peer for peer in context.deletion.after.clients if peer != self.left_out]
        parameters = {"forget": 1, "distance": self.claimed, "tau": TAU, "sigma": sigma}
        kept = Fact(True, Origin.ENFORCED, "believe me")
        claim = Claim("network-newton", parameters, {"residual_within": kept}, context.deletion.after.digest)
        return Unlearned(dict.fromkeys(peers, noisy), claim, made)


def test_a_plug_in_that_is_honest_is_certified_once_its_steps_were_done_again():
    outcome = ran(published(), Forged())
    assert outcome.verdict == Verdict.UNREPLAYED and measured(outcome, "none").outcome.verdict == Verdict.CERTIFIED


def test_a_plug_in_cannot_claim_a_distance_that_nobody_kept_or_agreed_on():
    small = NetworkNewton(distance=1.001 * TAU / MU, tau=TAU)  # no correction keeps it
    for network, claimed in ((published(), 1e-6), (published(method=small), small.distance)):
        outcome = ran(network, Forged(claimed=claimed))
        for reference in ("retrained", "none"):
            assert measured(outcome, reference).outcome.verdict == Verdict.VOID


def test_a_peer_that_keeps_the_old_model_voids_the_certificate():
    outcome = ran(published(), Forged(left_out="2"))
    assert not_holding(outcome)["peers_reached"] is Status.VIOLATED and outcome.verdict == Verdict.VOID


def test_a_folder_without_the_check_that_would_refute_it_is_found():
    outcome = ran(published())
    evidence = measured(outcome)
    record = build([("net", evidence.outcome, evidence)], request=outcome.request, title="t", dataset="d")
    assert certificate_problems(record, record["runs"][0]) == []
    run = json.loads(json.dumps(record["runs"][0]))
    run["evidence"]["checks"] = [c for c in run["evidence"]["checks"] if c["name"] != "replayed steps"]
    assert any("is missing" in problem for problem in certificate_problems(record, run))


# --- records and recipes that are not those of training ------------------------------------------------------


RECIPES = {
    "l2": lambda recipe: replace(recipe, l2=1e-3),
    "another network": lambda recipe: replace(recipe, topology=Topology.make("complete", "0123")),
    "another mixing": lambda recipe: replace(
        recipe, mixing=tuple(map(tuple, np.full((4, 4), 0.25) * RING + np.eye(4) / 4))
    ),
    "rounds": lambda recipe: replace(recipe, rounds=1),
}
RING = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]])


@pytest.mark.parametrize("what", RECIPES)
def test_a_recipe_that_the_record_does_not_speak_of_leaves_nothing_proved(what):
    network = published()
    outcome = ran(replace(network, recipe=RECIPES[what](network.recipe)))
    assert outcome.verdict != Verdict.CERTIFIED
    assert measured(outcome, "none").outcome.verdict != Verdict.CERTIFIED


def test_a_strong_convexity_that_was_written_into_the_record_is_not_proved():
    network = published()
    facts = dict(network.facts)
    facts |= {name: replace(facts[name], value=30.0) for name in ("l2", "strong_convexity")}
    assert ran(replace(network, facts=facts)).verdict != Verdict.CERTIFIED


def test_a_mixing_matrix_under_which_nobody_hears_anybody_is_refused():
    with pytest.raises(InputError, match="every peer hears from every other"):
        trained(mixing=tuple(map(tuple, np.eye(4))))


class Deaf(Topology):
    """Nobody ever leaves it, whatever is asked."""

    def without(self, leaving, rewire=False, name_of=str):
        return self


def test_a_topology_of_somebodys_own_is_none():
    ring = Topology.make("ring", "0123")
    with pytest.raises(InputError, match="Expected a Topology; got Deaf"):
        Gossip(topology=Deaf(ring.peers, ring.edges), rounds=2, lr=0.1)


def test_a_recipe_with_a_method_of_its_own_is_somebodys_word():
    network = published()
    own = replace(network.recipe)
    object.__setattr__(own, "matrix", network.recipe.matrix)
    for method in (METHOD, Retrain()):
        outcome = ran(replace(network, recipe=own, book=InMemoryBook()), method)
        assert not_holding(outcome)["retained_rows"] is Status.UNCHECKED


def test_models_that_peers_were_given_after_publication_change_nothing_that_is_proved():
    """The bound is evaluated at what is released, wherever the correction began; peers that differ are no start to replay."""
    network = published()
    other = Artifact({n: t + 5.0 for n, t in network.artifact.tensors.items()})
    with pytest.raises(RefusedError, match="retraining is required"):
        ran(replace(network, views={**network.views, "2": other}))


# --- numbers that are none, names that may mean two things ---------------------------------------------------


def test_a_bound_that_is_no_number_is_not_kept(monkeypatch):
    monkeypatch.setattr("expunge.methods.network_newton.residual_bound", lambda *a: float("nan"))
    with pytest.raises(RefusedError, match="more than the agreed"):
        ran(published())


def test_owners_that_were_drawn_from_all_rows_are_somebodys_word():
    """Without the forgotten rows another draw would share the retained ones out: another network would be retrained."""
    network = published(expunge.train(head(), evenly(drawn(60, outlier=3.0), 4), trained().recipe))
    outcome = ran(network)
    assert not_holding(outcome) == {"preprocessing": Status.UNCHECKED} and outcome.verdict == Verdict.UNDER_DECLARED
    fewer = evenly(drawn(60, outlier=3.0).without(Ids.rows(np.arange(3))), 4)
    stays = np.isin(data().ids, fewer.ids)
    assert (data().owners[stays] != fewer.owners).mean() > 0.5  # which is what happens


def test_a_column_called_client_beside_the_owners_is_not_guessed_at():
    rows = Rows.of(
        torch.zeros(4, 2), [0, 1, 0, 1], {"hospital": ["a", "a", "b", "b"], "client": ["b", "b", "a", "a"]},
        preprocessing=FIXED,
    )  # fmt: skip
    held = Partition.of_rows(rows, "hospital")
    assert len(held.select(Target("client", {"hospital": "a"}))) == 2
    for target in (Target("client", {"client": "a"}), Target("class", {"label": 0, "client": "a"})):
        with pytest.raises(InputError, match="may mean either"):
            held.select(target)


@pytest.mark.parametrize("how", ["in place", "anew"])
def test_rows_that_changed_hands_after_training_are_not_what_a_client_held(how):
    """The named client would leave with another one's rows, and all of its own would stay."""
    network = published()
    owners = np.array([{"0": "1", "1": "0"}.get(name, name) for name in data().owners])
    if how == "anew":
        changed = replace(data(), columns={**data().columns, "client": owners})
    else:
        changed = replace(data(), columns={**data().columns, "client": np.array(data().owners)})
        changed.columns["client"][:] = owners
    with pytest.raises(RefusedError, match="what it said when this model was trained"):
        ran(replace(network, data=changed))
    people = replace(data(), columns={**data().columns, "patient": np.roll(data().columns["patient"], 1)})
    with pytest.raises(RefusedError, match="what it said when this model was trained"):
        ran(replace(network, data=people), request=Request("a", Target("user", {"patient": 3})))
    kept = ran(network)
    again = replace(kept.after, data=replace(kept.after.data, columns={"client": np.roll(kept.after.data.owners, 1)}))
    with pytest.raises(RefusedError, match="what it said when this model was trained"):
        ran(again, request=asked(client="2"))


def test_what_may_be_shown_counts_no_products_that_follow_from_the_model_before():
    network = published()
    counts = {
        ran(replace(network, book=InMemoryBook()), request=asked(row)).cost["gradient_evaluations"] for row in (3, 5, 8)
    }
    assert counts == {(min(METHOD.max_products, 4) + 3) * 60}


def test_the_same_request_is_served_once_and_the_second_of_another_counts_the_first():
    network = published()
    first = ran(network)
    with pytest.raises(RefusedError, match="released already"):
        ran(network)
    with pytest.raises(RefusedError, match="released from this model since"):
        ran(network, request=asked(5))
    ids = [int(data().ids[data().at("2")][0])]
    second = ran(first.after, request=asked(*ids))
    assert second.verdict == Verdict.CERTIFIED and second.certificate.parameters["releases_before"] == 1
