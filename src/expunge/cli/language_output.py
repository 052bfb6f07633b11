"""What a person sees of requests for language models: what an attack changed, what a look at the wording found."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.cli.output import WIDTH, number, share, show, table_
from expunge.metrics.catalogue import METRICS


def show_attack(result: Mapping[str, Any], json: bool) -> None:
    """What the stealthy attack did to a request."""
    done = "wrote" if result["written"] else "unchanged:"
    show(
        result, json,
        f"{done} {result['out']}: {result['wrapped']} of {result['items']} items in a template "
        f"({share(result['share'])}), {share(result['inserted_share'])} of the words inserted (p {result['p']:g}, "
        f"seed {result['seed']})",
    )  # fmt: skip


CELL, ABREAST = 16, 72  # characters of a share with its interval; of all columns of a table: TOFU has four sets
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
        print("Too few items for any word to stand out: the words say nothing here.")
    for reason in result["reasons"]:
        print(textwrap.fill(reason, WIDTH, initial_indent="  ", subsequent_indent="  "))


def show_evaluation(result: Mapping[str, Any], json: bool) -> None:
    """What a language model still knows, set by set; what has no number, and why; what must not be overlooked."""
    if json:
        show(result, True)
        return
    print(f"{result['model']}, {result['suite']}, {result['split']} forgotten; 95 % intervals over records")
    numbers = result["measurements"]
    names = list(result["sets"])
    for heads in _abreast({name: f"{_words(name)} ({result['sets'][name]['n']})" for name in names}):
        some, heads = list(heads), list(heads.values())
        rows = _metric_rows(numbers, some, result["retrained"] is not None)
        table_("", ("", *heads), rows, numbers=heads, tight=True)
    whole = [item for item in numbers if item["set"] is None]
    if whole:
        rows = [[_label(item["metric"]), number(item["value"]), *_ends(item), number(item["ideal"]), str(item["n"])]
                for item in whole]  # fmt: skip
        columns = ("sets together", "value", "from", "to", "retrained", "records")
        table_("", columns, rows, numbers=columns[1:])
    for name, counts in result["sets"].items():
        left_out = [f"{count} dropped ({reason})" for reason, count in counts["dropped"].items()]
        cut = counts["cut"] + counts["reworded_cut"]
        left_out += [f"{cut} answers cut to {result['settings']['context']} tokens"] if cut else []
        if left_out:
            _wrapped(f"{_words(name)}: {', '.join(left_out)}.")
    for name, why in result["missing"].items():
        _wrapped(f"{_label(name)}: none; {why}.")
    for warning in result["warnings"]:
        _wrapped(warning)


def _abreast(heads: Mapping[str, str]) -> list[dict[str, str]]:
    """Set → head of its column, for one table after another that is no wider than the page."""
    tables: list[dict[str, str]] = []
    for name, head in heads.items():
        columns = [*tables[-1].values(), head] if tables else []
        if not columns or sum(max(len(each), CELL) + 2 for each in columns) > ABREAST:
            tables.append({})
        tables[-1][name] = head
    return tables


def _wrapped(text: str) -> None:
    print(textwrap.fill(text, WIDTH, subsequent_indent="  "))


def _metric_rows(numbers: Sequence[Mapping[str, Any]], sets: Sequence[str], beside: bool) -> list[list[str]]:
    """A row for each metric over some sets, and one below it for the retrained model."""
    rows = []
    by_place = {(item["metric"], item["set"]): item for item in numbers}
    for metric in dict.fromkeys(metric for metric, of in by_place if of is not None):
        found = [by_place.get((metric, name)) for name in sets]
        if any(found):
            rows.append([_label(metric), *(_with_ends(item) if item else "" for item in found)])
            if beside:
                rows.append(["  retrained", *(f"{item['ideal']:.3f}" if item else "" for item in found)])
    return rows


def _ends(item: Mapping[str, Any]) -> list[str]:
    return [number(end, 3) for end in item["interval"] or (None, None)]


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else _words(metric)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _with_ends(item: Mapping[str, Any]) -> str:
    """A share and its interval, short enough for four abreast."""
    low, high = item["interval"]
    return f"{item['value']:.3f} [{_short(low)}, {_short(high)}]"


def _short(value: float) -> str:
    return "1.0" if value >= 0.995 else f"{value:.2f}".removeprefix("0")


def _cells(item: Mapping[str, Any]) -> list[str]:
    return [number(item["z"], 3), number(item["p"], 2), share(item["request"]), share(item["benign"])]
