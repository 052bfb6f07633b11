"""A certificate made again from what a record says it was made from: the one way in which a reader checks it.

``certify`` is run once more on the recorded facts, budget and circumstances, the checks of the run are applied as they were
then, and the two certificates are compared, texts, numbers, assumptions and all. Nothing in a written certificate is believed
because it is written there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from expunge.core.certificate import Assumption, Certificate, Claim, Status, verdict_of
from expunge.core.digest import finite
from expunge.core.errors import TamperedError
from expunge.core.measurement import Check
from expunge.core.trained import Budget, Fact, Facts, Origin, Spent
from expunge.privacy.certify import RUN_FACTS, Circumstances, certify
from expunge.privacy.composition import EarlierReleases
from expunge.privacy.theorems import DROPPED_RULES, OWN_NOISE, theorem

Record = Mapping[str, Any]
_NO_PARAMETERS = ("theorem", "releases_before", "mu_before", "together")  # what certify adds to those of the theorem
_WORDS = ("theorem", "definition", "procedure", "unit", "adjacency", "covers", "excludes")
_MOST_TOGETHER = 100_000  # releases of one run; more is no network that anybody ran
_ORDER = list(Origin)


def settled(certificate: Certificate, checks: Sequence[Check], view: str | None) -> Certificate:
    """``certificate`` as it stands after the checks of its run.

    What refutes one release refutes all: they come from one run. What does not refute another one says nothing about this.
    """
    own = [check for check in checks if check.view in (None, view)]
    failed = [check for check in checks if check.passed is False]
    if not (own or failed):
        return certificate
    statement = "no check refuted it: " + ", ".join(check.name for check in own)
    if failed:
        statement = "refuted by " + ", ".join(
            check.name if check in own else f"{check.name} of {check.view}" for check in failed
        )
    item = Assumption("not_refuted", statement, Origin.ENFORCED, Status.VIOLATED if failed else Status.HOLDS)
    made = {check.name for check in own if check.passed}
    kept = tuple(
        replace(known, origin=Origin.ENFORCED, status=Status.HOLDS)
        if known.name == "own_implementation" and {"replay", "replayed steps"} <= made
        else known  # a plug-in whose steps our own code did again, and whose release is that plus the stated noise
        for known in certificate.assumptions
    )
    return replace(certificate, assumptions=(*kept, item))


def made_again(written: Record, facts: Facts, budget: Budget | None, checks: Sequence[Check], view: str) -> Certificate:
    """The certificate that the record ``written`` should be.

    Args:
        facts, budget: as they are recorded with the run.
        checks: of the run. view: whose release it is about.

    Raises:
        InputError, TamperedError: if nothing can be made from it.
    """
    parameters = {name: value for name, value in written["parameters"].items() if name not in _NO_PARAMETERS}
    given = written.get("given") or _guessed(written, facts)
    if not 1 <= given["together"] <= _MOST_TOGETHER:
        raise TamperedError(f"{given['together']} releases at once are none that anybody made")
    binds = written["binds"]
    claim = Claim(
        written["parameters"]["theorem"], parameters, _facts(given["claimed"]),
        binds["retained"] if given["read_retained"] else "other rows",
    )  # fmt: skip
    around = Circumstances(
        budget=budget if given["within"] == "budget" else None,
        earlier=_earlier(given["earlier"]), removed=given["removed"], retained=binds["retained"],
        changed=given["changed"] is True, binds=binds, seen=_facts(given["seen"]),
        published_first=given["published_first"] is True, ledger=given["ledger"] is True,
        own=given["own"] is True, published=budget if given["within"] else None, together=given["together"],
    )  # fmt: skip
    return settled(certify(claim, facts, around), checks, view)


def without_lists(written: Record, removed: int) -> Record:
    """A certificate that lists every release before it, as the first ones did, with what these come to in place of the lists.

    Args:
        removed: records that were gone before its request. A certificate of today comes back as it is.

    Raises:
        InputError: if a listed mu is none.
    """
    parameters, given = written["parameters"], written.get("given") or {}
    if "spent" not in parameters or "releases_before" in parameters or "earlier" in given:
        return written
    of = lambda items: [Spent("", s["removed"], _number(s["mu"]), s["theorem"]) for s in items]  # noqa: E731
    composed = EarlierReleases.of(of([{"removed": 0, "mu": mu, "theorem": ""} for mu in parameters["spent"]]), 0)
    told = {"releases_before": composed.releases, "mu_before": finite(composed.mu)}
    rest = {name: value for name, value in parameters.items() if name != "spent"}
    if "spent" in given:
        known = EarlierReleases.of(of(given["spent"]), removed)
        known = {"earlier": {**asdict(known), "mu": finite(known.mu), "theorems": [*known.theorems]}}
        given = {**{name: value for name, value in given.items() if name != "spent"}, **known}
    return {**written, "parameters": rest | told, **({"given": given} if given else {})}


def differences(written: Record, again: Record, *, unknown: Collection[str] | None = None) -> list[str]:
    """What a written certificate says otherwise than the one that was made again, in words.

    Args:
        unknown: of a certificate that an earlier version wrote, the rules that it may not have known. Words may have differed
            then, and are not compared.
    """
    written, again = dict(written), dict(again)
    if unknown is not None:
        for each in (written, again):
            each |= dict.fromkeys((*_WORDS, "given"))
            each["bounds"] = [{**bound, "source": "", "reason": ""} for bound in each["bounds"]]
            each["assumptions"] = [{**item, "statement": ""} for item in each["assumptions"]]
            each["parameters"] = {name: value for name, value in each["parameters"].items() if name != "together"}
        then, now = ({item["name"] for item in each["assumptions"]} for each in (written, again))
        written["assumptions"] = [
            a for a in written["assumptions"] if a["name"] in now or a["name"] not in DROPPED_RULES
        ]
        again["assumptions"] = [a for a in again["assumptions"] if a["name"] in then or a["name"] not in unknown]
        again["verdict"] = verdict_of(tuple(_assumption(item) for item in again["assumptions"])).value
    for each in (written, again):
        each["order"] = [item["name"] for item in each["assumptions"]]
        each["assumptions"] = {item["name"]: item for item in each["assumptions"]}
        each["bounds"] = {item["name"]: item for item in each["bounds"]}
    return [*_apart("", written, again)]


def _apart(place: str, written: Any, again: Any) -> Any:
    """Places at which two JSON values differ; numbers may differ by rounding."""
    if isinstance(written, Mapping) and isinstance(again, Mapping):
        for name in [*again, *(name for name in written if name not in again)]:
            where = f"{place} {name}".strip()
            if name not in written:
                yield f"{where} is missing"
            elif name not in again:
                yield f"{where} is written, and nothing says so"
            else:
                yield from _apart(where, written[name], again[name])
    elif isinstance(written, list) and isinstance(again, list) and len(written) == len(again):
        for number, (one, other) in enumerate(zip(written, again, strict=True), 1):
            yield from _apart(f"{place} ({number})", one, other)
    elif not _same(written, again):
        yield f"{place} is written as {_short(written)}, made again it is {_short(again)}"


def _same(written: Any, again: Any) -> bool:
    number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)  # noqa: E731
    if number(written) and number(again):
        return math.isclose(written, again, rel_tol=1e-9, abs_tol=1e-15)
    return type(written) is type(again) and written == again


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"


def _assumption(record: Record) -> Assumption:
    return Assumption(record["name"], "", Origin(record["origin"]), Status(record["status"]), record["value"])


def _facts(record: Record) -> dict[str, Fact]:
    return {name: Fact(fact["value"], Origin(fact["origin"]), "") for name, fact in record.items()}


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _earlier(record: Record) -> EarlierReleases:
    earlier = EarlierReleases(**{**record, "mu": _number(record["mu"]), "theorems": tuple(record["theorems"])})
    counts = (earlier.releases, earlier.removed, earlier.since)
    if any(type(count) is not int or count < 0 for count in counts):
        raise TamperedError(f"{counts} are no counts of releases and records")
    return earlier


def _guessed(written: Record, facts: Facts) -> dict[str, Any]:
    """What a certificate of an earlier version must have been made from: it did not say so, but its assumptions do."""
    parameters = written["parameters"]
    known = {a["name"]: Fact(a["value"], Origin(a["origin"])) for a in written["assumptions"]}
    chosen = theorem(parameters["theorem"])
    ours = {name: fact for name, fact in known.items() if name in chosen.rules}
    says = lambda name, value: name in known and known[name].value == value  # noqa: E731
    enforced = lambda name: name in known and known[name].origin is Origin.ENFORCED  # noqa: E731
    weaker = {
        name: fact for name, fact in known.items()
        if name in facts and fact.value == facts[name].value and _ORDER.index(fact.origin) > _ORDER.index(facts[name].origin)
    }  # fmt: skip
    plain = lambda items: {name: {"value": f.value, "origin": f.origin.value} for name, f in items.items()}  # noqa: E731
    earlier = "" if chosen.after is None else chosen.after[0] if says("earlier_releases", True) else "another"
    return {
        "claimed": plain(weaker | {name: fact for name, fact in ours.items() if name in RUN_FACTS}),
        "seen": plain({name: fact for name, fact in ours.items() if name not in facts and name not in RUN_FACTS}),
        "earlier": {
            **asdict(EarlierReleases()), "releases": parameters["releases_before"], "mu": parameters["mu_before"],
            "theorems": [earlier] if parameters["releases_before"] else [],
        },
        "removed": parameters.get("forget", 0),
        "read_retained": not says("retained_rows", False),
        "changed": says("release_changed", True),
        "published_first": enforced("noise_fixed_before")
        or (enforced("selection") and "noise_fixed_before" not in known),
        "ledger": enforced("release_ledger"),
        "own": "own_implementation" not in known or known["own_implementation"].origin is not Origin.UNREPLAYED,
        "within": "published" if parameters["theorem"] in OWN_NOISE else "budget",
        "together": parameters.get("together", 1),
    }  # fmt: skip
