"""A tiny real run, and records of every verdict made from it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cases import beside_ledger
from expunge import planning
from expunge.checking import settle
from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Verdict
from expunge.core.measurement import Check, Direction, Evidence, Measurement
from expunge.core.method import Outcome
from expunge.core.request import Request, Target
from expunge.core.trained import Budget
from expunge.data.rows import Rows, by_reader
from expunge.methods import registry
from expunge.report.record import build
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead
from expunge.training.recipes import GradientDescent

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
HASHING = b"k" * 32
SUBJECT, USER = "Jane Doe-Testperson", "patient-zero-0815"
SECRET = 0.123456789  # a per-record score and a realised epsilon that must not leave
CHECKS = (
    Check("replay", True, "released minus replayed weights look like the stated noise", {"p_value": 0.4}),
    Check("replayed steps", True, "the un-noised weights are those that the stated steps lead to", {}),
)
VERDICTS = [*(verdict.value for verdict in Verdict), UNCERTIFIED, UNCHANGED]


def request() -> Request:
    return Request(SUBJECT, (Target("user", {"who": USER}),), "Art. 17(1)(b) GDPR, consent withdrawn")


def rows(count: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 2)).astype(np.float32)
    who = np.asarray([USER if i < 5 else f"other-{i}" for i in range(count)])
    fixed = by_reader("fixed", "drawn as they are")
    return Rows.of(torch.from_numpy(x), (x[:, 0] > 0).astype(int), {"who": who}, preprocessing=fixed)


def outcome(method: str = "r2d", **settings: Any) -> Outcome:
    """Forget one user of a softmax head on 60 rows of two features."""
    task = Classification(lambda: SoftmaxHead(2, 2))
    recipe = GradientDescent(steps=40, lr=1.0, l2=0.05)
    trained = planning.train(task, rows(60, 0), recipe)
    trained = planning.publish(
        trained, Budget(epsilon=2.0, delta=1e-5, capacity=8), method=registry.make("r2d", {"rewind": 0.5})
    )
    trained = beside_ledger(trained)
    if method == "r2d":
        settings = {"rewind": 0.5, **settings}
    chosen = registry.make(method, settings)
    ran = planning.plan(trained, request(), chosen, key=HASHING, probes={"test": rows(30, 1)}).run()
    return replace(ran, releases=tuple(settle(release, CHECKS) for release in ran.releases))


def evidence(found: Outcome, reference: str | None = "retrained") -> Evidence:
    """Measurements by hand: their numbers are chosen, not measured."""
    ideal = (lambda value: value) if reference else (lambda _: None)

    def item(
        place: tuple[str, str | None],
        value: float,
        interval: Any,
        n: int,
        retrained: float,
        null: float,
        original: float,
    ) -> Measurement:
        return Measurement(
            *place, None, value, interval, n, Direction.MATCH, ideal(retrained), ideal(null), original, reference
        )  # fmt: skip

    measurements = (
        item(("accuracy", "retain"), 0.9, (0.85, 0.94), 55, 0.91, 0.01, 0.92),
        item(("accuracy", "forget"), 0.8, (0.44, 0.97), 5, 0.9, 0.05, 1.0),
        item(("accuracy", "test"), 0.87, (0.8, 0.92), 30, 0.88, 0.01, 0.88),
        item(("membership_loss", None), 0.52, (0.42, 0.62), 35, 0.5, 0.02, 0.9),
    )
    cost = {
        "seconds": {"unlearn": found.cost["seconds"], "retrain": 2.0 if reference else None},
        "gradient_evaluations": {"unlearn": found.cost["gradient_evaluations"], "retrain": 2200 if reference else None},
    }
    private = {"membership/loss": [SECRET] * 5, "realised_epsilon": SECRET}
    return Evidence(found, measurements, CHECKS if found.certificate else (), cost, reference, private)


def record_of(
    found: Outcome, reference: str | None = "retrained", name: str = "toy head", **options: Any
) -> dict[str, Any]:
    decision = options.pop("decision", {"decision": "grant", "reason": "nothing unusual", "by": "officer"})
    settings = {"title": "A toy deletion", "dataset": "toy rows", "note": "synthetic", **options}
    return build(
        [(name, found, evidence(found, reference))], request={**found.request, "decision": decision}, **settings
    )


def with_verdict(record: dict[str, Any], verdict: str) -> dict[str, Any]:
    """The record of a certified run turned into one of ``verdict``, with assumptions that amount to it."""
    record = copy.deepcopy(record)
    run = record["runs"][0]
    run["verdict"] = verdict
    if verdict == UNCHANGED:
        run |= {"status": UNCHANGED, "certificate": None, "change": dict.fromkeys(run["change"], 0.0)}
    elif verdict == UNCERTIFIED:
        run["certificate"] = None
    else:
        run["certificate"]["verdict"] = verdict
        changes = {
            Verdict.CERTIFIED: {},
            Verdict.UNDER_DECLARED: {"origin": "declared", "status": "unchecked"},
            Verdict.AS_CLAIMED: {"origin": "claimed", "status": "unchecked"},
            Verdict.HEURISTIC: {"origin": "estimated", "status": "unchecked"},
            Verdict.UNREPLAYED: {"origin": "unreplayed", "status": "unchecked"},
            Verdict.VOID: {"status": "violated"},
        }[Verdict(verdict)]
        next(a for a in run["certificate"]["assumptions"] if a["name"] == "smoothness").update(changes)
        if verdict == Verdict.VOID:
            run["certificate"] |= dict.fromkeys(("epsilon", "mu", "composed_mu", "release_epsilon", "sensitivity"))
            run["certificate"]["curve"] = []
    return record


def failing(found: Evidence) -> Evidence:
    """The same evidence with a check that failed."""
    return replace(found, checks=(Check("replay", False, "that is not the noise", {}),))
