"""Rehearsal 2: two peers without a server, one release for each."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from cases import FIXED, Partition, PointTask, attraction, beside_ledger, blobs, softmax_head
from expunge import planning
from expunge.bench.cells import Cell, run_cell
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.certificate import Claim, Status, Verdict
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Trained
from expunge.ledger import Ledger
from expunge.measuring import measure
from expunge.modalities.benchmark import Scores, Workload
from expunge.modalities.modality import Opened
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.report import html
from expunge.report.folder import write_report
from expunge.report.record import build
from expunge.report.verify import verify_folder
from expunge.training.recipes import GradientDescent


class Gossip:
    """Each peer keeps the mean of its own rows, then leans a quarter towards its neighbour."""

    def fit(self, task, data, *, seed, watch=None):
        own = [data.x[torch.from_numpy(data.columns["peer"] == peer)].mean(0) for peer in (0, 1)]
        views = {f"peer {i}": Artifact({"theta": 0.75 * own[i] + 0.25 * own[1 - i]}) for i in (0, 1)}
        return Trained(task, views["peer 0"], data, self, seed=seed, views=views)


@dataclass(frozen=True)
class Correction:
    name: ClassVar[str] = "correction"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ("samples", "client"), ("point",), ("retained data",), "weights", False
    )

    def check(self, context):
        return Estimate(len(context.deletion.forget))

    def run(self, context):
        views = Gossip().fit(context.task, context.deletion.after, seed=0).views
        return Unlearned({name: Artifact(dict(view.tensors)) for name, view in views.items()})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_peer_gets_its_own_release_and_the_next_request_starts_there(seed):
    x = np.random.default_rng(seed).standard_normal((20, 3))
    columns = {"peer": np.arange(20) % 2, "owner": np.arange(20) // 4}
    data = Partition.of(x, np.zeros(20, dtype=int), columns, preprocessing=FIXED)
    trained = planning.train(PointTask(3, attraction(1.0)), data, Gossip())
    outcome = planning.plan(trained, Request("a", (Target("client", {"owner": 2}),)), Correction()).run()
    evidence = measure(outcome)
    assert [release.view for release in outcome.releases] == ["peer 0", "peer 1"] and outcome.deletion.size == 4
    assert all(np.isfinite(size) and size > 0 for size in outcome.change.values())
    for release in outcome.releases:
        assert outcome.after.view(release.view) is release.artifact
        assert evidence["distance", None, release.view].value == 0
        assert evidence["loss", "retain", release.view].agrees
    assert evidence["loss/forget@peer 0"].value != evidence["loss/forget@peer 1"].value
    second = planning.plan(outcome.after, Request("b", (Target("samples", {"ids": [0, 1]}),)), Correction()).run()
    assert second.after.removed["row"].tolist() == [0, 1, 8, 9, 10, 11]
    assert second.before.view("peer 1").digest == outcome.releases[1].artifact.digest


@dataclass(frozen=True)
class Copies:
    """Retrains and hands each of two peers a copy; a sloppy one leaves a little of the old model in the second peer's."""

    sloppy: bool = False
    name: ClassVar[str] = "copies"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ("samples",), ("*",), ("retained data", "recipe"), "weights", True
    )

    def check(self, context):
        return Estimate(len(context.deletion.after))

    def run(self, context):
        old, after = context.trained.artifact.tensors, context.deletion.after
        new = context.trained.recipe.fit(context.task, after, seed=context.trained.seed).artifact.tensors
        mixed = {name: new[name] + 0.1 * (old[name] - new[name]) for name in new}
        claim = Claim("retrain", {"sigma": 0.0, "delta": 1e-5, "forget": context.deletion.size}, {}, after.digest)
        views = {"peer 0": Artifact(dict(new)), "peer 1": Artifact(mixed if self.sloppy else dict(new))}
        return Unlearned(views, claim)


def copies(sloppy: bool):
    trained = beside_ledger(planning.train(softmax_head(2, 3), blobs(), GradientDescent(steps=30, lr=0.5, l2=0.05)))
    outcome = planning.plan(trained, Request("a", (Target("samples", {"ids": [0, 1, 2]}),)), Copies(sloppy)).run()
    return outcome, measure(outcome)


def test_what_refutes_the_certificate_of_the_second_peer_voids_the_run():
    outcome, evidence = copies(sloppy=True)
    assert outcome.verdict != Verdict.VOID
    checks = {(check.name, check.view): check.passed for check in evidence.checks}
    assert checks["replay", "peer 0"] is True and checks["replay", "peer 1"] is False
    first, second = (release.certificate for release in evidence.outcome.releases)
    assert second.verdict is first.verdict is Verdict.VOID  # they come from one run
    assert {a.name: a.statement for a in second.assumptions}["not_refuted"].startswith("refuted by replay")
    assert "replay of peer 1" in {a.name: a.statement for a in first.assumptions}["not_refuted"]
    assert outcome.after.book.spent()[-1].mu == np.inf


class Stale(Copies):
    """Retrains one peer and leaves the other as it was."""

    def run(self, context):
        done = super().run(context)
        return replace(done, views={**done.views, "peer 1": context.trained.artifact})


def test_a_release_counts_for_what_its_weakest_view_is_worth():
    trained = beside_ledger(planning.train(softmax_head(2, 3), blobs(), GradientDescent(steps=30, lr=0.5, l2=0.05)))
    outcome = planning.plan(trained, Request("a", (Target("samples", {"ids": [0, 1, 2]}),)), Stale()).run()
    first, second = (release.certificate.verdict for release in outcome.releases)
    assert first is not Verdict.VOID and second is Verdict.VOID  # nothing changed there
    assert (
        outcome.after.spent[-1].mu == np.inf and not outcome.after.book.spent()
    )  # it is held back, not counted as good


def test_checks_changes_ledger_and_report_cover_every_peer(tmp_path):
    outcome, evidence = copies(sloppy=False)
    views = ["peer 0", "peer 1"]
    assert sorted(c.view for c in evidence.checks if c.name == "replay" and c.passed) == views
    for release in evidence.outcome.releases:
        held = {a.name: a.status for a in release.certificate.assumptions}
        assert held["not_refuted"] is held["own_implementation"] is Status.HOLDS
    assert list(evidence.cost["change_per_module"]) == views and all(evidence.cost["change_per_module"].values())
    with Ledger(outcome.after.book.path) as ledger:
        (item,) = [item for entry in ledger.entries("release") for item in entry.payload["releases"]]
    assert item["views"] == {release.view: release.artifact.digest for release in outcome.releases}
    record = build(
        [("net", evidence.outcome, evidence)], request=evidence.outcome.request, title="Two", dataset="blobs"
    )
    page = html.render(record)
    assert "View: peer 1" in page and "replay (peer 0)" in page and "replay (peer 1)" in page
    assert "Accuracy on retained rows (peer 1)" in page
    write_report(evidence, tmp_path / "evidence", accepted={"by": "test", "reason": "rehearsal"}, pdf=False)
    assert verify_folder(tmp_path / "evidence").consistent


@dataclass(frozen=True)
class TwoPeers(Workload):
    """A workload of the benchmark for a method that hands out two models."""

    def request(self, number):
        return Request("a", (Target("samples", {"ids": [0, 1, 2]}),))

    def score(self, deletion, tensors, retrained):
        return Scores({"norm": float(sum(tensor.norm() for tensor in tensors.values()))})


class TwoCopies(BenchmarkRecipe):
    """Its only row."""

    def method(self, row, settings=None):
        return Copies(sloppy=True)


def test_a_cell_of_the_benchmark_scores_every_peer(tmp_path):
    recipe = TwoCopies(name="two", title="Two", task="two", retrained_models=0)
    training = GradientDescent(steps=30, lr=0.5, l2=0.05)
    workload = TwoPeers(recipe, Opened(softmax_head(2, 3), blobs(), {}, training, None, "two", "blobs"))
    line, margins = run_cell(World(workload, Cache(tmp_path / "cache")), Cell("copies", 0, 0), tmp_path)
    first, second = (line["views"][f"peer {i}"] for i in (0, 1))
    assert line["status"] == "done" and not margins and first["weights"] != second["weights"]
    assert line["metrics"]["norm"] == pytest.approx((first["metrics"]["norm"] + second["metrics"]["norm"]) / 2)
