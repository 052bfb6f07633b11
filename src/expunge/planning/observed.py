"""What single theorems ask of a run and the planner sees for itself: no claim can talk about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from expunge.core.certificate import Claim
from expunge.core.data import Deletion
from expunge.core.trained import Fact, Origin, Trained
from expunge.privacy.noisy_fine_tuning import steps_bounded
from expunge.privacy.witness import Draw
from expunge.training.facts import RESIDUAL

Seen = Mapping[str, Fact | tuple[Any, str]]


def seen_of_theorem(
    claim: Claim, before: Trained, deletion: Deletion, views: Collection[str], draws: Sequence[Draw]
) -> Seen:
    """Facts of this run that its theorem asks for and others do not; empty for most theorems.

    Args:
        claim: what the method says. before: the model that it started from. views: who was given a model.
        draws: of noise, as the witness saw them.
    """
    seen: dict[str, Callable[[], Seen]] = {
        "noisy-fine-tuning": lambda: _clipped_steps(claim.parameters, draws),
        "rr-du": lambda: _clipped_gradients(claim.parameters, draws),
        "network-newton": lambda: _of_network(claim.parameters, before, deletion, views),
        "masked-rr-du": lambda: _of_network(claim.parameters, before, deletion, views),
    }
    return seen[claim.theorem]() if claim.theorem in seen else {}


def _clipped_steps(p: Mapping[str, Any], draws: Sequence[Draw]) -> Seen:
    bounded = steps_bounded(list(draws), clip_model=p["clip_model"], clip=p["clip"], lr=p["lr"], l2=p["l2"])
    return {"steps_bounded": (bounded, "norms of the start and of every step, where the noise entered")}


def _clipped_gradients(p: Mapping[str, Any], draws: Sequence[Draw]) -> Seen:
    bounded = all(draw.norm <= p["clip"] * p["factor"] * (1 + 1e-6) for draw in draws)
    return {"steps_bounded": (bounded, "norm of the gradient that each draw entered, against the clipping norm")}


def _of_network(p: Mapping[str, Any], before: Trained, deletion: Deletion, views: Collection[str]) -> Seen:
    """Whether distance and tau were published, training itself got to tau, and all that stay were given the new model."""
    from expunge.network.gossip import Gossip  # with networkx, which other models do without

    settings = before.budget.method.get("settings", {}) if before.budget else {}
    agreed = all(settings.get(name) == p[name] for name in ("distance", "tau"))
    reached = before.facts.get(RESIDUAL, Fact(None, Origin.DECLARED, "nobody recorded it"))
    enough = reached.value is not None and reached.value <= p["tau"]
    recipe = before.recipe
    stay = set(recipe.network_of(deletion.after).peers) if type(recipe) is Gossip else set()
    return {
        "distance_agreed": (agreed, "distance and tau against those that the model was published with"),
        "reference_reached": Fact(enough, reached.origin, "gradient norm where training stopped, against tau"),
        "peers_reached": (stay == set(views), "peers that stay against those that were given a model"),
    }
