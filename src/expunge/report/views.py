"""What a page shows of a network's views: each of a few; of many the mean, the worst, and whose it is. The record holds all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.measurement import AT, Direction
from expunge.evidence.outcome import LEADING
from expunge.metrics.catalogue import METRICS
from expunge.report import numbers as say

Record = Mapping[str, Any]
SHOWN_ONE_BY_ONE = 8  # different models on a page; our choice: what a table of one screen holds


def in_short(run: Record) -> dict[str, Any]:
    """``run`` with what a page has room for: unchanged up to eight different models, or eight peers' rows.

    Of more, each measurement is reduced to its mean over views, or over the rows of peers, and the worst; the first certificate
    and the weakest are kept, and of checks those of kept views and those that failed.
    """
    evidence, others = run["evidence"], run.get("other_views", ())
    short = {**run, "evidence": {**evidence, "measurements": mean_and_worst(evidence["measurements"])}}
    if len(others) < SHOWN_ONE_BY_ONE:
        return short
    weakest = max(others, key=_weakness)
    kept = {None, run.get("view"), weakest["view"]}
    checks = [item for item in evidence["checks"] if item.get("view") in kept or item["passed"] is False]
    return {**short, "other_views": [weakest], "evidence": {**short["evidence"], "checks": checks}}


def mean_and_worst(items: Sequence[Record], most: int = SHOWN_ONE_BY_ONE) -> list[Record]:
    """Measurements of one metric on one set, or on its rows at each peer: mean and worst where there are over ``most``."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for item in items:
        groups.setdefault((item["metric"], _family(item), "peers" in item), []).append(item)
    return [short for (*_, done), group in groups.items() for short in (group if done else _reduced(group, most))]


def _family(item: Record) -> Any:
    """The set of a measurement; of rows at one peer, that of all peers together."""
    of = item["set"]
    return of if of is None or AT not in of else of.partition(AT)[0] + AT


def held_by(views: Sequence[str]) -> str:
    """Who holds a model, in words.

    >>> held_by(["a", "b"]), held_by([f"peer {i}" for i in range(100)])[-30:]
    ('a, b', ' 5, peer 6, peer 7 and 92 more')
    """
    more = len(views) - SHOWN_ONE_BY_ONE
    return ", ".join(views[:SHOWN_ONE_BY_ONE]) + (f" and {more:,} more" if more > 0 else "")


def held(run: Record) -> list[str]:
    """Who holds what a run released, in a sentence; none where it is one model of one holder."""
    releases = [run, *run.get("other_views", ())]
    holders = [view for release in releases for view in release.get("views", ())]
    if len(holders) < 2:
        return []
    if len(releases) == 1:
        return [f"{len(holders):,} peers hold the new model, the same bytes at each: {held_by(holders)}."]
    return [f"{len(holders):,} peers hold {len(releases):,} different new models: {held_by(holders)}."]


def at_peers(run: Record) -> list[str]:
    """How the model does on what each peer holds: the range and the worst peer, before, now and retrained."""
    items = [
        item for item in run["evidence"]["measurements"] if AT in (item["set"] or "") and item["value"] is not None
    ]
    leading = [metric for metric in LEADING if any(item["metric"] == metric for item in items)]
    items = [item for item in items if leading and item["metric"] == leading[0] and "peers" not in item]
    if len(items) < 2:
        return []
    worst, best = max(items, key=_badness), min(items, key=_badness)
    name = METRICS[leading[0]].label if leading[0] in METRICS else leading[0]
    beside = "".join(
        f", {words} {say.value(leading[0], worst[key])}"
        for key, words in (("original", "before"), ("ideal", "retrained"))
        if worst[key] is not None
    )
    of, _, peer = worst["set"].partition(AT)
    return [
        f"{name} on the {of} rows of single peers: worst at {peer}, {say.value(leading[0], worst['value'])}{beside}; best at "
        f"{best['set'].partition(AT)[2]}, {say.value(leading[0], best['value'])}."
    ]


def _weakness(view: Record) -> float:
    certificate = view["certificate"]
    if certificate is None or certificate["verdict"] == "void" or certificate["epsilon"] is None:
        return math.inf
    return certificate["epsilon"]


def _reduced(items: list[Record], most: int) -> list[Record]:
    """Measurements of one metric on one set: as they are for few views or peers, otherwise mean and worst."""
    if len(items) <= most:
        return items
    at_peers = AT in (items[0]["set"] or "")
    agreed = [item.get("agrees") for item in items]
    together = False if False in agreed else None if None in agreed else True
    mean = {
        **items[0], **{name: _mean([item[name] for item in items]) for name in ("value", "ideal", "original", "null")},
        "interval": None, "agrees": together, "view": f"mean of {len(items):,} peers", "peers": len(items),
    }  # fmt: skip
    mean |= {"set": mean["set"].partition(AT)[0]} if at_peers else {}
    if any(item["value"] is None for item in items):  # private numbers: whose is the worst would follow from them
        return [mean]
    worst = max(items, key=_badness)
    whose = f"worst of {len(items):,} peers" if at_peers else f"worst, {worst['view']}"
    return [mean, {**worst, "view": whose, "peers": len(items)}]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _badness(item: Record) -> float:
    if AT in (item["set"] or ""):  # how good the model is for a peer, not how close to retraining
        return item["value"] if item["metric"] == "loss" else -item["value"]
    direction = Direction(item["direction"])
    if direction is Direction.MATCH and item["ideal"] is not None:
        return abs(item["value"] - item["ideal"])
    return -item["value"] if direction is Direction.HIGHER else item["value"]
