"""Which of many measurements a person reads first: what happened to the forgotten examples, then what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.measurement import FORBIDDEN
from expunge.evidence.outcome import LEADING
from expunge.report.views import mean_and_worst
from expunge.report.vocabulary import is_attack

Item = Mapping[str, Any]
_FIRST = ("forget", "retain", "test")


def headline(items: Sequence[Item]) -> list[Item]:
    """One measurement of each set, by the metric that an outcome is judged by, and the strongest attack; of several peers'
    models, and of the rows at several peers, the mean and the worst.

    Forgotten examples come first, then retained ones, test examples and further sets. Where a set was measured by none of
    the metrics that outcomes are judged by, its first one stands for it.
    """
    short = mean_and_worst(items, most=1)
    sets = dict.fromkeys((item["set"], item["view"]) for item in short if item["set"] is not None)
    order = sorted(sets, key=lambda place: _FIRST.index(place[0]) if place[0] in _FIRST else len(_FIRST))
    of_sets = [min((item for item in short if (item["set"], item["view"]) == place), key=_rank) for place in order]
    attacks = [item for item in short if is_attack(item)]
    return [*of_sets, *(item for item in attacks if item["metric"] == attacks[-1]["metric"])]


def _rank(item: Item) -> int:
    if item["metric"] == FORBIDDEN:  # of own probes, the number that they were asked for
        return -1
    return LEADING.index(item["metric"]) if item["metric"] in LEADING else len(LEADING)
