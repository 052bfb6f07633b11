"""A certificate is a value with assumptions; its verdict is computed from them and can be computed again by a reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from expunge.core.digest import finite
from expunge.core.trained import Fact, Origin


class Status(StrEnum):
    """What is known about an assumption."""

    HOLDS = "holds"
    UNCHECKED = "unchecked"
    VIOLATED = "violated"


class Verdict(StrEnum):
    """What a certificate is worth. Only the first may be called certified without a qualifier."""

    CERTIFIED = "certified"
    UNDER_DECLARED = "certified-under-declared-constants"
    AS_CLAIMED = "as-claimed"
    HEURISTIC = "heuristic-noise"
    UNREPLAYED = "unreplayed-plug-in"
    VOID = "void"


UNCERTIFIED = "no-certificate"  # a method that promises nothing, for example fine-tuning
UNCHANGED = "unchanged"  # a control that releases the model as it was


@dataclass(frozen=True)
class Assumption:
    """One thing a theorem needs, whence it is known, and whether it holds.

    Attributes:
        name: a short identifier, for example ``noise_fixed_before``.
        statement: what is assumed, as a sentence.
        origin: where it is known from, an :class:`~expunge.core.trained.Origin`.
        status: whether it holds, is open, or is violated.
        value: the recorded value that the status follows from.
    """

    name: str
    statement: str
    origin: Origin
    status: Status
    value: Any = None


_WORTH = {
    Origin.PROVED: Verdict.CERTIFIED,
    Origin.ENFORCED: Verdict.CERTIFIED,
    Origin.DECLARED: Verdict.UNDER_DECLARED,
    Origin.CLAIMED: Verdict.AS_CLAIMED,
    Origin.ESTIMATED: Verdict.HEURISTIC,
    Origin.UNREPLAYED: Verdict.UNREPLAYED,
}
_ORDER = list(Verdict)


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """The least of several verdicts; ``void`` where there are none."""
    return max(verdicts, key=_ORDER.index, default=Verdict.VOID)


def verdict_of(assumptions: tuple[Assumption, ...]) -> Verdict:
    """The weakest assumption decides (our rule); a violated one voids; an unchecked one is at best declared.

    No assumptions at all support nothing: ``void``.
    """

    def worth(item: Assumption) -> Verdict:
        if item.status is Status.VIOLATED:
            return Verdict.VOID
        unchecked = Verdict.UNDER_DECLARED if item.status is Status.UNCHECKED else Verdict.CERTIFIED
        return weakest([_WORTH[item.origin], unchecked])

    return weakest(worth(item) for item in assumptions)


@dataclass(frozen=True)
class Claim:
    """What a method says it did, in the terms of a theorem. ``privacy.certify`` recomputes every number from it.

    Attributes:
        theorem: a name that ``privacy.theorems`` knows.
        parameters: the theorem's inputs that the run decided (K, which data it descended on).
        facts: further facts that the run established (noise source and precision, recovery error).
        descended_on: digest of the data that the unlearning steps really read.
    """

    theorem: str
    parameters: Mapping[str, Any]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    descended_on: str | None = None


@dataclass(frozen=True)
class Bound:
    """One sensitivity bound: its value, where it comes from, and why it does not apply where it does not."""

    name: str
    value: float
    source: str
    valid: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Certificate:
    """An (epsilon, delta) statement bound to what it is about. Built only by ``privacy.certify``.

    Attributes:
        theorem, definition, procedure: which guarantee, in which sense, against which reference procedure.
        unit, adjacency: whose presence is hidden (record or group) and what a neighbouring data set is.
        mu: sensitivity / sigma of this release; ``composed_mu`` of all releases so far together.
        epsilon, delta: of the composition, what an observer of all releases faces; infinite where nothing holds.
        release_epsilon: of this release alone.
        sigma, sensitivity: noise per coordinate and the bound used (L2).
        bounds: every bound that was computed, valid or not.
        parameters: n, m, T, K, step, constants: enough to recompute all of the above.
        covers, excludes: what is and is not promised, in words.
        assumptions: with origin and status; they decide the verdict.
        binds: digests of request, data, trail and release.
        curve: (epsilon, delta) pairs along the whole trade-off.
        given: what it was made from besides the facts of training, the budget and the checks that are recorded with the run:
            a reader makes it again (``privacy.again``).
    """

    theorem: str
    definition: str
    procedure: str
    unit: str
    adjacency: str
    mu: float
    composed_mu: float
    epsilon: float
    release_epsilon: float
    delta: float
    sigma: float
    sensitivity: float
    bounds: tuple[Bound, ...]
    parameters: Mapping[str, Any]
    covers: tuple[str, ...]
    excludes: tuple[str, ...]
    assumptions: tuple[Assumption, ...]
    binds: Mapping[str, str]
    curve: tuple[tuple[float, float], ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Computed, never stored."""
        return verdict_of(self.assumptions)

    @property
    def certified(self) -> bool:
        """Whether the verdict begins with the word certified."""
        return self.verdict in (Verdict.CERTIFIED, Verdict.UNDER_DECLARED)

    def to_json(self) -> dict[str, Any]:
        """JSON-like form with the verdict written out for people; readers compute it again."""
        record = asdict(self)
        for name in ("mu", "composed_mu", "epsilon", "release_epsilon", "sensitivity"):
            record[name] = finite(record[name])
        for bound in record["bounds"]:
            bound["value"] = finite(bound["value"])
        record["verdict"] = self.verdict.value
        return record
