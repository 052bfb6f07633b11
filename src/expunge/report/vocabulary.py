"""What verdicts, origins, statuses and measurements are called in front of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Status, Verdict
from expunge.core.measurement import AT, OWN_PROBES, PART, UNDECIDABLE, Key
from expunge.core.trained import Origin
from expunge.metrics.catalogue import METRICS
from expunge.report import numbers as say

VERDICTS: Mapping[str, tuple[str, str]] = {  # verdict → how it is called, and in one line what that means
    Verdict.CERTIFIED: ("Certified", "every assumption of the theorem was proved, or enforced by the code that ran"),
    Verdict.UNDER_DECLARED: ("Certified under declared constants", "holds if what somebody declared is true"),
    Verdict.AS_CLAIMED: ("As claimed by a publication", "rests on claims that nobody here proved again"),
    Verdict.HEURISTIC: ("Heuristic noise", "the size of the noise rests on sampled or hand-picked values: no promise"),
    Verdict.UNREPLAYED: ("Unreplayed plug-in", "a plug-in's own word: nothing here did its steps again"),
    Verdict.VOID: ("Void", "the theorem does not apply: nothing is proven"),
    UNCERTIFIED: ("No certificate", "the method promises nothing"),
    UNCHANGED: ("Unchanged", "a control: the model was released as it was, nothing was forgotten"),
}
MEASURED_VERDICTS: Mapping[str, str] = {
    UNDECIDABLE: "Undecidable: there is no retrained model to compare with",
    "refuted": "Refuted: a check failed",
    "differs from retraining": "Differs from retraining",
    "not told from retraining": "Not told from retraining",
}
UNRECORDED, NOBODY = "unknown", "nobody recorded it"  # status and origin of an assumption of which nothing is recorded
ORIGINS: Mapping[str, str] = {
    Origin.PROVED: "proved",
    Origin.ENFORCED: "enforced by the code",
    Origin.DECLARED: "declared by the user",
    Origin.CLAIMED: "claimed by a publication",
    Origin.ESTIMATED: "estimated or picked",
    Origin.UNREPLAYED: "a plug-in's word",
}
STATUSES: Mapping[str, tuple[str, str]] = {
    Status.HOLDS: ("✓", "holds"),
    Status.UNCHECKED: ("?", "unchecked"),
    Status.VIOLATED: ("✗", "violated"),
    UNRECORDED: ("?", "unknown"),
}
SYMBOLS: Mapping[str, str] = {  # beside the word, never instead of it
    Verdict.CERTIFIED: "✓",
    Verdict.UNDER_DECLARED: "◐",
    Verdict.AS_CLAIMED: "○",
    Verdict.HEURISTIC: "○",
    Verdict.UNREPLAYED: "○",
    Verdict.VOID: "✗",
    UNCERTIFIED: "–",
    UNCHANGED: "=",
}


def status_of(assumption: Mapping[str, Any]) -> str:
    """The status of an assumption of a certificate in front of people: ``unknown`` where nothing at all was recorded.

    To the verdict it is the same: what is unknown supports nothing, and the certificate calls it violated.
    """
    nothing = assumption["value"] is None and assumption["origin"] == Origin.DECLARED
    return UNRECORDED if nothing and assumption["status"] == Status.VIOLATED else assumption["status"]


def acts(setting: Any) -> bool:
    """Whether a method's setting did anything: not where it is absent, switched off, or empty."""
    return setting is not None and setting is not False and setting != {} and setting != []


# Facts whose names in the code say nothing to who reads a report.
FACTS: Mapping[str, str] = {
    "buffers_moved": "state that training changed besides the weights",
    "dtype": "type of the numbers", "batch_norm": "batch normalisation", "l2": "weight decay (L2)",
}  # fmt: skip


def label(item: Mapping[str, Any]) -> str:
    """What a measurement is called."""
    known = METRICS.get(item["metric"])
    text = known.label if known else say.initial(item["metric"].replace("_", " "))
    return _at(item, text if item["set"] is None else f"{text} on {called(item['set'])}")


def place(item: Mapping[str, Any]) -> str:
    """What tells a measurement from others of its kind: the rows it is on, or the attack."""
    return _at(item, METRICS[item["metric"]].attack if is_attack(item) else called(item["set"]))


def key(item: Mapping[str, Any]) -> Key:
    """Metric, set and view of a measurement of a record."""
    return item["metric"], item["set"], item["view"]


def is_attack(item: Mapping[str, Any]) -> bool:
    """Whether a measurement is of a membership attack."""
    return item["metric"] in METRICS and bool(METRICS[item["metric"]].attack)


def called(of: str) -> str:
    """What the set ``of`` is called."""
    of, at, peer = of.partition(AT)
    of, part, number = of.partition(PART)
    rows = _SETS.get(of) or f"{of.replace('_', ' ')} rows"
    return f"{rows}{part}{number}{at}{peer}"


def _at(item: Mapping[str, Any], text: str) -> str:
    return text if item["view"] is None else f"{text} ({item['view']})"


_SETS = {
    "retain": "retained rows", "forget": "forgotten rows", "touched": "retained rows that change",
    "wording": "forgotten rows as the request words them", OWN_PROBES: "own probes",
}  # fmt: skip
