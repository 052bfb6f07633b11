"""The one object that ``--json`` prints for a run: the contract with machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.report.bottom_line import bottom_line
from expunge.report.forgetting import warned
from expunge.report.guarantee import weakest_certificate
from expunge.report.measurement_names import keyed
from expunge.report.outcome import accepted_by, is_accepted, person_of

WHERE = ("retain", "forget", "test")
FIELDS = ("metric", "set", "view", "value", "interval", "n", "direction", "ideal", "null", "original", "reference")


def summary(record: Mapping[str, Any], out: Path, ledger: Path) -> dict[str, Any]:
    """Request, runs, and where the report, the evidence and the ledger lie, from an evidence record."""
    return {
        "request": {"id": record["request"]["id"], "kind": record["request"]["kind"]},
        "runs": [_run(run, person_of(record)) for run in record["runs"]],
        "accepted": is_accepted(record),
        "report": str(out / "report.html"),
        "evidence": str(out),
        "ledger": str(ledger),
    }


def _run(run: Mapping[str, Any], person: Mapping[str, Any] | None) -> dict[str, Any]:
    certificate = weakest_certificate(run) or {}
    certified, outcome = run["verdict"].startswith("certified"), run.get("outcome") or {}
    items = [keyed(item) for item in run["evidence"]["measurements"]]
    measured = {(item["metric"], item["set"]): item for item in items if item["view"] is None}

    def three(metric: str, of: str | None = None) -> dict[str, float | None]:
        item = measured.get((metric, of), {})
        return {"original": item.get("original"), "unlearned": item.get("value"), "retrained": item.get("ideal")}

    # the strongest attack that was run: the likelihood ratio on shadow models where there are some
    attack = "lira" if ("membership_lira", None) in measured else "loss"
    cost = run["evidence"]["cost"]
    return {
        "model": run["name"],
        "method": run["method"]["name"],
        "verdict": run["verdict"],
        "outcome": outcome.get("word"),
        "outcome_reason": outcome.get("reason"),
        "accepted_by": accepted_by(run, person) if outcome else None,
        "warning": warned(run) or None,
        "instead": None if not outcome or accepted_by(run, person) else bottom_line(run, person)["why"],
        "epsilon": certificate.get("epsilon") if certified else None,
        "nominal_epsilon": certificate.get("epsilon"),
        "delta": certificate.get("delta"),
        "sigma": certificate.get("sigma"),
        "sensitivity": certificate.get("sensitivity"),
        "accuracy": {where: three("accuracy", where) for where in WHERE},
        "loss": {where: three("loss", where) for where in WHERE},
        # of right answers; language models only, as accuracy is of classifiers
        "probability": {where: three("probability", where) for where in WHERE},
        "membership_auc": three(f"membership_{attack}"),
        "membership_attack": attack,
        "seconds": {"unlearn": cost["seconds"]["unlearn"], "retrain": cost["seconds"]["retrain"]},
        "measurements": [{field: item.get(field) for field in FIELDS} for item in items],
        "measured": run["evidence"]["verdict"],
        "publish_first": published_first(certificate),
    }


def published_first(certificate: Mapping[str, Any]) -> bool:
    """Whether all that keeps a certificate from its best verdict is that no ledger shows that the promise came first."""
    open_ = {item["name"] for item in certificate.get("assumptions", ()) if item["status"] != "holds"}
    return bool(open_) and open_ <= {"release_ledger", "noise_fixed_before", "selection"}
