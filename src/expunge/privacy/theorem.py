"""What a theorem is: against what it compares, which rules and constants it needs, and its numbers from its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.core.certificate import Bound

Parameters = Mapping[str, Any]

ALWAYS_EXCLUDED = (
    "someone who holds the model from before the deletion, or a copy, quantised export or fine-tuned child of it",
    "the secret un-noised iterates kept for later requests",
    "requests chosen after seeing a release (adaptive requests)",
    "settings that somebody chose by looking at the forgotten rows",
    "rounding inside the floating-point noise sampler and the arithmetic of descent",
    "that membership attacks score one half: a retrained model need not either",
    "releases from a copy of the model's folder, or from the same training published to another one",
)


@dataclass(frozen=True)
class Evaluation:
    """What a theorem says for given parameters.

    Attributes:
        bounds: every bound computed, with validity.
        sensitivity: the tightest valid one (L2), plus recovery error.
        noise: effective noise standard deviation for given ``sigma``.
        epsilon: for guarantees that are not Gaussian trade-offs: epsilon at a delta, given sigma; ``None`` otherwise.
    """

    bounds: tuple[Bound, ...]
    sensitivity: float
    noise: Callable[[float], float] = lambda sigma: sigma
    epsilon: Callable[[float, float], float] | None = None

    def mu(self, sigma: float) -> float:
        """Sensitivity over noise; 0 for no difference, infinite without noise."""
        noise = self.noise(sigma)
        if self.sensitivity == 0:
            return 0.0
        return self.sensitivity / noise if noise > 0 else float("inf")


@dataclass(frozen=True)
class Theorem:
    """One guarantee.

    Attributes:
        name, source: how it is called, and where it is proved.
        definition: in which sense the release is indistinguishable.
        procedure: the reference procedure it is compared with.
        rules: preconditions (``privacy.preconditions``).
        constants: facts that its bounds are computed with, and what each means.
        covers: what is promised, in words.
        evaluate: numbers from parameters.
        recorded: parameters that belong to training: its record decides them, not what a method says.
        alternatives: constant → another one that stands in where only that is known, and what it means.
        cumulative: whether its parameters already contain what earlier releases used up, so that nothing composes.
        draws: how many draws of noise a run makes and the sigma of each, from the parameters; ``None``: it draws none itself.
        after: theorems of earlier requests after which it still holds; ``None``: after any.
        claimed: what the published argument presumes and nobody here can check; empty where it was re-derived.
        excludes: what is not promised besides what no theorem does, in words.
    """

    name: str
    source: str
    definition: str
    procedure: str
    rules: tuple[str, ...]
    constants: Mapping[str, str]
    covers: tuple[str, ...]
    evaluate: Callable[[Parameters], Evaluation]
    adjacency: str = "the forgotten records are present in training, or were never there (removal)"
    recorded: tuple[str, ...] = ()
    alternatives: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    claimed: str = ""
    excludes: tuple[str, ...] = ()
    cumulative: bool = False
    draws: Callable[[Parameters], tuple[int, float]] | None = None
    after: tuple[str, ...] | None = None

    def constants_from(self, known: Mapping[str, Any]) -> dict[str, str]:
        """The constants it is evaluated with, given what is known: a stand-in only where the constant itself is missing."""
        chosen = {}
        for name, statement in self.constants.items():
            other, meaning = self.alternatives.get(name, (name, statement))
            if known.get(name) is None and known.get(other) is not None:
                name, statement = other, meaning
            chosen[name] = statement
        return chosen


# Rules and sentences that several theorems share.
TRAINING = (
    "optimizer", "batch", "schedule", "momentum", "decay_outside_loss", "dropout", "batch_norm", "augmentation", "start",
    "selection", "preprocessing",
)  # fmt: skip
DRAWN = ("noise_source", "noise_precision", "noise_covers", "noise_resolved", "noise_level", "noise_written_ahead")
NOISE = (*DRAWN, "noise_entered")
RUN = ("own_implementation", "model_code", "retained_rows", "release_changed", "unnoised_tensors")
RELEASE = (*RUN, "buffers_moved")
PUBLISHED = ("noise_fixed_before", "within_capacity", "within_budget", "release_ledger")


def one_draw(p: Parameters) -> tuple[int, float]:
    """One draw of sigma."""
    return 1, p["sigma"]


RETRAIN_INDISTINGUISHABLE = (
    "the released model and a model retrained without the forgotten records, with the same noise, are "
    "(epsilon, delta)-indistinguishable (retrain-indistinguishability)"
)
UNLEARN_INDISTINGUISHABLE = (
    "the released model and what the same procedure releases when the forgotten records were never there are "
    "(epsilon, delta)-indistinguishable (unlearn-indistinguishability)"
)
GROUP = ("presence of the forgotten records as a group, whatever their number up to the capacity",)
SMOOTH = "every row's loss is L-smooth in the weights, everywhere the two runs go"
BOUNDED = "every row's gradient has norm at most G, everywhere the two runs go"
