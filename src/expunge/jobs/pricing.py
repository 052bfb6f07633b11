"""What carrying out a plan takes here and now: by the method's own formula, as just timed, or by a pilot of a few steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from expunge.core.method import Context, Estimate, Method
from expunge.core.trained import Trained
from expunge.training.pilot import Pilot, pilot
from expunge.training.recipes import example_gradients


@dataclass
class Prices:
    """Seconds and memory of methods on one request; each batch size is timed once.

    Attributes:
        context: of a plan for the request, by whatever method.
        training: seconds that training the model took a moment ago, where it was trained here; ``None``: it was not.
    """

    context: Context
    training: float | None = None
    _pilots: dict[int | None, Pilot] = field(default_factory=dict)

    def of(self, method: Method, estimate: Estimate) -> dict[str, Any]:
        """``seconds``, ``memory_bytes`` and how they are ``known``: ``formula`` (the method's own, from a step that it timed),
        ``timed`` (training, a moment ago) or ``pilot``; ``None`` where nothing says."""
        cost = estimate.cost
        if cost.get("seconds") is not None:
            memory = sum(cost.get(name) or 0 for name in ("state_bytes", "activation_bytes"))
            return {"seconds": cost["seconds"], "memory_bytes": memory or None, "known": "formula"}
        if "recipe" in method.capabilities.needs:
            return self.retraining()
        if not estimate.gradient_evaluations:
            return {"seconds": None, "memory_bytes": None, "known": None}
        return self._by_pilot(estimate.gradient_evaluations, getattr(method, "batch_size", None))

    def retraining(self) -> dict[str, Any]:
        """What training once more, without the forgotten examples, takes; ``None`` for a model without a recipe."""
        trained, deletion = self.context.trained, self.context.deletion
        if trained.recipe is None or deletion.after is None:
            return {"seconds": None, "memory_bytes": None, "known": None}
        if self.training is not None:
            share = len(deletion.after) / max(1, len(deletion.before))
            return {"seconds": self.training * share, "memory_bytes": None, "known": "timed"}
        evaluations = example_gradients(trained, len(deletion.after))
        if evaluations is None:
            return {"seconds": None, "memory_bytes": None, "known": None}
        return self._by_pilot(evaluations, getattr(trained.recipe, "batch_size", None))

    def _by_pilot(self, evaluations: int, batch_size: int | None) -> dict[str, Any]:
        """So many gradients of single examples, at the price of one in batches of that size."""
        if batch_size not in self._pilots:
            deletion, trained = self.context.deletion, self.context.trained
            examples = deletion.forget if deletion.after is None else deletion.after
            self._pilots[batch_size] = pilot(self.context.task, trained.artifact.tensors, examples, batch_size)
        made = self._pilots[batch_size]
        return {"seconds": evaluations * made.seconds, "memory_bytes": made.memory_bytes, "known": "pilot"}


def rests_on_samples(method: Method, trained: Trained) -> tuple[str, ...]:
    """Constants behind ``method``'s promise that were only sampled, by name: nothing is certified with them."""
    if "budget" not in method.capabilities.needs:
        return ()
    names = ("smoothness", "gradient_bound", "gradient_difference")
    return tuple(name for name in names if name in trained.facts and trained.facts[name].origin == "estimated")


def promised_epsilon(method: Method, estimate: Estimate, trained: Trained) -> float | None:
    """The epsilon that the run may certify if its assumptions hold; ``None`` where nothing is promised."""
    epsilon = estimate.promises.get("epsilon")
    if not method.capabilities.certified or epsilon is None or not math.isfinite(epsilon):
        return None
    return None if rests_on_samples(method, trained) else float(epsilon)
