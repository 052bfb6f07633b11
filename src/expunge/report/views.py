"""What a page shows of a network's views: each of a few; of many the mean, the worst, and whose it is. The record holds all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.measurement import Direction

Record = Mapping[str, Any]
SHOWN_ONE_BY_ONE = 8  # different models on a page; our choice: what a table of one screen holds


def in_short(run: Record) -> dict[str, Any]:
    """``run`` with what a page has room for: unchanged up to eight different models.

    Of more, each measurement is reduced to its mean over views and its worst view; the first certificate and the weakest
    are kept, and of checks those of kept views and those that failed.
    """
    others = run.get("other_views", ())
    if len(others) < SHOWN_ONE_BY_ONE:
        return dict(run)
    weakest = max(others, key=_weakness)
    evidence = run["evidence"]
    kept = {None, run.get("view"), weakest["view"]}
    checks = [item for item in evidence["checks"] if item.get("view") in kept or item["passed"] is False]
    groups: dict[tuple[Any, Any], list[Record]] = {}
    for item in evidence["measurements"]:
        groups.setdefault((item["metric"], item["set"]), []).append(item)
    measurements = [short for items in groups.values() for short in _reduced(items)]
    return {**run, "other_views": [weakest], "evidence": {**evidence, "measurements": measurements, "checks": checks}}


def held_by(views: Sequence[str]) -> str:
    """Who holds a model, in words.

    >>> held_by(["a", "b"]), held_by([f"peer {i}" for i in range(100)])[-30:]
    ('a, b', ' 5, peer 6, peer 7 and 92 more')
    """
    more = len(views) - SHOWN_ONE_BY_ONE
    return ", ".join(views[:SHOWN_ONE_BY_ONE]) + (f" and {more:,} more" if more > 0 else "")


def _weakness(view: Record) -> float:
    certificate = view["certificate"]
    if certificate is None or certificate["verdict"] == "void" or certificate["epsilon"] is None:
        return math.inf
    return certificate["epsilon"]


def _reduced(items: list[Record]) -> list[Record]:
    """Measurements of one metric on one set: as they are for few views, otherwise mean and worst."""
    if len(items) <= SHOWN_ONE_BY_ONE:
        return items
    agrees = [item["agrees"] for item in items]
    together = False if False in agrees else None if None in agrees else True
    mean = {
        **items[0], **{name: _mean([item[name] for item in items]) for name in ("value", "ideal", "original", "null")},
        "interval": None, "view": f"mean of {len(items):,} peers", "agrees": together,
    }  # fmt: skip
    if any(item["value"] is None for item in items):  # private numbers: whose is the worst would follow from them
        return [mean]
    worst = max(items, key=_badness)
    return [mean, {**worst, "view": f"worst, {worst['view']}"}]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _badness(item: Record) -> float:
    direction = Direction(item["direction"])
    if direction is Direction.MATCH and item["ideal"] is not None:
        return abs(item["value"] - item["ideal"])
    return -item["value"] if direction is Direction.HIGHER else item["value"]
