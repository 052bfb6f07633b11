"""The only place where a certificate is made: numbers from a theorem, assumptions from recorded facts, digests bound in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from expunge.core.certificate import Assumption, Certificate, Claim, Status
from expunge.core.digest import finite
from expunge.core.errors import InputError
from expunge.core.trained import Budget, Fact, Facts, Origin, Spent
from expunge.privacy import gaussian
from expunge.privacy.composition import EarlierReleases, compose_gaussian
from expunge.privacy.preconditions import RULES, constant
from expunge.privacy.theorems import ALWAYS_EXCLUDED, Evaluation, Parameters, Theorem, theorem

# What only the run itself can know: the one thing that a claim may add to the record of training.
RUN_FACTS = ("converged", "residual_within")
# Facts of training that are only known to have been fixed before a request where the ledger's sequence shows it.
FIXED_FIRST = ("selection",)
CURVE_EPSILONS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Circumstances:
    """What the planner saw itself around a run; a method cannot talk about these.

    Attributes:
        budget: the published promise, or ``None``.
        earlier: releases before this one.
        removed: records removed in all, this request included.
        retained: digest of the rows that stay.
        changed: whether the release differs from the model before.
        binds: digests of request, data, trail and release.
        seen: facts of this run that the planner established itself (``privacy.witness`` and what it compared): they stand in
            for anything that a claim or the record says under the same names.
        published_first: whether a ledger shows that noise and settings were fixed before the request was filed.
        ledger: whether the ledger of releases lies beside the model; otherwise somebody vouches that no release is missing.
        own: whether expunge's own implementation ran, by its exact type.
        published: the promise about all releases that this one must fit in where ``budget`` does not fix its noise.
        together: how many different models this run releases at once: one for a model, and for a network one for each
            distinct model that some peer holds. Whoever sees all of them sees the difference that often, if each carries
            noise of its own; copies of one model are seen once.
    """

    budget: Budget | None
    earlier: EarlierReleases
    removed: int
    retained: str
    changed: bool
    binds: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, Fact | tuple[Any, str]] = field(default_factory=dict)
    published_first: bool = False
    ledger: bool = False
    own: bool = False
    published: Budget | None = None
    together: int = 1


def certify(claim: Claim, facts: Facts, around: Circumstances) -> Certificate:
    """Make the certificate that ``claim`` deserves under ``facts``.

    Formal guarantee: the theorem's, exactly as far as :attr:`Certificate.verdict` says. The verdict is the weakest of all
    assumptions (our rule). What a method says about training or about how many records went is not believed: the record
    and the planner's count replace it. What it says about its own steps is checked by replay (``measuring``).

    Raises:
        InputError: if the theorem is unknown or the claim lacks a parameter.
    """
    chosen = theorem(claim.theorem)
    sigma = float(claim.parameters["sigma"])
    delta = around.budget.delta if around.budget else float(claim.parameters["delta"])
    parameters = parameters_of(chosen, {**claim.parameters, "forget": around.removed}, facts)
    evaluation = chosen.evaluate(parameters) if _complete(chosen, parameters) else None
    mu = evaluation.mu(sigma) if evaluation else math.inf
    earlier = EarlierReleases() if chosen.cumulative else around.earlier
    composed = compose_gaussian([earlier.mu, *[mu] * around.together])
    if evaluation and evaluation.epsilon and not earlier.releases and around.together == 1:
        release_epsilon = epsilon = evaluation.epsilon(sigma, delta)
    else:
        release_epsilon, epsilon = gaussian.epsilon_of(mu, delta), gaussian.epsilon_of(composed, delta)
    recorded = _merged(facts, claim.facts)
    known = {**recorded, **_fixed_first(recorded, around), **_seen(chosen, claim, around, sigma, epsilon, composed)}
    assumptions = (
        *(RULES[name].check(known) for name in chosen.rules),
        *(constant(known, name, statement) for name, statement in chosen.constants_from(parameters).items()),
        *_about_convexity(evaluation, known, chosen),
        *_about_joint_view(around, known, chosen, parameters),
        *_about_publication(chosen),
        *_about_noise(around.budget, epsilon, chosen),
    )
    return Certificate(
        theorem=f"{chosen.name}: {chosen.source}",
        definition=chosen.definition,
        procedure=chosen.procedure,
        unit=f"the group of {around.removed} removed record(s)",
        adjacency=chosen.adjacency,
        mu=mu,
        composed_mu=composed,
        epsilon=epsilon,
        release_epsilon=release_epsilon,
        delta=delta,
        sigma=sigma,
        sensitivity=evaluation.sensitivity if evaluation else math.inf,
        bounds=evaluation.bounds if evaluation else (),
        parameters={
            **parameters, "theorem": chosen.name, "releases_before": earlier.releases, "mu_before": earlier.mu,
            "together": around.together,
        },
        covers=chosen.covers,
        excludes=(*ALWAYS_EXCLUDED, *chosen.excludes),
        assumptions=assumptions,
        binds=dict(around.binds),
        curve=_curve(composed) if not (evaluation and evaluation.epsilon) else (),
        given=_given(claim, recorded, around, chosen),
    )  # fmt: skip


def _given(claim: Claim, recorded: Mapping[str, Fact], around: Circumstances, chosen: Theorem) -> dict[str, Any]:
    """Everything that decided besides the record of training, the budget and the numbers written in the certificate itself.

    Of facts only values and origins: notes may hold numbers that must not be shown. Requests of earlier releases are not named.
    """
    plain = lambda fact: {"value": fact.value, "origin": fact.origin.value}  # noqa: E731
    seen = {
        name: item if isinstance(item, Fact) else Fact(item[0], Origin.ENFORCED) for name, item in around.seen.items()
    }
    decide = {"noise_draws", *chosen.rules, *chosen.constants, *(other for other, _ in chosen.alternatives.values())}
    return {
        "claimed": {name: plain(fact) for name, fact in claim.facts.items() if recorded.get(name) is fact},
        "seen": {name: plain(fact) for name, fact in seen.items() if name in decide},
        "earlier": {**asdict(around.earlier), "mu": finite(around.earlier.mu)},
        "removed": around.removed,
        "read_retained": claim.descended_on == around.retained,
        "changed": around.changed,
        "published_first": around.published_first,
        "ledger": around.ledger,
        "own": around.own,
        "within": "budget" if around.budget is not None else "published" if around.published is not None else "",
        "together": around.together,
    }


def parameters_of(chosen: Theorem, given: Parameters, facts: Facts) -> dict[str, Any]:
    """The run's parameters, with everything that training decided taken from its record: whatever ``given`` says of it."""
    values = {name: fact.value for name, fact in facts.items()}
    shape = ("convex", "strong_convexity", "hessian_lipschitz")
    never = {*chosen.constants, *(other for other, _ in chosen.alternatives.values()), *shape}
    own = {name: value for name, value in given.items() if name not in never}
    taken = (*chosen.constants_from(values), *shape, *chosen.recorded)
    return own | {name: values[name] for name in taken if name in values}


def calibrate(name: str, given: Parameters, facts: Facts, budget: Budget) -> float:
    """Noise level sigma for ``budget`` at full capacity under theorem ``name``.

    Raises:
        InputError: if the budget has no epsilon, a constant is missing, or the bound is infinite.
    """
    if budget.epsilon is None:
        raise InputError("Noise is derived from an epsilon; this budget has none. Give epsilon, or sigma by hand.")
    chosen = theorem(name)
    parameters = parameters_of(chosen, given, facts)
    if missing := [item for item in chosen.constants_from(parameters) if item not in parameters]:
        raise InputError(
            f"The bound of {name} needs {', '.join(missing)}, which nothing here proves. Use a model with proved constants "
            "(SoftmaxHead), clip row gradients, or declare or estimate the constants (the verdict will say so)."
        )
    evaluation = chosen.evaluate(parameters)
    if not math.isfinite(evaluation.sensitivity):
        raise InputError(
            f"The sensitivity bound of {name} is infinite for eta L T = {_exponent(parameters):.3g}: no noise reaches an "
            "epsilon. Train fewer or smaller steps, use a convex head, or noisy fine-tuning."
        )
    return gaussian.sigma_of(evaluation.sensitivity, budget.epsilon, budget.delta)


def promise(name: str, given: Parameters, facts: Facts, budget: Budget, spent: tuple[Spent, ...]) -> dict[str, float]:
    """What a release under ``budget``'s noise would come to, alone (mu) and together with earlier ones (epsilon).

    Empty where a constant is missing: nothing can be promised then, and the certificate will be void.
    """
    chosen = theorem(name)
    parameters = parameters_of(chosen, given, facts)
    if not _complete(chosen, parameters) or budget.sigma is None:
        return {}
    mu = chosen.evaluate(parameters).mu(budget.sigma)
    composed = compose_gaussian([*(item.mu for item in spent), mu])
    return {"mu": mu, "epsilon": gaussian.epsilon_of(composed, budget.delta), "delta": budget.delta}


def _complete(chosen: Theorem, parameters: Parameters) -> bool:
    return all(parameters.get(name) is not None for name in chosen.constants_from(parameters))


def _merged(facts: Facts, claimed: Facts) -> dict[str, Fact]:
    """The record with what only the run can know added; elsewhere a claim may weaken a recorded fact, never raise it."""
    order = list(Origin)
    merged = dict(facts)
    for name, fact in claimed.items():
        recorded = facts.get(name)
        weaker = recorded and recorded.value == fact.value and order.index(fact.origin) > order.index(recorded.origin)
        if name in RUN_FACTS or weaker:
            merged[name] = fact
    return merged


def _exponent(p: Parameters) -> float:
    return float(p.get("lr", 0)) * float(p.get("smoothness", 0)) * float(p.get("steps", 0))


def _fixed_first(recorded: Facts, around: Circumstances) -> dict[str, Fact]:
    """Facts that say that something was fixed beforehand: somebody's word, unless the ledger's sequence shows it."""
    if around.published_first:
        return {}
    note = "no ledger shows that the model was published before the request was filed"
    return {name: weakened(recorded[name], note) for name in FIXED_FIRST if name in recorded}


def weakened(fact: Fact, note: str) -> Fact:
    """``fact`` as somebody's word, where it was more than that."""
    strong = fact.origin in (Origin.PROVED, Origin.ENFORCED)
    return replace(fact, origin=Origin.DECLARED, note=note) if strong else fact


def _seen(
    chosen: Theorem, claim: Claim, around: Circumstances, sigma: float, epsilon: float, composed: float
) -> dict[str, Fact]:
    """Facts that follow from what the planner saw."""
    budget = around.budget
    fact = lambda value, note: Fact(value, Origin.ENFORCED, note)  # noqa: E731
    word = lambda value, note: Fact(value, Origin.DECLARED, note)  # noqa: E731
    seen = {name: item if isinstance(item, Fact) else fact(*item) for name, item in around.seen.items()}
    if claim.descended_on != around.retained:
        seen["retained_rows"] = fact(False, "digest of the rows read, compared with those kept")
    if chosen.after is not None:
        covered = set(around.earlier.theorems) <= set(chosen.after)
        seen["earlier_releases"] = fact(covered, "theorems of earlier releases")
    seen |= {
        "release_changed": fact(around.changed, "weights compared"),
        "own_implementation": fact(True, "exact type of the method")
        if around.own
        else Fact(True, Origin.UNREPLAYED, "a plug-in ran; nothing has done its steps again"),
        "release_ledger": fact("complete", "the ledger beside the model")
        if around.ledger
        else word("complete", "whoever holds the model says that nothing else was released of it"),
    }
    if budget is not None:
        promised = budget.epsilon if budget.epsilon is not None else math.inf
        first = fact if around.published_first else word
        order = (
            "its entry in the ledger stands before the request's" if around.published_first else "no ledger shows it"
        )
        seen |= {
            "noise_fixed_before": first(budget.sigma == sigma, f"compared with the published noise level; {order}"),
            "within_capacity": fact(around.removed <= budget.capacity, f"{around.removed} of {budget.capacity}"),
            "within_budget": fact(epsilon <= promised * (1 + 1e-9), "composed epsilon against the published one"),
        }
    elif around.published is not None and around.published.epsilon is not None:
        together = gaussian.epsilon_of(composed, around.published.delta)
        seen["within_budget"] = fact(
            together <= around.published.epsilon * (1 + 1e-9), "composed epsilon against the published one"
        )
    elif "epsilon" in claim.parameters:
        seen["within_budget"] = fact(
            epsilon <= claim.parameters["epsilon"] * (1 + 1e-9), "against the method's epsilon"
        )
    return seen


def _about_noise(budget: Budget | None, epsilon: float, chosen: Theorem) -> tuple[Assumption, ...]:
    """Whether the noise came from a bound, and whether the bound says anything at all."""
    items = []
    if budget is not None and budget.unnoised and "noise_source" in chosen.rules:
        items.append(
            Assumption(
                "noise_added", "noise was added; this model was published without, on explicit demand", Origin.ENFORCED,
                Status.VIOLATED, budget.sigma,
            )
        )  # fmt: skip
    if budget is not None and budget.by_hand and "noise_source" in chosen.rules:
        items.append(
            Assumption(
                "noise_calibrated", "the noise level was derived from the bound, not picked by hand", Origin.ESTIMATED,
                Status.UNCHECKED, budget.sigma,
            )
        )  # fmt: skip
    finite = math.isfinite(epsilon)
    items.append(
        Assumption(
            "finite_bound", "the bound is finite and noise was added", Origin.PROVED,
            Status.HOLDS if finite else Status.VIOLATED,
        )
    )  # fmt: skip
    return tuple(items)


def _about_joint_view(
    around: Circumstances, known: Facts, chosen: Theorem, parameters: Parameters
) -> tuple[Assumption, ...]:
    """Of several different models: whether there were as many draws of noise as all of them need.

    Models that share one draw differ by numbers without any noise, so whoever holds two of them faces no (epsilon, delta).
    """
    if around.together == 1 or not any(name.startswith("noise_") for name in chosen.rules):
        return ()
    needed = around.together * (1 if chosen.draws is None else chosen.draws(parameters)[0])
    made = known.get("noise_draws", Fact(0, Origin.DECLARED))
    fact = replace(made, value=made.value >= needed, note=f"{made.value} draws for {around.together} different models")
    return (RULES["joint_view_covered"].check({"joint_view_covered": fact}),)


def _about_publication(chosen: Theorem) -> tuple[Assumption, ...]:
    """What a theorem that was taken as published presumes: at best ``as-claimed``."""
    if not chosen.claimed:
        return ()
    return (Assumption("published_argument", chosen.claimed, Origin.CLAIMED, Status.UNCHECKED),)


def _about_convexity(evaluation: Evaluation | None, known: Facts, chosen: Theorem) -> tuple[Assumption, ...]:
    """What a bound that was taken because the loss is convex rests on, besides the theorem's own constants."""
    if evaluation is None:
        return ()
    values = {bound.name: bound.value for bound in evaluation.bounds if bound.valid}
    general = min((value for name, value in values.items() if "convex" not in name), default=math.inf)
    names = {
        "convex": "every row's loss is convex in the weights",
        "strong_convexity": "the mean loss is strongly convex with this modulus",
    }
    taken = [name for name in values if "convex" in name and values[name] < general]
    wanted = ["convex"] * bool(taken) + ["strong_convexity"] * ("strongly_convex" in taken)
    if "convex" not in known and "strong_convexity" in known:  # which implies it
        wanted = ["strong_convexity"] * bool(taken)
    return tuple(constant(known, name, names[name]) for name in wanted if name not in chosen.constants)


def _curve(mu: float) -> tuple[tuple[float, float], ...]:
    return tuple((epsilon, gaussian.delta_of(epsilon, mu)) for epsilon in CURVE_EPSILONS)
