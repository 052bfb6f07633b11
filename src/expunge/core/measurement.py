"""A number that was measured, and what it should be compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

# Fewest forgotten examples whose common value may be shown. 20: ours; one example moves a mean over 20 by at most a twentieth
# of its range, which is below the width of its 95 % interval.
PRIVATE_BELOW = 20
AT = " at "  # in the name of a set: the rows of it that one peer holds, for example ``test at Basel``
PART = " of concept "  # in the name of a set: what it has of one of several concepts, numbered as the request has them
Key = tuple[str, str | None, str | None]  # metric, set, view


class Direction(StrEnum):
    """Which way is better. ``MATCH`` means as close as possible to the ideal, from either side."""

    HIGHER = "higher"
    LOWER = "lower"
    MATCH = "match"


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    Attributes:
        metric: what was measured, as ``metrics.catalogue`` names it, for example ``accuracy`` or ``membership_loss``.
        set: the set of examples it was measured on, for example ``forget``, or ``test at Basel`` (:data:`AT`); ``None`` for a
            number of weights or of several sets.
        view: whose release it was measured on, in a network of peers; ``None`` where there is one release.
        value: of the released model.
        interval: a 95 % interval (or ``None`` where the value is exact).
        n: how many rows or trials it rests on.
        direction: which way is better.
        ideal: the value of the model retrained without *all* ids removed so far; ``None`` where it cannot be had.
        null: how far two retrainings differ by chance (half-width around the ideal); ``None`` where unknown.
        original: the value before unlearning.
        reference: what ``ideal`` is from.
    """

    metric: str
    set: str | None
    view: str | None
    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    direction: Direction = Direction.MATCH
    ideal: float | None = None
    null: float | None = None
    original: float | None = None
    reference: str | None = None

    @property
    def name(self) -> str:
        """For people, for example ``accuracy/forget@peer 1``."""
        place = self.metric if self.set is None else f"{self.metric}/{self.set}"
        return place if self.view is None else f"{place}@{self.view}"

    @property
    def key(self) -> Key:
        """Metric, set and view: what tells it from every other number about one outcome."""
        return self.metric, self.set, self.view

    @property
    def agrees(self) -> bool | None:
        """Whether the value lies within its interval and chance of the ideal; ``None`` where undecidable."""
        if self.ideal is None:
            return None
        low, high = self.interval or (self.value, self.value)
        slack = self.null or 0.0
        return low - slack <= self.ideal <= high + slack


def find(measurements: Iterable[Measurement], wanted: str | tuple[Any, ...]) -> Measurement | None:
    """The measurement of this name, or of this metric, set and view (the last two may be left out); ``None``: there is none."""
    if isinstance(wanted, str):
        return next((item for item in measurements if item.name == wanted), None)
    key = (*wanted, None, None)[:3]
    return next((item for item in measurements if item.key == key), None)


@dataclass(frozen=True)
class Check:
    """A test that could have refuted something: what it tried, what came out.

    Attributes:
        name: which test it is.
        passed: whether the certificate survived it; ``None`` where the test could not decide.
        statement: what was compared and what came out, as a sentence.
        detail: the numbers behind the statement. They may depend on forgotten examples and stay in the private record.
        view: whose release it looked at, in a network of peers; ``None`` for a check of the whole run, or of the one release.
    """

    name: str
    passed: bool | None
    statement: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    view: str | None = None


UNDECIDABLE = "undecidable"
OWN_PROBES = "own_probes"  # the set of what the operator asks, each with an answer that the model is not to give
SHOWN_PICTURE = "shown"  # the set of questions about the one picture that a concept was forgotten through
FORBIDDEN = "forbidden_answers"  # how many of them get that answer
ANSWERS = "answers"  # what each model said to some questions, for a person to read
PICTURES = "pictures"  # what each model draws, for a person to look at
FOR_A_PERSON = (ANSWERS, PICTURES)  # private: they may repeat what was trained on, also what was to be forgotten


@dataclass(frozen=True)
class Evidence:
    """All that was measured about one outcome. Private details (per-record scores) are kept apart.

    Attributes:
        outcome: what was measured.
        measurements: numbers beside retraining.
        checks: refutation attempts.
        cost: seconds, gradient evaluations, memory of unlearning and of retraining.
        reference: what ideals come from: ``retrained``, or ``None`` where there is no retrained model.
        private: per-record scores and realised epsilon: goes to the private folder only.
        retrained: the model that the ideals are of, for whoever wants to keep it; in no record.
    """

    outcome: Any
    measurements: tuple[Measurement, ...]
    checks: tuple[Check, ...]
    cost: Mapping[str, Any]
    reference: str | None
    private: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retrained: Any = field(default=None, repr=False)

    def __getitem__(self, wanted: str | tuple[Any, ...]) -> Measurement:
        """By name, or by metric, set and view: ``evidence["accuracy", "forget"]``."""
        if (item := find(self.measurements, wanted)) is not None:
            return item
        raise KeyError(f"No measurement {wanted!r}; there are {', '.join(m.name for m in self.measurements)}.")

    @property
    def verdict(self) -> str:
        """What measuring says: ``undecidable`` without a reference, else whether anything tells it from retraining."""
        if self.reference is None:
            return UNDECIDABLE
        if any(check.passed is False for check in self.checks):
            return "refuted"
        apart = [item for item in self.measurements if item.agrees is False]
        return "differs from retraining" if apart else "not told from retraining"

    def to_json(self) -> dict[str, Any]:
        """JSON-like form of what may be shown."""
        return {
            "verdict": self.verdict,
            "reference": self.reference,
            "measurements": [
                {"name": item.name} | asdict(item) | {"agrees": item.agrees} for item in self.measurements
            ],
            "checks": [asdict(item) for item in self.checks],
            "cost": dict(self.cost),
        }
