"""What methods of networks share that mask a distance: it is agreed when the network is published, before any request.

How far a model may be from a retrained one is bounded at run time by gradients over strong convexity
(``network.correction.residual_bound``), and such a bound depends on what is forgotten. So noise is made for a distance that was
published, and a run whose bound exceeds it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from expunge.core.errors import InputError
from expunge.core.method import Refusal
from expunge.core.trained import Budget, Trained
from expunge.training.facts import RESIDUAL


@dataclass(frozen=True)
class Agreed:
    """A distance and where the reference stops, for one method and its theorem.

    Attributes:
        theorem, method: their names.
        distance: by how much a model may differ from a retrained one; ``None``: none was agreed.
        tau: the gradient norm at which the retraining that is compared with stops.
    """

    theorem: str
    method: str
    distance: float | None
    tau: float

    def parameters(self, removed: int) -> dict[str, Any]:
        """The bound's inputs."""
        return {"forget": removed, "distance": self.distance, "tau": self.tau}

    def sigma(self, trained: Trained, budget: Budget) -> float:
        """The noise level for ``budget``.

        Raises:
            InputError: without a distance, or for a network whose own training is not what a retraining is compared with.
        """
        from expunge.privacy.certify import calibrate

        if self.distance is None:
            raise InputError(
                "Expected distance=…: by how much a model may differ from a retrained one. The bound of a run depends on what "
                "is forgotten, so the distance that noise is derived from is agreed before any request."
            )
        if reason := self._no_reference(trained):
            raise InputError(reason)
        return calibrate(self.theorem, self.parameters(budget.capacity), trained.facts, budget)

    def promises(self, trained: Trained, removed: int) -> dict[str, float]:
        """What a release with the published noise would come to."""
        from expunge.privacy.certify import promise

        assert trained.budget is not None
        return promise(self.theorem, self.parameters(removed), trained.facts, trained.budget, trained.spent)

    def refusal(self, trained: Trained) -> Refusal | None:
        """Why a published network cannot be served; ``None`` where it can."""
        if not trained.fact("strong_convexity", 0):
            return Refusal(
                f"{self.method} needs a strongly convex objective for its certificate.",
                "Train a linear head (SoftmaxHead) by gossip with l2 > 0.",
            )
        if self.distance is None or trained.budget is None or trained.budget.sigma is None:
            return Refusal(
                f"{self.method} needs the distance that was agreed when the network was published.",
                "Give distance=…, the one that its noise was derived from.",
            )
        agreed = trained.budget.method.get("settings", {})
        for name, now in (("distance", self.distance), ("tau", self.tau)):
            if (then := agreed.get(name)) != now:
                return Refusal(
                    f"{self.method} needs the {name} that this network was published with ({then}); got {now}. One that is "
                    "chosen later may follow from what is forgotten.",
                    "Publish anew." if then is None else f"Give {name}={then}, or publish anew.",
                )
        reason = self._no_reference(trained)
        return Refusal(reason) if reason else None

    def _no_reference(self, trained: Trained) -> str:
        """Why training of this network is no training until tau, and what would be one; empty where it is."""
        left = trained.fact(RESIDUAL)
        if trained.fact("batch") != "full":
            return (
                f"{self.method} certifies networks whose peers step on all of their rows: with drawn batches, where a "
                "retraining stops is chance. Train by gossip without batch_size."
            )
        if left is None:
            return "Nobody recorded with which gradient the training of this network stopped; train it anew."
        if left <= self.tau:
            return ""
        return (
            f"The training of this network stopped with a gradient of norm {left:.3g}, above tau = {self.tau:.3g}: a retrained "
            "network would stop elsewhere than the one that a certificate compares with. Train longer or with a smaller step, "
            "or publish with a larger tau and distance."
        )
