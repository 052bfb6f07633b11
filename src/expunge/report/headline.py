"""Which of many measurements a person reads first: what happened to the forgotten examples, then what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.evidence.outcome import LEADING
from expunge.report.vocabulary import is_attack

Item = Mapping[str, Any]
_FIRST = ("forget", "retain", "test")


def headline(items: Sequence[Item]) -> list[Item]:
    """Of the first view: one measurement of each set, by the metric that an outcome is judged by, and the strongest attack.

    Forgotten examples come first, then retained ones, test examples and further sets. Where a set was measured by none of
    the metrics that outcomes are judged by, its first one stands for it.
    """
    items = [item for item in items if item["view"] == items[0]["view"]]
    sets = dict.fromkeys(item["set"] for item in items if item["set"] is not None)
    order = [name for name in _FIRST if name in sets] + [name for name in sets if name not in _FIRST]
    of_sets = [min((item for item in items if item["set"] == name), key=_rank) for name in order]
    return [*of_sets, *[item for item in items if is_attack(item)][-1:]]


def _rank(item: Item) -> int:
    return LEADING.index(item["metric"]) if item["metric"] in LEADING else len(LEADING)
