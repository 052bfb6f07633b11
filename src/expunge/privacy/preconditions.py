"""What must have been the case for a theorem to say anything: one rule each, checked against recorded facts.

Preconditions are checked here, not assumed; the list of them is ours. A fact that nobody recorded violates its rule; a fact
that contradicts it violates it; a fact that only the user vouches for leaves it unchecked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.certificate import Assumption, Status
from expunge.core.trained import Fact, Facts, Origin


@dataclass(frozen=True)
class Rule:
    """One precondition.

    Attributes:
        fact: name of the recorded fact it looks at.
        statement: what must hold, in words.
        holds: whether a value satisfies it.
    """

    fact: str
    statement: str
    holds: Callable[[Any], bool]

    def check(self, facts: Facts) -> Assumption:
        """The assumption with origin and status."""
        if self.fact not in facts:
            return Assumption(self.fact, self.statement + " (nobody recorded it)", Origin.DECLARED, Status.VIOLATED)
        fact = facts[self.fact]
        if not self.holds(fact.value):
            return Assumption(self.fact, self.statement, fact.origin, Status.VIOLATED, fact.value)
        checked = fact.origin in (Origin.PROVED, Origin.ENFORCED)
        return Assumption(
            self.fact, self.statement, fact.origin, Status.HOLDS if checked else Status.UNCHECKED, fact.value
        )


_equals = lambda wanted: lambda value: value == wanted  # noqa: E731
_is_false = _equals(False)

RULES: Mapping[str, Rule] = {
    rule.fact: rule
    for rule in (
        Rule("optimizer", "training is plain gradient descent, no adaptive optimiser", _equals("gradient descent")),
        Rule("batch", "every step reads every row (or the retraining is coupled batch by batch)",
             lambda value: value in ("full", "coupled")),
        Rule("schedule", "the step size is constant and equal in training and unlearning", _equals("constant")),
        Rule("momentum", "no momentum: the state is the weights alone", _equals(0)),
        Rule("decay_outside_loss", "the regulariser is inside the loss", _equals(0)),
        Rule("dropout", "no dropout: a step is a function of weights and rows", _is_false),
        Rule("batch_norm", "no batch normalisation: a row's loss does not depend on other rows", _is_false),
        Rule("augmentation", "no random augmentation that could differ between runs", _is_false),
        Rule("start", "training starts from weights that no removed row has influenced", _equals("independent")),
        Rule("selection", "the number of steps was not chosen by looking at data that must go", _equals("fixed")),
        Rule("preprocessing", "preparing a row does not look at other rows", _equals("fixed")),
        Rule("buffers_moved", "nothing but noised weights leaves: no buffer follows the data", _is_false),
        Rule("retained_rows", "the unlearning steps read exactly the retained rows", _equals(True)),
        Rule("retained_unchanged", "no retained record changes with those that go, as neighbours in a graph do",
             _equals(True)),
        Rule("release_changed", "the release differs from the model before", _equals(True)),
        Rule("noise_source", "noise is drawn fresh from the operating system and recorded nowhere",
             _equals("operating system")),
        Rule("noise_precision", "noise is added in single precision or wider, before any down-cast",
             lambda value: value in ("float32", "float64")),
        Rule("noise_resolved", "the noise stands far above the rounding of the weights it is added to", _equals(True)),
        Rule("noise_fixed_before", "the noise level was fixed before the request arrived", _equals(True)),
        Rule("noise_covers", "noise covers every trainable weight exactly once, in every draw", _equals(True)),
        Rule("noise_level", "noise was drawn as often and as strongly as the statement says", _equals(True)),
        Rule("noise_entered", "the released weights are those that the noise was added to, and nothing else", _equals(True)),
        Rule("noise_written_ahead", "noise was stored before anything depended on it, so that none is drawn twice",
             _equals(True)),
        Rule("steps_bounded", "every noisy step moved the weights by no more than its clipping norms allow", _equals(True)),
        Rule("unnoised_tensors", "what leaves without noise (frozen weights, buffers) owes nothing to a removed row",
             lambda value: value in ("none", "independent", "recomputed")),
        Rule("model_code", "the code of the model and of its task holds no values of rows", _equals(True)),
        Rule("own_implementation", "the run was made by expunge's own implementation, or its steps were done again by it",
             _equals(True)),
        Rule("trail_of_these_rows", "the stored iterates come from training on these rows", _equals(True)),
        Rule("release_ledger", "every release of this model is on a ledger that belongs to the model", _equals("complete")),
        Rule("earlier_releases", "earlier requests were served in ways that the argument covers", _equals(True)),
        Rule("joint_view_covered", "whoever sees several of the released models sees noise of its own in each: their "
             "differences tell nothing that the noise does not cover", _equals(True)),
        Rule("within_capacity", "no more records went than the published capacity", _equals(True)),
        Rule("within_budget", "all releases together stay within the published epsilon", _equals(True)),
        Rule("converged", "the start of the Newton step is the minimiser up to the recorded residual", _equals(True)),
        Rule("residual_within", "the gradient of the retained objective at the corrected model is as small as the agreed "
             "distance needs", _equals(True)),
        Rule("distance_agreed", "the distance that the noise was made for, and tau, where the reference stops, were published "
             "with the model", _equals(True)),
        Rule("reference_reached", "training itself stopped with a gradient of at most tau, as the training that is compared "
             "with does", _equals(True)),
        Rule("peers_reached", "every peer that stays was given the new model, and nobody else", _equals(True)),
        Rule("noisy_training", "training added fresh noise in every step", _equals(True)),
    )
}  # fmt: skip


_MAY_BE_ZERO = ("smoothness", "gradient_bound", "gradient_difference", "hessian_lipschitz")


def constant(facts: Facts, name: str, statement: str) -> Assumption:
    """A constant that a bound was computed with; violated where it is absent or not a number of its domain.

    Zero is a bound like any other (a quadratic's Hessian is 0-Lipschitz); a strong convexity of zero is none.
    """
    value = facts[name].value if name in facts else None
    if not isinstance(value, int | float) or not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)):
        return Assumption(name, statement + " (no value)", Origin.DECLARED, Status.VIOLATED)
    fact: Fact = facts[name]
    checked = fact.origin in (Origin.PROVED, Origin.ENFORCED)
    return Assumption(name, statement, fact.origin, Status.HOLDS if checked else Status.UNCHECKED, fact.value)
