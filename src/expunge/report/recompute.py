"""What follows from a record's own numbers, computed again; each function returns what does not agree, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Verdict, weakest
from expunge.core.digest import digest_json
from expunge.core.measurement import Check, Direction, Evidence, Measurement
from expunge.report.folder import models_of
from expunge.report.measurement_names import keyed, recorded_name
from expunge.report.record import FORMAT

Record = Mapping[str, Any]


def certificate_problems(record: Record, run: Record) -> list[str]:
    """Numbers, bindings and verdict of every certificate of a run, and the run's own verdict."""
    from expunge.privacy.certify import recheck
    from expunge.privacy.theorems import ADDED_SINCE_FORMAT_1

    problems, verdicts = [], []
    views = [(run["certificate"], run["model"]), *((v["certificate"], v["model"]) for v in run["other_views"])]
    for certificate, model in views:
        if certificate is None:
            continue
        old = record["format"] != FORMAT
        problems += recheck(_unbounded(certificate), without=ADDED_SINCE_FORMAT_1 if old else ())
        problems += _drawn(certificate) + _bound_to(record, certificate, model)
        verdicts.append(Verdict(certificate["verdict"]))
    whole = UNCERTIFIED if len(verdicts) < len(views) else weakest(verdicts).value
    whole = UNCHANGED if run["status"] == UNCHANGED else whole
    if run["verdict"] != whole:
        problems.append(f"the run's verdict says {run['verdict']}, its certificates amount to {whole}")
    return problems


def measurement_problems(evidence: Record) -> list[str]:
    """Whether each value agrees with its ideal, and what all of them come to."""
    items, problems = [], []
    for found in map(keyed, evidence["measurements"]):
        fields = {name: value for name, value in found.items() if name not in ("name", "agrees", "withheld")}
        fields["interval"] = tuple(found["interval"]) if found["interval"] else None
        item = Measurement(**{**fields, "direction": Direction(found["direction"])})
        if found.get("withheld"):  # only whether it agreed is written down: numbers that say the same stand in
            item = _said(item, found["agrees"])
        items.append(item)
        if found["name"] != recorded_name(item.key):
            problems.append(f"{found['name']} is {recorded_name(item.key)} by its metric, set and view")
        if item.value is not None and item.agrees != found["agrees"]:
            problems.append(f"{item.name} says agrees = {found['agrees']}, its numbers say {item.agrees}")
    checks = tuple(Check(**check) for check in evidence["checks"])
    again = Evidence(None, tuple(items), checks, evidence["cost"], evidence["reference"])
    if again.verdict != evidence["verdict"]:
        problems.append(f"the verdict says {evidence['verdict']!r}, the measurements amount to {again.verdict!r}")
    return problems


def _said(item: Measurement, agrees: bool | None) -> Measurement:
    """A measurement that agrees as ``agrees`` says."""
    ideal = {True: 0.0, False: 1.0, None: None}[agrees]
    return replace(item, value=0.0, interval=None, null=None, ideal=ideal)


def ledger_problems(record: Record, entries: list[Any]) -> list[str]:
    """What the ledger filed, decided and released against what the record says of it."""
    request = record["request"]
    own = [entry for entry in entries if entry.key.split("/")[0] == request["id"]]
    by_kind = {
        kind: [entry.payload for entry in own if entry.kind == kind] for kind in ("request", "decision", "release")
    }
    problems = []
    filed = by_kind["request"][0] if by_kind["request"] else {}
    needed = request.keys() - {"decision", "matched"}
    if not needed <= filed.keys() or any(request.get(name) != value for name, value in filed.items()):
        problems.append("the request that the ledger filed is not the record's")
    if by_kind["decision"]:
        last = {**by_kind["decision"][-1]}
        matched = last.pop("matched", request.get("matched"))
        if last != request["decision"] or matched != request.get("matched"):
            problems.append("the last decision in the ledger is not the record's")
    digests = {model["digest"] for model in models_of(record)}
    released = [item for payload in by_kind["release"] for item in payload.get("releases", ())]
    left = [digest for item in released for digest in (item.get("digest", ""), *item.get("views", {}).values())]
    if any(digest not in digests for digest in left):
        problems.append("the ledger released another model than the record's")
    return problems


def _bound_to(record: Record, certificate: Record, model: Record) -> list[str]:
    """Digests that the certificate is bound to against what the record speaks of."""
    request = {name: value for name, value in record["request"].items() if name != "decision"}
    expected = {
        "release": model["digest"],
        "request": digest_json(request),
        "retained": record["data"]["retained_digest"],
    }
    binds = certificate["binds"]
    return [
        f"it is bound to another {name} than the record's" for name in expected if binds.get(name) != expected[name]
    ]


def _unbounded(certificate: Record) -> Record:
    """``certificate`` with the infinities that JSON cannot carry put back where formulas expect numbers."""
    parameters = dict(certificate["parameters"])
    parameters["spent"] = [math.inf if mu is None else mu for mu in parameters["spent"]]
    return {**certificate, "parameters": parameters}


def _drawn(certificate: Record) -> list[str]:
    """Whether the numbers that figures are drawn from follow from the certificate's own."""
    from expunge.privacy.gaussian import delta_of

    mu = certificate["composed_mu"]
    for epsilon, delta in certificate["curve"]:
        again = delta_of(epsilon, math.inf if mu is None else mu)
        if not math.isclose(delta, again, rel_tol=1e-9, abs_tol=1e-15):
            return [f"the curve says delta {delta} at epsilon {epsilon}, computed again {again}"]
    valid = [bound["value"] for bound in certificate["bounds"] if bound["valid"] and bound["value"] is not None]
    if valid and certificate["sensitivity"] is not None and certificate["sensitivity"] < min(valid) * (1 - 1e-9):
        return ["the sensitivity is below every bound that applies"]
    return []
