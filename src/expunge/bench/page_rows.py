"""The rows of a table in the order of reading, and how each number of one is written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.measurement import Direction
from expunge.jobs.schema import DEFAULT
from expunge.metrics.catalogue import column
from expunge.metrics.metric_spec import NULL, RETRAINED, MetricSpec
from expunge.metrics.outcomes import Word
from expunge.modalities.layout import Layout
from expunge.modalities.network_benchmark import benchmark_named
from expunge.report import numbers as say

Record = Mapping[str, Any]

UNKNOWN = "not in the catalogue"

SAID: Mapping[str, tuple[str, str, str]] = {  # in the order of groups: a sign; what one row does, and several
    Word.FORGETS: ("✓", "forgets", "forget"),
    Word.UNDER_FORGETS: ("◐", "forgets too little", "forget too little"),
    Word.OVER_FORGETS: ("◑", "forgets too much", "forget too much"),
    Word.UNDECIDABLE: ("?", "cannot be decided", "cannot be decided"),
    Word.UTILITY_COLLAPSE: ("✗", "loses its utility", "lose their utility"),
    "refused": ("–", "was refused", "were refused"),
    "failed": ("!", "failed", "failed"),
    "not run": ("–", "was not run", "were not run"),
}
_EXACT = ("challenge", "tuning_trials", "optimizer_bytes")  # one number each: an interval of width 0 says nothing
_DIGITS = {"percent": 1, "percent of the way": 1, "points": 2, "nats": 2}


@dataclass(frozen=True)
class Line:
    """One row of the table as it is shown.

    Attributes:
        number: its place, from 1; what points of a figure are called.
        word: the verdict without what follows it in brackets.
        group: place of its group in :func:`groups`.
        row: of the record.
    """

    number: int
    word: str
    group: int
    row: Record

    @property
    def name(self) -> str:
        """Row name."""
        return self.row["method"]

    def metric(self, name: str) -> Record | None:
        """A number of this row, or ``None`` where it has none."""
        return known(self.row, name)


def finite(value: Any) -> Any:
    """``value`` with ``None`` in the place of NaN and infinities, which JSON does not know.

    >>> finite({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def known(row: Record | None, name: str) -> Record | None:
    """A number of a row of the record; ``None`` where there is none."""
    item = ((row or {}).get("metrics") or {}).get(name)
    return item if item and item["mean"] is not None else None


def word_of(row: Record) -> str:
    """The verdict in one word: "failed (1 of 3)" is "failed"."""
    return str(row["verdict"]).partition(" (")[0]


def layout(record: Record) -> Layout:
    """How tables of the record's kind of model are shown; records of earlier versions name none where it is a classifier."""
    return benchmark_named(record.get("task", DEFAULT), bool(record.get("network"))).layout


def lead(record: Record) -> tuple[str, ...]:
    """The columns of the first table."""
    rows = [*record["rows"], record.get("reference") or {}, record.get("source") or {}]
    return tuple(name for name in layout(record).lead if any(name in (row.get("metrics") or {}) for row in rows))


def groups(record: Record) -> list[str]:
    """What rows are grouped by: their outcomes; or their method, so that a request's wordings stand side by side."""
    if layout(record).sorted_by is None:
        return list(dict.fromkeys(map(_base, record["rows"])))
    return [say.initial(str(word)) for word in SAID]


def _base(row: Record) -> str:
    return re.split(r"[+@]", row["method"])[0]


def ordered(record: Record) -> list[Line]:
    """Rows that forget first, each group by the layout's metric; what lost its utility, was refused or failed comes last.

    Where the layout has no such metric, rows keep the order of their recipe within a method.
    """
    by, titles, words = layout(record).sorted_by, groups(record), [*SAID]

    def place(row: Record) -> tuple[int, float, str]:
        if by is None:
            return titles.index(_base(row)), 0.0, ""
        word, item = word_of(row), known(row, by)
        group = words.index(word if word in SAID else Word.UNDECIDABLE)
        return group, math.inf if item is None else item["mean"], row["method"]

    rows = sorted(record["rows"], key=place)
    return [Line(i, word_of(row), place(row)[0], row) for i, row in enumerate(rows, 1)]


def shown_as(name: str) -> MetricSpec:
    """The record of a column; a blank one for a name that the catalogue does not know."""
    return column(name) or MetricSpec(name, name, UNKNOWN, "", Direction.MATCH, UNKNOWN, "", ())


def heading(name: str) -> str:
    """What a column is called."""
    return shown_as(name).label


def written(name: str, value: float | None) -> str:
    """A number of metric ``name`` in its unit.

    >>> written("FA", 95.04), written("gap", 1.236), written("tow", 0.98765), written("seconds", 12.345)
    ('95.0', '1.24', '0.988', '12.3')
    """
    if value is None:
        return say.NOTHING
    unit = shown_as(name).unit
    if unit in _DIGITS:
        return f"{value:.{_DIGITS[unit]}f}"
    if unit == "bytes":
        return say.size(value)
    if unit in ("1", "share") and name not in ("distance", "forget_quality"):  # of a p-value the exponent counts
        return f"{value:.3f}"
    if unit == "trials" or abs(value) >= 1000 or 0 < abs(value) < 1e-3:
        return say.number(value)
    if 0 < abs(value) < 0.1:
        return f"{value:.3f}"
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def bounds(name: str, item: Record) -> tuple[float, float] | None:
    """The interval, cut where the number cannot be; ``None`` where there is none."""
    if item["low"] is None or item["high"] is None or (name in _EXACT and item["low"] == item["high"]):
        return None
    low, high = limits(name)
    return max(low, min(item["low"], high)), min(high, max(item["high"], low))


def limits(name: str) -> tuple[float, float]:
    """Between which values a number of this name can be."""
    unit = shown_as(name).unit
    if unit == "percent":
        return 0.0, 100.0
    if unit == "percent of the way":  # which may be missed on both sides
        return -math.inf, math.inf
    if unit in ("1", "share") and name not in ("distance", "challenge"):
        return 0.0, 1.0
    return (0.0 if unit else -math.inf), math.inf


def interval(name: str, item: Record) -> str:
    """The interval in words, empty where there is none."""
    pair = bounds(name, item)
    return f"{written(name, pair[0])} to {written(name, pair[1])}" if pair else ""


def target(name: str, item: Record) -> str:
    """What the number should be, and how far from it chance alone leads; breaks only where a pause is."""
    return _target(name, item).replace(" ", "\N{NO-BREAK SPACE}").replace("|", " ")


def _target(name: str, item: Record) -> str:
    metric = shown_as(name)
    ideal, null, of = item["ideal"], item["null"], metric.ideal
    if of == UNKNOWN:
        return UNKNOWN
    if of is None:
        return "more is better" if str(metric.direction) == "higher" else "less is better"
    if of == NULL:
        return "what chance gives is unknown" if null is None else f"by chance {written(name, null)}"
    if of == RETRAINED:
        if ideal is None:
            return "no retrained model"
        return f"retrained|{written(name, ideal)}" + ("" if null is None else f" ± {written(name, null)}")
    shown = f"ideal {say.number(ideal)}"
    return f"{shown},|by chance {written(name, null)}" if null else shown


def weakness(line: Line, name: str) -> str:
    """Why a number of this row is none for a headline; empty where nothing speaks against it."""
    reason = (line.row.get("not_for_headlines") or {}).get(name)
    needed, item = shown_as(name).headline, line.metric(name)
    there = (item or {}).get("models", line.row["seeds"])
    if reason or there >= needed.models:
        return reason or ""
    return f"too few for a headline: {needed.models} needed ({needed.source}), {there} here"
