"""What the attacks share: small data sets, a certified path in a folder of its own, and the truth beside a claim."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import expunge
from cases import beside_ledger, samples
from expunge import Budget, Classification, GradientDescent, Rows
from expunge.core.certificate import Status, Verdict
from expunge.core.method import Outcome
from expunge.core.trained import Trained
from expunge.data.rows import by_reader
from expunge.measuring import MeasureSettings
from expunge.privacy.replay import realised_epsilon
from expunge.tasks.networks import SoftmaxHead
from expunge.training.flat import distance

LIGHT = MeasureSettings(shadow_models=0, replicates=0, trials=0, audit=False)
FIXED = by_reader("fixed", "drawn by a formula that knows no other row")


def rows(n: int = 60, features: int = 2, seed: int = 0, outlier: float = 50.0) -> Rows:
    """Standard normal rows of two classes; row 3 lies far out, so that whatever leaks tells it."""
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, features)))
    x[3] = outlier
    return Rows.of(x, torch.arange(n) % 2, {"patient": np.arange(n)}, preprocessing=FIXED)


def head(features: int = 2, classes: int = 2) -> Classification:
    """The softmax head with proved constants, in double precision."""
    return Classification(functools.partial(SoftmaxHead, features, classes), dtype=torch.float64)


def published(
    task: Any, data: Any, *, method: Any = None, recipe: Any = None, budget: Budget | None = None, train: Any = None
) -> Trained:
    """Trained, published and laid beside a ledger: all that the certified path asks for."""
    recipe = recipe or GradientDescent(steps=100, lr=1.5, l2=1e-2)
    trained = (train or expunge.train)(task, data, recipe)
    if budget is None and method is not None and "budget" not in method.capabilities.needs:
        return beside_ledger(trained)
    return beside_ledger(expunge.publish(trained, budget or Budget(1.0, 1e-5, 1), method=method or r2d()))


def r2d(rewind: float = 0.5) -> Any:
    return expunge.methods.R2D(rewind=rewind)


def forget(trained: Trained, method: Any, *ids: int, **options: Any) -> Outcome:
    return expunge.plan(trained, samples(*(ids or (3,))), method, **options).run()


def measured(outcome: Outcome, reference: str = "retrained") -> Any:
    return expunge.measure(outcome, LIGHT, reference=reference)


def not_holding(outcome: Outcome) -> dict[str, Status]:
    return {a.name: a.status for a in outcome.certificate.assumptions if a.status is not Status.HOLDS}


def never_certified(outcome: Outcome) -> None:
    """Neither at once nor after measuring, with a retrained model or without."""
    assert outcome.verdict != Verdict.CERTIFIED
    for reference in ("retrained", "none"):
        assert measured(outcome, reference).outcome.verdict != Verdict.CERTIFIED


def realised(outcome: Outcome, honest: Any) -> float:
    """Epsilon of the true distance between the un-noised weights and those of a model that never saw the rows."""
    certificate = outcome.certificate
    names = honest.keys()
    apart = distance({n: outcome.after.secret[n] for n in names}, dict(honest))
    return realised_epsilon(apart, certificate.sigma, certificate.delta)


def folder_of(outcome: Outcome, **options: Any) -> tuple[Path, dict[str, Any]]:
    """The evidence folder of an outcome, and its record."""
    place = Path(tempfile.mkdtemp(prefix="expunge-test-")) / "evidence"
    expunge.write_report(measured(outcome), place, pdf=False, **options)
    return place, json.loads((place / "evidence.json").read_text())
