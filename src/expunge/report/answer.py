"""The answer in one table: runs side by side, what is proven, measured, spent and left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Verdict
from expunge.core.measurement import Key
from expunge.report import guarantee, words
from expunge.report import numbers as say
from expunge.report.forgetting import outcome_row
from expunge.report.outcome import is_held, person_of, speaks_against
from expunge.report.vocabulary import MEASURED_VERDICTS, SYMBOLS, UNRECORDED, VERDICTS, is_attack, key, label, status_of

Record = Mapping[str, Any]
Row = dict[str, Any]


def answer(record: Record) -> dict[str, Any]:
    """The answer in one table: a column for each run, rows in groups; each cell a main text and a note."""
    runs = record["runs"]
    items = {
        key(item): item for run in runs for item in run["evidence"]["measurements"] if _in_short(run, item)
    }  # fmt: skip

    def row(head: str, cell: Callable[[Record], tuple[str, str]]) -> Row:
        return {"head": head, "cells": [dict(zip(("main", "note"), cell(run), strict=True)) for run in runs]}

    person = person_of(record)
    judged = (
        [row("Outcome", lambda run: outcome_row(run, person, is_held(record)))]
        if all("outcome" in run for run in runs)
        else []
    )
    groups = [
        ("Proven", [row("Verdict", _verdict_cell), row("Guarantee", _guarantee), row("Assumptions", _assumption_count)]),
        (
            "Measured",
            [*(row(label(item), lambda run, item=item: _measured_cell(run, key(item))) for item in items.values()),
             row("Taken together", _together), *judged],
        ),
        ("Cost", [row("Time", time_cell), row("Gradients of single rows", gradients_cell)]),
        ("Left", [row("Capacity used", _capacity), row("Still holding the forgotten rows", _holding)]),
    ]  # fmt: skip
    return {
        "columns": [{"name": say.initial(run["name"]), "method": run["method"]["name"]} for run in runs],
        "groups": [{"name": name, "rows": rows} for name, rows in groups],
    }


def _in_short(run: Record, item: Record) -> bool:
    """Accuracy and the simplest attack; where there are no classes, all but the distance of weights."""
    if item["metric"] in ("accuracy", "membership_loss"):
        return True
    classes = any(other["metric"] == "accuracy" for other in run["evidence"]["measurements"])
    return not classes and (item["set"] is not None or is_attack(item))


def verdict_row(run: Record) -> Row:
    """How a run's verdict is shown: symbol, name, and what it means."""
    verdict = run["verdict"]
    name, meaning = VERDICTS.get(verdict, (verdict, "not known to this version: nothing is proven"))
    return {
        "run": say.initial(run["name"]),
        "key": verdict,
        "symbol": SYMBOLS.get(verdict, "?"),
        "name": name,
        "meaning": meaning,
    }


def _verdict_cell(run: Record) -> tuple[str, str]:
    verdict = verdict_row(run)
    return f"{verdict['symbol']} {verdict['name']}", verdict["meaning"]


def _guarantee(run: Record) -> tuple[str, str]:
    certificate = guarantee.weakest_certificate(run)
    if certificate is None or run["verdict"] in (Verdict.VOID, UNCHANGED, UNCERTIFIED):
        return "none", ""
    pair = guarantee.pair(certificate)
    if not run["verdict"].startswith("certified"):
        return "none", f"nominal {pair}"
    if not certificate["epsilon"]:
        return pair, ""
    right = guarantee.at_most(guarantee.best_guess(certificate["epsilon"], certificate["delta"]))
    return pair, f"guessing right from even odds: at most {right}"


def _assumption_count(run: Record) -> tuple[str, str]:
    certificate = guarantee.weakest_certificate(run)
    if certificate is None:
        return say.NOTHING, ""
    statuses = [status_of(item) for item in certificate["assumptions"]]
    counted = [
        f"{statuses.count(status)} {status}"
        for status in ("holds", "unchecked", UNRECORDED, "violated")
        if status in statuses
    ]
    return ", ".join(counted).replace("holds", "hold"), ""


def _together(run: Record) -> tuple[str, str]:
    verdict = run["evidence"]["verdict"]
    if verdict == "not told from retraining" and speaks_against(run):
        return "No single value differs", "the outcome goes by how far the model went"
    said = MEASURED_VERDICTS.get(verdict, verdict)
    if verdict == "not told from retraining" and words.hides_comparisons(run["evidence"]):
        shown = any(item["agrees"] is not None for item in run["evidence"]["measurements"])
        return (said, "by what is shown here; other values are private") if shown else ("private", "")
    return said, ""


def _measured_cell(run: Record, wanted: Key) -> tuple[str, str]:
    item = next((item for item in run["evidence"]["measurements"] if key(item) == wanted), None)
    if item is None:
        return say.NOTHING, "not measured"
    if item.get("withheld"):
        return "private", {True: "agrees with retraining", False: "differs from retraining"}.get(item["agrees"], "")
    name = item["metric"]
    spread = f" ({say.interval(name, item['interval'])})" if item["interval"] else ""
    beside = [f"retrained {say.value(name, item['ideal'])}" if item["ideal"] is not None else "no retrained model"]
    if item["original"] is not None:
        beside.append(f"before {say.value(name, item['original'])}")
    return f"{say.value(name, item['value'])}{spread}", ", ".join(beside)


def time_cell(run: Record) -> tuple[str, str]:
    """Seconds, beside retraining."""
    return _against(run, "seconds", say.seconds)


def gradients_cell(run: Record) -> tuple[str, str]:
    """Gradients of single rows, beside retraining."""
    own, beside = _against(run, "gradient_evaluations", lambda count: say.number(count) if count else "none recorded")
    return own, beside if "none recorded" not in beside else ""


def _against(run: Record, what: str, write: Callable[[Any], str]) -> tuple[str, str]:
    cost = run["evidence"]["cost"].get(what)
    cost = cost if isinstance(cost, Mapping) else {}
    own, retrain = cost.get("unlearn", run["cost"].get(what)), cost.get("retrain")
    return write(own), "" if retrain is None else f"retraining {write(retrain)}"


def _capacity(run: Record) -> tuple[str, str]:
    budget = run["budget"]
    if budget is None:
        return say.NOTHING, "no budget was published"
    used, capacity = budget["used"], budget["capacity"]
    return f"{used:,} of {capacity:,} records", "" if used < capacity else "the next request needs retraining"


def _holding(run: Record) -> tuple[str, str]:
    count = len(run["remains"])
    return ("nothing known", "") if not count else (say.plural(count, "thing"), "listed below")
