"""One model's scores beside those of the original, the retrained model and its replicates: how everything is measured.

A kind of model says how a model is *read* (one pass over every set, private) and how readings are *scored*; comparing is the
same for all of them, in ``expunge run`` and ``expunge eval`` alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor

from expunge.core.measurement import FORBIDDEN, OWN_PROBES, Check, Measurement
from expunge.evidence.membership import MembershipAttack, Shadows, attacked, possible
from expunge.metrics.catalogue import measurement, metric
from expunge.metrics.intervals import Interval, wilson

T = TypeVar("T")
U = TypeVar("U")
RETRAINED = "retrained"


@dataclass(frozen=True)
class Score:
    """What one model scored: a metric, the set it was measured on (``None``: several), value and interval, and how many
    examples that rests on.
    """

    metric: str
    set: str | None
    value: float
    interval: tuple[float, float] | None
    n: int

    @classmethod
    def of(cls, metric: str, set: str | None, found: Interval, n: int) -> Score:
        """From an estimate."""
        return cls(metric, set, found.value, found.pair, n)

    @classmethod
    def forbidden(cls, given: np.ndarray) -> Score:
        """How many of the operator's own probes get the answer that they call forbidden, ``given`` (n,) bool; with Wilson's
        interval of their share, times their number.
        """
        count, n = int(given.sum()), len(given)
        low, high = wilson(count, n).pair or (0.0, 1.0)
        return cls(FORBIDDEN, OWN_PROBES, float(count), (n * low, n * high), n)

    @property
    def place(self) -> tuple[str, str | None]:
        """Metric and set."""
        return self.metric, self.set


@runtime_checkable
class Reads(Protocol):
    """How models of a kind are measured. Every ``modalities.Modality`` is one."""

    @property
    def attacks(self) -> Sequence[MembershipAttack]:
        """The membership attacks that there are on such models."""
        ...

    def read(self, task: Any, tensors: Mapping[str, Tensor], sets: Mapping[str, Any]) -> Any:
        """What the model with weights ``tensors`` says about each example of the named ``sets``, none of them empty.

        Each set is passed through the model once. What comes is private: it is about single examples.
        """
        ...

    def score(self, readings: Any, retrained: Any = None) -> list[Score]:
        """Every number that readings of one model give, set by set.

        Args:
            retrained: readings of the retrained model, for metrics that are made of both; ``None``: there is none.
        """
        ...


@runtime_checkable
class Speaks(Protocol):
    """A kind of model whose answers a person can read."""

    def said(self, task: Any, models: Models[Mapping[str, Tensor]], sets: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What each model answers to some questions of each set: JSON-like, with ``set``, ``image`` (a data URI or ``None``),
        ``question``, ``right``, ``before``, ``after`` and ``retrained``. Private.
        """
        ...


@runtime_checkable
class Draws(Protocol):
    """A kind of model that makes pictures, which a person can look at."""

    def pictures(self, readings: Models[Any]) -> list[dict[str, Any]]:
        """What each model draws, from what it was read as: JSON-like, with ``set``, ``asked`` (what for), and ``before``,
        ``after`` and ``retrained`` (data URIs of PNG files, or ``None`` where there is no such model). Private.
        """
        ...


@runtime_checkable
class Contrasts(Protocol):
    """A kind of model that has numbers which compare a model with the original."""

    def contrast(self, readings: Any, original: Any) -> list[Score]:
        """Every number of readings of one model beside those of the original, which is compared with itself too."""
        ...


@runtime_checkable
class Controlled(Protocol):
    """A kind of model that can be told from models which have forgotten nothing and answer badly."""

    def controls(self, readings: Any) -> list[Check]:
        """What such models would score, and whether the model with these readings does better; empty: not known."""
        ...


@runtime_checkable
class Relearns(Protocol):
    """A kind of model of which it can be measured how soon it learns again what it was to forget."""

    def relearned(
        self, task: Any, tensors: Mapping[str, Tensor], sets: Mapping[str, Any], steps: int, lr: float
    ) -> list[Score]:
        """Train the model with weights ``tensors`` for at most ``steps`` steps at the learning rate ``lr``; see what returns.

        Raises:
            InputError: for sets that do not allow it.
        """
        ...


@dataclass(frozen=True, eq=False)
class Models(Generic[T]):
    """The unlearned model and those that it stands beside; or what each was read as, or scored."""

    unlearned: T
    original: T | None = None
    retrained: T | None = None
    replicates: tuple[T, ...] = ()

    def each(self, make: Callable[[T], U]) -> Models[U]:
        """``make`` of every model."""
        original, retrained = (None if item is None else make(item) for item in (self.original, self.retrained))
        return Models(make(self.unlearned), original, retrained, tuple(make(item) for item in self.replicates))


def compared(kind: Reads, readings: Models[Any], view: str | None = None) -> list[Measurement]:
    """Every score of the unlearned model beside those of the others.

    Args:
        view: whose release it is, in a network of peers.

    Formal guarantee: none. An interval is about which examples were drawn, with the model held fixed.
    """

    def scored(read: Any, retrained: Any = None) -> list[Score]:
        found = kind.score(read, retrained)
        if isinstance(kind, Contrasts) and readings.original is not None:
            found = [*found, *kind.contrast(read, readings.original)]
        return found

    others = replace(readings, unlearned=None).each(lambda read: [] if read is None else scored(read))
    return side_by_side(replace(others, unlearned=scored(readings.unlearned, readings.retrained)), view)


def side_by_side(scores: Models[list[Score]], view: str | None = None) -> list[Measurement]:
    """Scores of the unlearned model as measurements, each beside the same of the other models."""

    def values(of: list[Score] | None) -> dict[tuple[str, str | None], float]:
        return {} if of is None else {score.place: score.value for score in of}

    ideal, original = values(scores.retrained), values(scores.original)
    replicates = [values(of) for of in scores.replicates]
    return [
        _beside(score, view, scores.retrained is not None, ideal.get(score.place), original.get(score.place),
                [each[score.place] for each in replicates if score.place in each])
        for score in scores.unlearned
    ]  # fmt: skip


def compared_attacks(
    kind: Reads, readings: Models[Any], sets: Mapping[str, Any], shadows: Shadows | None = None, view: str | None = None
) -> tuple[list[Measurement], dict[str, list[float]]]:
    """Every membership attack of the kind that ``sets`` allow, on every model; and the score of each forgotten example under
    the unlearned model by metric, which are private.

    Args:
        shadows: shadow models, for attacks that compare with them; ``None``: these are left out.
    """
    items, private = [], {}
    for attack in kind.attacks:
        if not possible(attack, sets) or (attack.shadows and shadows is None):
            continue
        results = readings.each(lambda read, attack=attack: attacked(attack, read, shadows))
        name, mine = f"membership_{attack.name}", results.unlearned
        areas = results.each(lambda result: result.auc.value)
        score = Score.of(name, None, mine.auc, sum(mine.n))
        items.append(
            _beside(score, view, areas.retrained is not None, areas.retrained, areas.original, list(areas.replicates))
        )
        private[name] = mine.forgotten.tolist()
    return items, private


def _beside(
    score: Score,
    view: str | None,
    retrained: bool,
    ideal: float | None,
    original: float | None,
    replicates: list[float],
) -> Measurement:
    """A score with what it should be compared with; its null is twice the spread of the replicates around the ideal."""
    known = metric(score.metric)
    if retrained and isinstance(
        known.ideal, int | float
    ):  # a constant, where retraining has its part in the score itself
        ideal = float(known.ideal)
    null = None
    if ideal is not None and replicates:
        null = 2 * float(np.sqrt(np.mean([(value - ideal) ** 2 for value in replicates])))
    reference = RETRAINED if retrained and (ideal is not None or "reference" in known.needs) else None
    return measurement(
        score.metric, score.value, score.interval, score.n, set=score.set, view=view, ideal=ideal, null=null,
        original=original, reference=reference,
    )  # fmt: skip
