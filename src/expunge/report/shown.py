"""What of an evidence record may be shown: the evidence folder holds this, the private folder beside it holds the whole record.

Anyone may hold the folder: somebody who knows the retained rows, somebody who knows the old ones, somebody with two guesses
of who left. So whatever depends on forgotten rows, on the model before, or on un-noised weights is left out, keyed with a salt
that stays at home, or reduced to pass and fail. What stays are functions of the release, of the retained rows and of sets that
nobody asked to be forgotten from, and values on forgotten rows where they are many enough not to speak of one.

How many records went (m) and stayed (n) is shown: certificates are computed for m and could not be checked without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from expunge.core.digest import digest_json, keyed_hash
from expunge.core.measurement import FOR_A_PERSON, PART, PRIVATE_BELOW, SHOWN_PICTURE, UNDECIDABLE
from expunge.metrics.catalogue import METRICS, ORIGINAL, SPECIFICITY
from expunge.report.measurement_names import with_keys
from expunge.report.outcome import ACCEPTED_SINCE, promises, shown_outcome
from expunge.report.vocabulary import is_attack
from expunge.training.facts import OWNERS, RECIPE, RESIDUAL, TRAINING_IDS

Record = Mapping[str, Any]

# Digests that a certificate is bound to and that guesses of rows could be tested against.
_KEYED = ("retained", "trail", "before")
# Facts that follow from the rows themselves and not from settings.
AFTER_RELEASE = ("ledger", "live_ledger", "files", "pdf", ACCEPTED_SINCE)
_PRIVATE_DATA = ("copies_that_stay",)  # whoever holds the retained rows could count for every guess of a forgotten one
_PRIVATE_FACTS = (TRAINING_IDS, OWNERS, RECIPE, RESIDUAL, "seconds")


def shown(record: Record, private_below: int = PRIVATE_BELOW) -> dict[str, Any]:
    """The part of a whole record that may be shown.

    Args:
        record: as ``report.record.build`` makes it, with its ``salt``.
        private_below: see :data:`PRIVATE_BELOW`.
    """
    salt = bytes.fromhex(record["salt"])
    record = with_keys(record)
    rest = {name: value for name, value in record.items() if name != "salt"}
    data = {name: value for name, value in record["data"].items() if name not in _PRIVATE_DATA}
    for name in ("digest", "retained_digest"):
        data[name] = _keyed(salt, data[name])
    forgotten_open = are_many(data, private_below)
    return {
        **rest,
        "data": data,
        "private_below": private_below,
        "runs": [_run(run, salt, data, forgotten_open) for run in record["runs"]],
    }


def are_many(data: Record, private_below: int) -> bool:
    """Whether those who go are so many that values on them do not speak of one: of a concept, the examples that show it."""
    return data.get("absent", data["forgotten"]) >= private_below


def _keyed(salt: bytes, digest: str | None) -> str | None:
    return None if digest is None or digest == "none" else keyed_hash(salt, digest)


def _run(run: Record, salt: bytes, data: Record, forgotten_open: bool) -> dict[str, Any]:
    evidence = run["evidence"]
    original_open = shows_original(run, forgotten_open)
    items = [_measurement(item, data, forgotten_open, original_open) for item in evidence["measurements"]]
    cost = {name: value for name, value in evidence["cost"].items() if name != "change_per_module"}
    return {
        **{name: value for name, value in run.items() if name not in FOR_A_PERSON},
        **({"outcome": shown_outcome(run, original_open)} if "outcome" in run else {}),
        "certificate": _certificate(run["certificate"], salt),
        "other_views": [
            {**view, "certificate": _certificate(view["certificate"], salt)} for view in run["other_views"]
        ],
        "facts": {name: fact for name, fact in run["facts"].items() if name not in _PRIVATE_FACTS},
        "change": {},
        "details": {},
        # a plug-in's own words may say anything
        **({} if run["own"] else {"purged": [], "remains": ["what a plug-in says of it: in the private review"]}),
        "cost": {**run["cost"], "seconds": _short(run["cost"].get("seconds"))},
        "evidence": {
            **evidence,
            "verdict": _verdict(evidence, items),
            "measurements": items,
            "checks": [{**check, "detail": {}} for check in evidence["checks"]],
            "cost": {**cost, "seconds": {name: _short(value) for name, value in (cost.get("seconds") or {}).items()}},
        },
    }


def _certificate(certificate: Record | None, salt: bytes) -> dict[str, Any] | None:
    if certificate is None:
        return None
    binds = {
        name: _keyed(salt, digest) or "none" if name in _KEYED else digest
        for name, digest in certificate["binds"].items()
    }
    return {**certificate, "binds": binds}


def name_of(record: Record) -> str:
    """Digest by which a ledger names a record that may be shown: of all that is known before the release is on the ledger."""
    return digest_json({name: value for name, value in record.items() if name not in AFTER_RELEASE})


def shows_original(run: Record, forgotten_open: bool) -> bool:
    """Whether values of the original model may be shown: where nothing was promised that they would break, and where those
    who go are many enough not to be told from them.
    """
    return forgotten_open and not promises(run)


def _measurement(item: Record, data: Record, forgotten_open: bool, original_open: bool) -> dict[str, Any]:
    """The values where they may be shown; what the original model scored by a rule of its own."""
    if is_open(item, data["probes"], forgotten_open, original_open):
        return dict(item) if original_open else {**item, "original": None}
    # whether each agrees stays at home too: who knows the retained rows could compute it for every candidate and compare
    hidden = dict.fromkeys(("value", "interval", "ideal", "null", "original", "agrees"))
    return {**item, **hidden, "withheld": True}


def _verdict(evidence: Record, items: list[dict[str, Any]]) -> str:
    """What the values that are shown, and the checks, come to."""
    if evidence["verdict"] in (UNDECIDABLE, "refuted"):
        return evidence["verdict"]
    apart = any(item["agrees"] is False for item in items)
    return "differs from retraining" if apart else "not told from retraining"


def is_open(item: Record, probes: Record, forgotten_open: bool, original_open: bool = True) -> bool:
    """Whether values of a measurement may be shown.

    Of the one picture that a concept was forgotten through: never. What compares with the original model: where its values
    may be shown. Specificity is a mean over sets to be measured on, without what mentions the concept. A distance of weights
    never: it is a function of un-noised ones. On sets to be measured on: always. On forgotten rows, where an attack tells them
    from others, and on retained rows: where those forgotten are many. Whoever has the old data computes the mean over all
    rows, and with the mean over the retained ones knows what those who left add to it: of 300 people, one.
    """
    of, known = item["set"], METRICS.get(item["metric"])
    if of == SHOWN_PICTURE:  # a single forgotten example
        return False
    if known is not None and ORIGINAL in known.needs and not original_open:  # a function of the original model
        return False
    if of is None:  # several sets or weights: an attack is about forgotten rows, nothing else of these is ever shown
        return forgotten_open and (is_attack(item) or item["metric"] == SPECIFICITY)
    if of in probes and of.partition(PART)[0] not in ("wording", "retain", "forget"):
        return True
    return forgotten_open


# Relative: an interval no wider is that of equal values; it would support digits that single examples decide.
ROUNDING = 1e-9


def _short(value: float | None) -> float | None:
    """Three digits: the rest of a time says nothing."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.3g}")


def supported(item: Record) -> dict[str, Any]:
    """A measurement with as many digits as its interval supports: one decimal place finer than the interval's half-width.

    Exact values, those whose interval has no width beyond rounding, and those without one keep three significant digits, the
    ends of the interval too. A wider interval is rounded outwards.
    """
    low, high = item["interval"] or (None, None)
    half = 0.0 if low is None or high is None else (high - low) / 2
    if low is None or high is None or half <= ROUNDING * max(abs(low), abs(high)):
        short = {name: _short(item[name]) for name in ("value", "ideal", "null", "original")}
        return {**item, **short, "interval": item["interval"] and [_short(low), _short(high)]}
    places = min(12, 1 - math.floor(math.log10(half)))
    near = lambda value: None if value is None else round(value, places)  # noqa: E731
    scale = 10.0**places
    wide = [
        round(math.floor(low * scale) / scale, places),
        round(math.ceil(high * scale) / scale, places),
    ]
    return {**item, **{name: near(item[name]) for name in ("value", "ideal", "null", "original")}, "interval": wide}
