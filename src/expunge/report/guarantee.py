"""A certificate's (epsilon, delta) for people: how much better than guessing anybody can do; of several views, the weakest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from expunge.core.certificate import Verdict
from expunge.report import numbers as say

Record = Mapping[str, Any]
WEAK = 0.95  # above this chance of guessing right a bound rules out little; our threshold, no paper names one


def told_apart(certificate: Record) -> list[str]:
    """(epsilon, delta) for people: how much better than guessing anybody can do."""
    if certificate["composed_mu"] == 0 and certificate["epsilon"] == 0:
        return [
            f"The model was made by the reference procedure itself, without the forgotten records ({say.equals('ε', '0')}): "
            "it holds nothing of them that a model which never saw them would not hold."
        ]
    epsilon, delta = certificate["epsilon"], certificate["delta"]
    if epsilon is None:
        return ["No finite ε is known."]
    factor = math.exp(epsilon) if epsilon < 700 else math.inf
    right = best_guess(epsilon, delta)
    parameters = certificate["parameters"]
    earlier = parameters.get("releases_before", len(parameters.get("spent") or ()))  # records of before list them
    releases = f", counting all {earlier + 1} releases so far together" if earlier else ""
    stated = say.equals("ε", say.number(say.ceiling(epsilon)))
    sentences = [
        "Any test of whether the released model has seen the forgotten records says yes at most "
        f"{say.number(say.ceiling(factor), 'without limit')} times as often (e^ε with {stated}{releases}) as on a model made "
        f"the same way without them, plus a chance of {say.chance(delta)} (δ).",
        f"Who starts from even odds guesses right at most {at_most(right)} of the time; blind guessing gives 50{say.PERCENT}.",
    ]
    if is_weak(certificate):
        sentences.append("That is a weak bound: it rules out little.")
    return sentences


def pair(certificate: Record) -> str:
    """The stated epsilon and delta."""
    if certificate["composed_mu"] == 0 and certificate["epsilon"] == 0:
        return say.equals("ε", "0")
    epsilon, delta = say.number(certificate["epsilon"], say.UNBOUNDED), say.number(certificate["delta"])
    return f"{say.equals('ε', epsilon)}, {say.equals('δ', delta)}"


def best_guess(epsilon: float, delta: float) -> float:
    """How often the best distinguisher is right from even odds: (e^ε + δ) / (1 + e^ε), implied by (ε, δ)."""
    return min(1.0, 1 / (1 + math.exp(-epsilon)) + delta / (1 + math.exp(min(epsilon, 700))))


def at_most(share: float) -> str:
    """A percentage rounded up: a bound must not shrink in print."""
    return say.percent(math.ceil(share * 1000) / 1000)


def is_weak(certificate: Record) -> bool:
    """Whether what a certificate states rules out little."""
    epsilon = certificate["epsilon"]
    return epsilon is None or best_guess(epsilon, certificate["delta"]) > WEAK


def certificates(run: Record) -> list[tuple[str, Record | None]]:
    """View and certificate of each release of a run; the first view, which is the only one of most runs, has no name."""
    return [("", run["certificate"]), *((view["view"], view["certificate"]) for view in run.get("other_views", ()))]


def weakest_certificate(run: Record) -> Record | None:
    """The certificate that decides the run's verdict: of several views, the one that promises least."""
    found = [certificate for _, certificate in certificates(run) if certificate is not None]
    if len(found) < len(certificates(run)):
        return None
    order = list(Verdict)
    return max(found, key=lambda c: (order.index(c["verdict"]), math.inf if c["epsilon"] is None else c["epsilon"]))
