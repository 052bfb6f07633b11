"""What a report shows, as plain values in the order of reading: the templates for HTML and PDF only lay it out.

Everything is text, lists and mappings (JSON-able), with numbers already written for people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from expunge.core.measurement import OWN_PROBES
from expunge.report import numbers as say
from expunge.report import plots, words
from expunge.report.answer import answer, gradients_cell, time_cell, verdict_row
from expunge.report.bottom_line import bottom_line, copies
from expunge.report.differences import differences
from expunge.report.drawing import Figure
from expunge.report.forgetting import forgetting
from expunge.report.guarantee import certificates
from expunge.report.measurement_names import with_keys
from expunge.report.outcome import is_held, person_of
from expunge.report.views import at_peers, held_by, in_short
from expunge.report.vocabulary import FACTS, NOBODY, ORIGINS, STATUSES, UNRECORDED, acts, called, label, status_of

Record = Mapping[str, Any]
Row = dict[str, Any]

_AGREES = {True: ("✓", "agrees"), False: ("✗", "differs"), None: ("?", "undecidable")}
_NOT_COMPARED = (say.NOTHING, "not compared")
_PASSED = {True: ("✓", "passed"), False: ("✗", "failed"), None: ("?", "undecided")}
_FIRST = {"violated": 0, UNRECORDED: 1, "unchecked": 2, "holds": 3}  # what decides the verdict is read first


def sheet(record: Record, outline: bool = False) -> dict[str, Any]:
    """Everything on the page. ``outline``: figures with letters as shapes, for the PDF."""
    record, figures = with_keys(record), _numbered(outline)
    record = {**record, "runs": [in_short(run) for run in record["runs"]]}
    return {
        "title": record["title"],
        "request_id": record["request"]["id"],
        "created": record["created"],
        "created_day": say.day(record["created"]),
        "expunge": record["expunge"],
        "format": record["format"],
        "private": "salt" in record,
        "withheld": words.withheld(record),
        "verdicts": [verdict_row(run) for run in record["runs"]],
        "bottom_line": [
            {"run": say.initial(run["name"]), **bottom_line(run, person_of(record), is_held(record))}
            for run in record["runs"]
        ]
        if all("outcome" in run for run in record["runs"])
        else [],
        "copies": copies(record),
        "half_page": [
            {"heading": section.heading, "paragraphs": [vars(item) for item in section.paragraphs]}
            for section in words.half_page(record)
        ],
        "answer": answer(record),
        "figures": figures(plots.accuracy(record), plots.membership(record)),
        "runs": [_run(run, figures, person_of(record), is_held(record)) for run in record["runs"]],
        "request": _request(record),
        "data": _data(record),
        "ledger": _ledger(record.get("ledger")),
        "environment": [[name.replace("_", " "), say.text(item)] for name, item in record["environment"].items()],
    }


def _numbered(outline: bool) -> Callable[..., list[Row]]:
    """Figures counted through the report; those that there are not leave no gap."""
    count = 0

    def figures(*drawn: Figure | None) -> list[Row]:
        nonlocal count
        rows = []
        for item in drawn:
            if item is not None:
                count += 1
                svg = item.outlined() if outline else item.svg
                rows.append({"number": count, "svg": svg, "alt": item.alt, "caption": item.caption})
        return rows

    return figures


def _run(run: Record, figures: Callable[..., list[Row]], person: Record | None, held: bool) -> Row:
    found = certificates(run)
    method, model = run["method"], run["model"]
    settings = method.get("settings") or {}
    return {
        "name": say.initial(run["name"]),
        "verdict": verdict_row(run),
        "proven": words.proven(run),
        "measured": [*forgetting(run, person, held), *words.measured(run), *at_peers(run)],
        "certificates": [_certificate(item, view) for view, item in found if item is not None],
        "figures": figures(
            *(plot(run, view) for view, _ in found for plot in (plots.trade_off, plots.bounds))
        ),
        "measurements": [_measurement(item, run["evidence"]["reference"]) for item in run["evidence"]["measurements"]],
        "differences": figures(differences(run)),
        "reference": run["evidence"]["reference"],
        "checks": [
            {"name": _check_name(item), "statement": item["statement"],
             "detail": say.text(item["detail"]) if item["detail"] else "", "passed": _PASSED[item["passed"]]}
            for item in run["evidence"]["checks"]
        ],
        "change": figures(plots.change(run)),
        "method": [
            ["Method", method["name"]],
            *([["Paper", run["paper"]]] if run["paper"] else []),
            *([f"Setting {name.replace('_', ' ')}", _setting(name, item)] for name, item in settings.items() if acts(item)),
            *([name.capitalize(), say.text(item)] for name, item in say.flat(run["details"])),
        ],
        "cost": _cost(run),
        "model": [
            ["File", model["file"]],
            ["Content", f"{model['parameters']:,} numbers in {say.plural(model['tensors'], 'tensor')} ({model['form']})"],
            *([["Change (L2)", _change(run)]] if run["change"] else []),
            ["Digest", model["digest"]],
            *_adapter(model),
            *_holders("Held by", run),
            *(
                row
                for view in run.get("other_views", ())
                for row in (
                    [f"Digest of view {view['view']}", view["model"]["digest"]],
                    *_holders(f"View {view['view']} held by", view),
                )
            ),
        ],
        "answers": _answers(run.get("answers", ())),
        "pictures": _by_set(run.get("pictures", ())),
        "purged": run["purged"],
        "remains": run["remains"],
        "facts": [
            [FACTS.get(name, name.replace("_", " ")), say.text(fact["value"]), ORIGINS.get(fact["origin"], fact["origin"]),
             fact["note"]]
            for name, fact in run["facts"].items()
        ],
    }  # fmt: skip


def _setting(name: str, item: Any) -> str:
    return words.settings_in_words(item, name) if isinstance(item, Mapping) else say.text(item)


def _answers(answers: Any) -> list[Row]:
    """What each model said, set by set; in the private record alone."""
    written = lambda text: say.NOTHING if text is None else text or "(says nothing)"  # noqa: E731
    return _by_set(
        {"set": item["set"], "image": item["image"], "question": item["question"],
         "cells": [item["right"], *(written(item[model]) for model in ("before", "after", "retrained"))]}
        for item in answers
    )  # fmt: skip


def _by_set(items: Iterable[Record]) -> list[Row]:
    """Items that name a set, one group for each set: forgotten examples first, retained ones last."""
    groups: dict[str, list[Record]] = {}
    for item in items:
        groups.setdefault(item["set"], []).append(item)
    order = sorted(groups, key=lambda name: (name == "retain", name != "forget", name != OWN_PROBES))
    return [{"set": called(name), "rows": groups[name]} for name in order]


def _adapter(model: Record) -> list[list[str]]:
    """The same release as an adapter, where there is one; records of before that form have no such key."""
    adapter = model.get("adapter")
    if adapter is None:
        return []
    size = f"{adapter['parameters']:,} numbers, the same release beside the weights of before"
    return [["Adapter", f"{adapter['folder']} ({size})"], ["Digest of the adapter", adapter["digest"]]]


def _holders(title: str, release: Record) -> list[list[str]]:
    """Which peers were sent one model; nothing where it is held by one alone. Earlier records name none."""
    views = release.get("views", ())
    return [[title, held_by(views)]] if len(views) > 1 else []


def _check_name(check: Record) -> str:
    name = check["name"].replace("_", " ")
    return f"{name} ({check['view']})" if check.get("view") else name


def _certificate(certificate: Record, view: str) -> Row:
    mu = certificate["composed_mu"]
    rows = [
        ["Theorem", certificate["theorem"]],
        ["Meaning", certificate["definition"]],
        ["Compared with", certificate["procedure"]],
        ["About", f"{certificate['unit']}; {certificate['adjacency']}"],
        ["ε, all releases so far", say.number(certificate["epsilon"], say.UNBOUNDED)],
        ["ε, this release alone", say.number(certificate["release_epsilon"], say.UNBOUNDED)],
        ["δ", say.number(certificate["delta"]) if mu != 0 else "any"],
        ["Noise σ on every weight", say.number(certificate["sigma"])],
        ["Sensitivity (L2)", say.number(certificate["sensitivity"], say.UNBOUNDED)],
        ["μ, sensitivity over noise", f"{say.number(certificate['mu'], say.UNBOUNDED)}"
         + (f" (all releases: {say.number(mu, say.UNBOUNDED)})" if mu != certificate["mu"] else "")],
    ]  # fmt: skip
    return {
        "view": view,
        "rows": rows,
        "holds": certificate["verdict"].startswith("certified"),
        "covers": list(certificate["covers"]),
        "excludes": list(certificate["excludes"]),
        "assumptions": [
            {
                "statement": item["statement"],
                "value": say.text(item["value"]) if item["value"] is not None else "",
                "origin": NOBODY if status_of(item) == UNRECORDED else ORIGINS.get(item["origin"], item["origin"]),
                "status": STATUSES.get(status_of(item), ("?", item["status"])),
            }
            for item in sorted(certificate["assumptions"], key=lambda item: _FIRST.get(status_of(item), 0))
        ],
        "bounds": [
            {"name": item["name"].replace("_", " "), "value": say.number(item["value"], "infinite"), "source": item["source"],
             "applies": "applies" if item["valid"] else f"does not apply{': ' if item['reason'] else ''}{item['reason']}"}
            for item in certificate["bounds"]
        ],
        "parameters": "; ".join(f"{name} = {say.text(item)}" for name, item in certificate["parameters"].items()),
        "binds": [[name, digest] for name, digest in certificate["binds"].items()],
    }  # fmt: skip


def _measurement(item: Record, reference: str | None) -> Row:
    name = item["metric"]
    return {
        "name": label(item),
        "n": say.NOTHING if item["n"] is None else f"{item['n']:,}",
        "before": say.value(name, item["original"]),
        "value": "private" if item.get("withheld") else say.value(name, item["value"]),
        "interval": say.interval(name, item["interval"]) or say.NOTHING,
        "ideal": say.value(name, item["ideal"]),
        "null": say.NOTHING if item["null"] is None else f"± {say.value(name, item['null'])}",
        "agrees": _NOT_COMPARED
        if reference and item["ideal"] is None and item["agrees"] is None
        else _AGREES[item["agrees"]],
    }


def _change(run: Record) -> str:
    moved = list(run["change"].values())
    return "of another shape than before" if None in moved else say.number(math.hypot(*moved))


def _cost(run: Record) -> list[list[str]]:
    rows = [["Time", *time_cell(run)], ["Gradients of single rows", *gradients_cell(run)]]
    memory = run["cost"].get("peak_memory_bytes")
    return [*rows, ["Peak memory of the process", say.size(memory), ""]] if memory is not None else rows


def _request(record: Record) -> list[list[str]]:
    request, decision = record["request"], record["request"].get("decision") or {}
    matched = request.get("matched") or {}
    count = say.plural(matched.get("count", 0), "id")
    count += f" of {say.plural(matched['conversations'], 'conversation')}" if "conversations" in matched else ""
    along = (
        [["Forgotten along", f"{say.plural(matched['along'], 'id')} of earlier granted requests"]]
        if matched.get("along")
        else []
    )
    alike = decision.get("look_alikes")
    targets = [
        f"{item.get('rule') or item['kind']} {str(item.get('where'))[:16]}…" for item in request.get("targets", ())
    ]
    return [
        ["Request", request["id"]],
        ["Subject (keyed hash)", request.get("subject") or say.NOTHING],
        ["Ground", request.get("ground") or "not stated"],
        ["Received", say.day(request.get("received"))],
        ["Answer owed by", say.day(request.get("due"))],
        ["Targets", "; ".join(targets) or say.NOTHING],
        ["Matched", f"{count}, listed as keyed hashes in evidence.json" if matched else "not recorded"],
        *along,
        *(
            [["Look-alikes that stay", f"{say.plural(len(alike), 'value')}, as keyed hashes in evidence.json"]]
            if alike
            else []
        ),
        ["Decision", decision.get("decision", "none recorded")],
        ["Decided by", decision.get("by") or say.NOTHING],
        ["Reason", decision.get("reason") or say.NOTHING],
        *_screening(decision.get("screening")),
    ]


def _screening(found: Record | None) -> list[list[str]]:
    """What a look at the wording of a request for texts found."""
    if found is None:
        return []
    words = "; ".join(
        f"{item['word']!r} in {item['items']} ({say.percent(item['share'])}, elsewhere {say.percent(item['reference_share'])}"
        f", z {say.number(item['z'])})"
        for item in found["words"]
    )
    shared = "; ".join(f"{item['text']!r} at the {item['side']} of {item['items']}" for item in found["templates"])
    return [
        ["Wording compared with", f"{found['against']} ({found['reference_items']:,} items; {found['items']:,} asked)"],
        ["Words that stand out", words or "none"],
        ["Templates", shared or "none"],
        ["Action on a flagged wording", found["action"] + ("" if found["flagged"] else ", not needed")],
    ]


def _data(record: Record) -> list[list[str]]:
    data = record["data"]
    count = lambda rows: "unknown" if rows is None else say.plural(rows, "row")  # noqa: E731
    return [
        ["Data", data["name"] or say.NOTHING],
        *([["Note", data["note"]]] if data["note"] else []),
        ["Before", count(data["rows"])],
        ["Retained", count(data["retained"])],
        ["Forgotten", count(data["forgotten"]) + ("" if data["member"] else ", written for the purpose")],
        *(
            [["Equal to a forgotten one and retained", count(data["copies_that_stay"])]]
            if data.get("copies_that_stay")
            else []
        ),
        *([["Absent", f"{count(data['absent'])}, which retraining leaves out"]] if data.get("absent") else []),
        *([f"Measured on {name.replace('_', ' ')}", count(rows)] for name, rows in data["probes"].items()),
        ["Digest before", data["digest"] or "unknown"],
        ["Digest retained", data["retained_digest"] or "unknown"],
    ]


def _ledger(excerpt: Record | None) -> Row | None:
    if excerpt is None:
        return None
    shown = [entry for entry in excerpt["entries"] if "kind" in entry]
    return {
        "rows": [[str(e["sequence"]), e["kind"], e["key"], e["time"][:19].replace("T", " "), e["hash"]] for e in shown],
        "hidden": excerpt["length"] - len(shown),
        "length": excerpt["length"],
        "head": excerpt["head"],
    }
