"""What a person sees of requests in files: what an attack changed, and what screening their wording came to."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.cli.output import WIDTH, number, print_wrapped, share, show, table_


def show_attack(result: Mapping[str, Any], json: bool) -> None:
    """What the stealthy attack did to a request."""
    done = "wrote" if result["written"] else "unchanged:"
    show(
        result, json,
        f"{done} {result['out']}: {result['wrapped']} of {result['items']} items in a template "
        f"({share(result['share'])}), {share(result['inserted_share'])} of the words inserted (p {result['p']:g}, "
        f"seed {result['seed']})",
    )  # fmt: skip


def show_due(result: Mapping[str, Any], json: bool) -> None:
    """What became of the requests that were due."""
    if json:
        show(result, True)
        return
    if not result["requests"]:
        print("Nothing is due.")
        return
    rows = [
        [r["job"], r["request"] or "", r["due"] or "", r["status"] or "", str(r["code"]), r["said"]]
        for r in result["requests"]
    ]
    table_("Due", ("job", "request", "due", "status", "code", ""), rows)


def show_releases(rows: Sequence[Mapping[str, Any]], json: bool) -> None:
    """Every release: whose it is, whether it is in use, and whether it may come back."""
    if json:
        show(list(rows), True)
        return
    if not rows:
        print("Nothing was released on this ledger.")
        return
    cells = [
        [r["digest"][:12], r["model"], r["request"], "in use" if r["in_use"] else "may come back" if r["may_return"] else
         "knows somebody"]
        for r in rows
    ]  # fmt: skip
    table_("Releases", ("digest", "model", "request", ""), cells)


def show_rolled_back(done: Mapping[str, Any], json: bool) -> None:
    """Which model is in use again, what to deploy and what to take down, and what the next request starts from."""
    if json:
        show(done, True)
        return
    print(f"In use again: release {done['digest'][:12]} of {done['request']}, model {done['model']}.")
    print(f"Deploy:       {', '.join(done['deploy'])}")
    print(f"Take down:    release {done['from'][:12]} of {done['from_request']}, wherever it is deployed.")
    start = done["next"]
    if start is None:
        print_wrapped(
            "The private folder beside the evidence is not there: a later request can only adopt the model as a checkpoint."
        )
    elif "model" in start:
        print(f"Next request: expunge run JOB --model {start['model']}, which starts from this release.")
    else:
        print(f"Next request: training: {{kind: stored, folder: {start['training']['folder']}}}")


_NUMBERS = ("z", "exact p", "request", "benign")


def show_screening(result: Mapping[str, Any], json: bool) -> None:
    """Words and templates that stand out, and the reasons for a second look."""
    if json:
        show(result, True)
        return
    standing = set(result["tokens"])
    rows = [
        [w["word"], *_cells(w), w["why"], "stands out" if w["word"] in standing else ""] for w in result["words"]
    ]  # fmt: skip
    title = f"Generic words, {result['items']} items against {result['benign']} benign ones"
    table_(title, ("word", *_NUMBERS, "generic as", ""), rows, numbers=_NUMBERS)
    if result["templates"]:
        rows = [[t["text"].strip(), "beginning" if t["side"] == "start" else "ending", str(t["items"]), *_cells(t)]
                for t in result["templates"]]  # fmt: skip
        table_("Templates", ("text", "side", "items", *_NUMBERS), rows, numbers=("items", *_NUMBERS))
    extra = f"Excess of generic words {number(result['excess'], 3)}, repeated items {share(result['duplicates'])}"
    print(extra + (f", {share(result['breadth'])} of all records" if result["breadth"] is not None else ""))
    print("Flagged:" if result["flagged"] else "Not flagged.")
    if result["blind"]:
        print(f"Not being flagged says nothing here: {result['why_blind']}.")
    for reason in result["reasons"]:
        print(textwrap.fill(reason, WIDTH, initial_indent="  ", subsequent_indent="  "))


def _cells(item: Mapping[str, Any]) -> list[str]:
    return [number(item["z"], 3), number(item["p"], 2), share(item["request"]), share(item["benign"])]
