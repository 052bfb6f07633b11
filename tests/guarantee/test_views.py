"""A network's releases: equal bytes are one release however many hold them; different models need noise of their own each."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from cases import CASES, beside_ledger
from expunge import planning
from expunge.core.certificate import Status, Verdict
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact
from expunge.measuring import MeasureSettings, measure
from expunge.methods.r2d import R2D
from expunge.methods.release import noisy_release
from expunge.report.html import render
from expunge.report.record import build
from expunge.report.verify.record import certificate_problems
from expunge.report.views import SHOWN_ONE_BY_ONE

SEEDS = [0, 1, 2]


@dataclass(frozen=True)
class Broadcast(R2D):
    """One noisy model, the same bytes at every peer."""

    peers: int = 10
    name: ClassVar[str] = "broadcast"

    def run(self, context):
        done = super().run(context)
        (model,) = done.views.values()
        return replace(done, views={f"peer {i}": Artifact(dict(model.tensors)) for i in range(self.peers)})


@dataclass(frozen=True)
class OneDrawForAll(Broadcast):
    """The same noise on a model of its own for each peer: what two of them differ by carries none."""

    name: ClassVar[str] = "one_draw_for_all"

    def run(self, context):
        done = super().run(context)
        moved = {
            view: Artifact({n: t + 0.001 * i for n, t in artifact.tensors.items()})
            for i, (view, artifact) in enumerate(done.views.items())
        }
        return replace(done, views=moved)


@dataclass(frozen=True)
class DrawsOfTheirOwn(Broadcast):
    """A model of its own, and noise of its own, for each peer."""

    name: ClassVar[str] = "draws_of_their_own"

    def run(self, context):
        done, sigma = super().run(context), context.trained.budget.sigma
        model, views = context.task.build(), dict(done.views)
        for i in range(1, self.peers):
            moved = {n: t + 0.001 * i for n, t in done.state.items()}
            noisy = noisy_release(model, moved, sigma, context.noise, context.journal, f"release-{i}")
            views[f"peer {i}"] = Artifact(noisy)
        return replace(done, views=views)


@dataclass(frozen=True)
class TooFewDraws(DrawsOfTheirOwn):
    """As many models as draws, and one more that shares the last draw."""

    name: ClassVar[str] = "too_few_draws"

    def run(self, context):
        done = super().run(context)
        last = done.views[f"peer {self.peers - 1}"]
        shared = Artifact({n: t + 0.5 for n, t in last.tensors.items()})
        return replace(done, views={**done.views, "another": shared})


def released(method, seed=0, on_ledger=False):
    trained = CASES["head"].publish(seed)
    trained = beside_ledger(trained) if on_ledger else trained
    return planning.plan(trained, Request("a", (Target("samples", {"ids": [0, 1, 2]}),)), method, seed=seed).run()


def statuses(release):
    return {item.name: item.status for item in release.certificate.assumptions}


@pytest.mark.parametrize("peers", [1, 10, 100])
@pytest.mark.parametrize("seed", SEEDS)
def test_one_draw_that_all_peers_hold_is_one_release(seed, peers):
    alone = released(R2D(), seed)
    outcome = released(Broadcast(peers=peers), seed)
    (release,) = outcome.releases
    assert release.views == tuple(f"peer {i}" for i in range(peers))
    certificate = release.certificate
    assert certificate.epsilon == alone.certificate.epsilon and certificate.parameters["together"] == 1
    assert "joint_view_covered" not in statuses(release) and statuses(release)["noise_level"] is Status.HOLDS
    assert outcome.after.spent[-1].mu == pytest.approx(alone.after.spent[-1].mu)
    assert len(outcome.after.views) == (peers if peers > 1 else 0)
    assert len(outcome.digests) == (peers if peers > 1 else 0) and len(set(outcome.digests.values())) <= 1


@pytest.mark.parametrize("peers", [2, 10])
@pytest.mark.parametrize("seed", SEEDS)
def test_different_models_that_share_a_draw_are_not_covered_together(seed, peers):
    outcome = released(OneDrawForAll(peers=peers), seed)
    assert len(outcome.releases) == peers and outcome.verdict == Verdict.VOID
    for release in outcome.releases:
        assert statuses(release)["joint_view_covered"] is Status.VIOLATED
    assert outcome.after.spent[-1].mu == math.inf


@pytest.mark.parametrize("seed", SEEDS)
def test_different_models_with_draws_of_their_own_compose(seed):
    outcome = released(DrawsOfTheirOwn(peers=3), seed)
    assert len(outcome.releases) == 3
    for release in outcome.releases:
        held = statuses(release)
        assert held["joint_view_covered"] is held["noise_entered"] is held["noise_level"] is Status.HOLDS
        assert release.certificate.composed_mu == pytest.approx(math.sqrt(3) * release.certificate.mu)
    more = released(TooFewDraws(peers=3), seed)
    assert [statuses(item)["joint_view_covered"] for item in more.releases] == [Status.VIOLATED] * 4
    assert statuses(more.releases[-1])["noise_entered"] is Status.VIOLATED


@pytest.mark.parametrize("method", [Broadcast(peers=3), DrawsOfTheirOwn(peers=3)])
def test_a_reader_counts_the_different_models_again(method):
    outcome = released(method, on_ledger=True)
    evidence = measure(outcome, MeasureSettings(shadow_models=0, replicates=0, trials=0, audit=False))
    options = {"request": outcome.request, "title": "t", "dataset": "d"}
    record = build([("net", evidence.outcome, evidence)], **options)
    (run,) = record["runs"]
    together = len(outcome.releases)
    assert certificate_problems(record, run) == []
    assert [*run["views"], *(v for each in run["other_views"] for v in each["views"])] == list(outcome.digests)
    forged = copy.deepcopy(record)
    for each in (forged["runs"][0], *forged["runs"][0]["other_views"]):
        each["certificate"]["given"]["together"] = together + 1
    assert any("released model(s)" in problem for problem in certificate_problems(forged, forged["runs"][0]))
    if together > 1:  # who counts one and hides the rest
        for each in (forged["runs"][0], *forged["runs"][0]["other_views"]):
            each["certificate"]["given"]["together"] = 1
        problems = certificate_problems(forged, forged["runs"][0])
        assert any("counts 1 released" in problem for problem in problems)
        assert any("composed_mu" in problem for problem in problems)
    else:
        assert "peer 0, peer 1, peer 2" in render(record)


def test_a_page_shows_few_views_one_by_one_and_of_many_the_mean_and_the_worst():
    outcome = released(OneDrawForAll(peers=SHOWN_ONE_BY_ONE + 2))
    evidence = measure(outcome, MeasureSettings(shadow_models=0, replicates=0, trials=0, audit=False))
    record = build(
        [("net", evidence.outcome, evidence)], request=outcome.request, title="t", dataset="d",
        accepted={"by": "a", "reason": "b"},
    )  # fmt: skip
    page = render(record)
    assert "mean of 10 peers" in page and "worst, peer" in page and "(peer 3)" not in page
    (run,) = record["runs"]
    found = [item for item in run["evidence"]["measurements"] if item["metric"] == "distance"]
    assert len(found) == 10  # the record holds all
    values = {item["view"]: item["value"] for item in found}
    assert all(torch.isfinite(torch.tensor(list(values.values()))))
    from expunge.report.views import in_short

    mean, worst = (i for i in in_short(run)["evidence"]["measurements"] if i["metric"] == "distance")
    assert mean["value"] == pytest.approx(sum(values.values()) / 10)
    assert worst["value"] == max(values.values()) and worst["view"] == f"worst, {max(values, key=values.__getitem__)}"
