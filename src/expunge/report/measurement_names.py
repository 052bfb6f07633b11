"""What evidence records call measurements: written beside metric, set and view, and the only place that reads such a name.

Records of format 1, and of format 2 before these fields, have the name alone: ``accuracy/forget``, ``membership/lira@peer 3``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.measurement import Key
from expunge.metrics.catalogue import METRICS

Record = Mapping[str, Any]

_METRICS = {
    known.recorded: known.name for known in METRICS.values() if known.recorded
}  # recorded name → the metric's own


def recorded_name(key: Key) -> str:
    """The name that records give to a measurement of this metric, set and view.

    >>> recorded_name(("accuracy", "forget", None)), recorded_name(("membership_lira", None, "peer 3"))
    ('accuracy/forget', 'membership/lira@peer 3')
    """
    metric, of, view = key
    written = (METRICS[metric].recorded if metric in METRICS else "") or metric
    place = written if of is None else f"{written}/{of}"
    return place if view is None else f"{place}@{view}"


def key_of(name: str) -> Key:
    """Metric, set and view of a measurement that a record knows by its name alone.

    >>> key_of("exact_match/test"), key_of("membership/lira@peer 3")
    (('exact_memorization', 'test', None), ('membership_lira', None, 'peer 3'))
    """
    place, _, view = name.partition("@")
    metric, _, of = place.partition("/")
    if place in _METRICS:
        metric, of = _METRICS[place], ""
    elif metric == "membership" and of:  # an attack that this version does not know is no set
        metric, of = f"membership_{of}", ""
    return _METRICS.get(metric, metric), of or None, view or None


def with_keys(record: Record) -> dict[str, Any]:
    """``record`` with metric, set and view on each measurement that has its name alone."""
    return {**record, "runs": [{**run, "evidence": _evidence(run["evidence"])} for run in record["runs"]]}


def _evidence(evidence: Record) -> dict[str, Any]:
    return {**evidence, "measurements": [keyed(item) for item in evidence["measurements"]]}


def keyed(item: Record) -> dict[str, Any]:
    """A measurement of a record, with metric, set and view."""
    if "metric" in item:
        return dict(item)
    return {"name": item["name"], **dict(zip(("metric", "set", "view"), key_of(item["name"]), strict=True)), **item}
