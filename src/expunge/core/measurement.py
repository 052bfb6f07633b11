"""A number that was measured, and what it should be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Direction(StrEnum):
    """Which way is better. ``MATCH`` means as close as possible to the ideal, from either side."""

    HIGHER = "higher"
    LOWER = "lower"
    MATCH = "match"


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    Attributes:
        name: for example ``accuracy/forget`` or ``membership/loss``.
        value: of the released model.
        interval: a 95 % interval (or ``None`` where the value is exact).
        n: how many rows or trials it rests on.
        direction: which way is better.
        ideal: the value of the model retrained without *all* ids removed so far; ``None`` where it cannot be had.
        null: how far two retrainings differ by chance (half-width around the ideal); ``None`` where unknown.
        original: the value before unlearning.
        reference: what ``ideal`` is from.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    direction: Direction = Direction.MATCH
    ideal: float | None = None
    null: float | None = None
    original: float | None = None
    reference: str | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether the value lies within its interval and chance of the ideal; ``None`` where undecidable."""
        if self.ideal is None:
            return None
        low, high = self.interval or (self.value, self.value)
        slack = self.null or 0.0
        return low - slack <= self.ideal <= high + slack


@dataclass(frozen=True)
class Check:
    """A test that could have refuted something: what it tried, what came out."""

    name: str
    passed: bool | None
    statement: str
    detail: Mapping[str, Any] = field(default_factory=dict)


UNDECIDABLE = "undecidable"


@dataclass(frozen=True)
class Evidence:
    """All that was measured about one outcome. Private details (per-record scores) are kept apart.

    Attributes:
        outcome: what was measured.
        measurements: numbers beside retraining.
        checks: refutation attempts.
        cost: seconds, gradient evaluations, memory of unlearning and of retraining.
        private: per-record scores and realised epsilon: goes to the private folder only.
    """

    outcome: Any
    measurements: tuple[Measurement, ...]
    checks: tuple[Check, ...]
    cost: Mapping[str, Any]
    reference: str | None
    private: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Measurement:
        for item in self.measurements:
            if item.name == name:
                return item
        raise KeyError(f"No measurement {name!r}; there are {', '.join(m.name for m in self.measurements)}.")

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
            "measurements": [asdict(item) | {"agrees": item.agrees} for item in self.measurements],
            "checks": [asdict(item) for item in self.checks],
            "cost": dict(self.cost),
        }
