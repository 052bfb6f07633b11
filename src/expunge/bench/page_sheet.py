"""What the page of a benchmark shows, as plain values in the order of reading: HTML and Markdown only lay it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.bench import page_plots as plots
from expunge.bench.page_rows import (
    SAID,
    UNKNOWN,
    Line,
    groups,
    heading,
    interval,
    known,
    layout,
    lead,
    ordered,
    shown_as,
    target,
    weakness,
    written,
)  # fmt: skip
from expunge.metrics.catalogue import METRICS, column
from expunge.metrics.metric_spec import NULL, RETRAINED
from expunge.report import numbers as say

Record = Mapping[str, Any]
Row = dict[str, Any]

_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_IDEALS: Mapping[Any, str] = {
    RETRAINED: "the retrained model's value",
    NULL: "what chance gives",
    None: "none",
    UNKNOWN: "",
}
_DIRECTIONS = {"match": "as close as possible to the ideal", "higher": "higher", "lower": "lower"}


def sheet(record: Record, figures: bool = True) -> dict[str, Any]:
    """Everything on the page of ``record`` (see :func:`expunge.bench.page_rows.finite`); Markdown needs no figures."""
    lines = ordered(record)
    first = lead(record)
    others = tuple(name for name in _names(record) if name not in first)
    shown = layout(record)
    drawn = [made for figure in shown.figures if (made := plots.draw(record, figure))] if figures else []
    order, reasons = "By method, in the order of the recipe", lines
    if shown.sorted_by is not None:
        order = f"Sorted by outcome, then by {heading(shown.sorted_by).lower()}"
        reasons = sorted(lines, key=lambda line: (-line.group, line.number))
    return {
        "title": record["title"],
        "recipe": record["recipe"],
        "summary": summary(record, lines),
        "note": record.get("note") or "",
        "order": order,
        "leaderboard": board(record, lines, first),
        "others": board(record, lines, others) if others else None,
        "reasons": _reasons(reasons),
        "figures": [
            {"number": i, "svg": item.svg, "alt": item.alt, "caption": item.caption} for i, item in enumerate(drawn, 1)
        ],
        "published": _published(record, lines),
        "cost": _cost(record, lines),
        "settings": [[line.name, *_settings(line.row)] for line in lines],
        "definitions": _definitions(record),
    }


def _names(record: Record) -> list[str]:
    """Names of all numbers in the record, in the order of the catalogue; what it does not know last."""
    rows = [*record["rows"], record.get("reference") or {}, record.get("source") or {}]
    found = {name for row in rows for name in row.get("metrics") or {}}
    listed = [name for name in METRICS if name in found]
    return listed + sorted(found - set(listed))


# --- words --------------------------------------------------------------------------------------------------------------


def count_word(count: int) -> str:
    """A count as people write it.

    >>> count_word(3), count_word(20)
    ('three', '20')
    """
    return _WORDS[count] if count < len(_WORDS) else f"{count:,}"


def summary(record: Record, lines: Sequence[Line]) -> str:
    """What was forgotten, what the table rests on, and how many rows got which outcome."""
    seeds, sets = record["seeds"], record["forget_sets"]
    retrained = (record.get("reference") or {}).get("seeds") or 0
    each = "a single seed" if seeds == 1 else f"the mean over {count_word(seeds)} seeds"
    over = "one forget set" if sets == 1 else f"{count_word(sets)} forget sets"
    beside = (
        f"beside {count_word(retrained)} model{'s' if retrained > 1 else ''} retrained without the forgotten rows"
        if retrained
        else "without any retrained model to compare with"
    )
    counts = Counter(line.word for line in lines)
    told = [
        f"{count_word(counts.pop(word))} {several if number > 1 else one}"
        for word, (_, one, several) in SAID.items()
        if (number := counts.get(word, 0))
    ]
    told += [f"{count_word(number)}: {word}" for word, number in sorted(counts.items()) if number]
    sentences = [
        forgotten(record),
        f"Every number is {each} on {over}, {beside}.",
        f"Of {say.plural(len(lines), 'row')}, {say.joined(told)}." if lines else "The table has no rows.",
        layout(record).meaning,
        (record.get("source") or {}).get("weak") or "",
    ]
    if record.get("defaults"):
        sentences.append("Every method has its published settings, not those of the recipe.")
    if record.get("quick"):
        sentences.append("This was a quick run: it shows that everything works, and its numbers are no result.")
    return " ".join(sentence for sentence in sentences if sentence)


def forgotten(record: Record) -> str:
    """What was to be forgotten; empty where the record does not say."""
    forget, counts = record.get("forget"), record.get("n_forget") or []
    if not forget:
        return ""
    rows = ""
    if counts:
        least, most = min(counts), max(counts)
        rows = f" ({say.plural(most, 'row')})" if least == most else f" ({least:,} to {most:,} rows)"
    return layout(record).forgotten(forget, rows)


def _reasons(lines: Sequence[Line]) -> list[Row]:
    """Why each row has its outcome."""
    return [
        {"name": line.name, "verdict": line.row["verdict"], "symbol": _symbol(line),
         "text": line.row.get("reason") or "No reason is recorded."}
        for line in lines
    ]  # fmt: skip


def _symbol(line: Line) -> str:
    return SAID[line.word][0] if line.word in SAID else "?"


def _settings(row: Record) -> tuple[str, str]:
    tuning = row.get("tuning")
    tried = ""
    if tuning:
        found = say.text(tuning["settings"]) if tuning["settings"] else "those of the recipe were best"
        tried = f"{say.plural(tuning['trials'], 'trial')}: {found}"
    return say.text(row["settings"]) if row.get("settings") else say.NOTHING, tried


# --- tables -------------------------------------------------------------------------------------------------------------


def board(record: Record, lines: Sequence[Line], names: Sequence[str]) -> dict[str, Any]:
    """A table of ``names``: the retrained row, the original, then groups of rows.

    What a number should be stands under the head of its column, or in the cell where rows differ in it; what speaks
    against a number likewise, as a mark that leads to its reason.
    """
    numbered = [line for line in lines if line.row["metrics"]]
    notes: list[str] = []
    columns, shared, marked = [], {}, {}
    for name in names:
        items = [item for line in numbered if (item := line.metric(name))]
        items += [item for row in _models(record) if not items and (item := known(row, name))]
        targets = {target(name, item) for item in items}
        reasons = {weakness(line, name) for line in numbered if line.metric(name)}
        shared[name], marked[name] = len(targets) < 2, len(reasons) < 2
        columns.append({
            "name": name,
            "heading": heading(name),
            "target": next(iter(targets), "") if shared[name] else _differing(name),
            "mark": _mark(next(iter(reasons), ""), notes) if marked[name] else "",
        })  # fmt: skip

    def cells(row: Record, line: Line | None) -> list[Row]:
        return [_cell(row, name, line, shared[name], marked[name], notes) for name in names]

    def shown(row: Record, line: Line | None, name: str, number: Any, verdict: str, symbol: str) -> Row:
        return {"number": number, "name": name, "cells": cells(row, line), "verdict": verdict, "symbol": symbol}

    weak = ", weak" if (record.get("source") or {}).get("weak") else ""
    words = (("retrained", "the ideal"), ("original", f"before forgetting{weak}"))
    top = [
        shown(row, None, *said[:1], "", said[1], "") for row, said in zip(_models(record), words, strict=True) if row
    ]
    grouped = [
        [shown(n.row, n, n.name, n.number, n.row["verdict"], _symbol(n)) for n in lines if n.group == i]
        for i, _ in enumerate(groups(record))
    ]
    single = any(item["low"] is None for line in numbered for name in names if (item := line.metric(name)))
    return {
        "columns": columns,
        "top": top,
        "groups": [{"name": name, "rows": rows} for name, rows in zip(groups(record), grouped, strict=True) if rows],
        "notes": [[_raised(i), text] for i, text in enumerate(notes, 1)],
        "single": single,
    }


def _models(record: Record) -> tuple[Record, Record]:
    return record.get("reference") or {}, record.get("source") or {}


def _differing(name: str) -> str:
    """Under the head of a column whose rows differ in what chance gives."""
    constant = _constant(name)
    return "chance in cells" if constant is None else f"ideal {constant:g}, chance in cells"


def _constant(name: str) -> float | None:
    """What a number should be where that is the same everywhere."""
    ideal = shown_as(name).ideal
    return float(ideal) if isinstance(ideal, int | float) else None


def _mark(reason: str, notes: list[str]) -> str:
    """The mark of ``reason``, a new one where it is new; empty for no reason."""
    if not reason:
        return ""
    reason = say.initial(reason)
    if reason not in notes:
        notes.append(reason)
    return _raised(notes.index(reason) + 1)


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _cell(row: Record, name: str, line: Line | None, shared: bool, marked: bool, notes: list[str]) -> Row:
    item = known(row, name)
    if item is None:
        return {"value": say.NOTHING, "notes": [], "mark": ""}
    exact = line is None and item["low"] == item["high"]  # one original model, or what chance gives: no mean over seeds
    under = [] if exact else [interval(name, item)]
    if item.get("std") is not None:
        under.append(f"std {written(name, item['std'])}")
    if line is not None and not shared and item["null"] is not None:
        under.append(f"chance {written(name, item['null'])}")
    mark = _mark(weakness(line, name), notes) if line is not None and not marked else ""
    return {"value": written(name, item["mean"]), "notes": [text for text in under if text], "mark": mark}


def _published(record: Record, lines: Sequence[Line]) -> dict[str, Any] | None:
    """What papers print, with our value in a line of its own below."""
    items = record.get("published") or []
    if not items:
        return None
    names = list(dict.fromkeys(name for item in items for name in item["metrics"]))
    names = [name for name in METRICS if name in names] + [name for name in names if name not in METRICS]
    ours = {line.name: line.row for line in lines}
    ours |= {"retrain": record.get("reference") or {}, "source": record.get("source") or {}}
    rows = []
    for item in items:
        printed, mine = [], []
        for name in names:
            std = (item.get("std") or {}).get(name)
            printed.append(
                written(name, item["metrics"].get(name)) + ("" if std is None else f" ± {written(name, std)}")
            )
            found = known(ours.get(item["row"]), name)
            between = interval(name, found) if found else ""
            mine.append(written(name, found["mean"] if found else None) + (f" ({between})" if between else ""))
        rows.append({"name": item["row"], "source": item["source"], "published": printed, "ours": mine})
    differs = list(dict.fromkeys(item["differs"] for item in items if item.get("differs")))
    differs = differs or ["The recipe does not say in what the papers' settings differ from ours."]
    heads = [heading(name) if column(name) else f"{name} (as the paper counts it)" for name in names]
    return {"names": heads, "rows": rows, "differs": differs}


def _cost(record: Record, lines: Sequence[Line]) -> list[list[str]]:
    reference, source = _models(record)
    rows = []
    if (took := source.get("seconds_of_source", reference.get("seconds_of_source"))) is not None:
        rows.append(["Training the original", say.seconds(took)])
    if reference.get("seconds_of_all") is not None:
        models = say.plural(reference["seeds"], "retrained model")
        rows.append([f"Training {models}", say.seconds(reference["seconds_of_all"])])
    spent = [
        item["mean"] * line.row["seeds"] for line in lines if (item := line.metric("seconds")) and line.row["seeds"]
    ]
    rows.append(["Unlearning, all rows and seeds shown", say.seconds(sum(spent)) if spent else say.NOTHING])
    tuned = [line.row["tuning"] for line in lines if line.row.get("tuning")]
    trials, took = (sum(item[name] for item in tuned) for name in ("trials", "seconds"))
    if tuned:
        rows.append([f"Tuning, {say.plural(trials, 'trial')}", say.seconds(took)])
    else:
        rows.append(["Tuning", "none: settings are those of the recipe"])
    rows.append(["This run, from start to table", say.seconds(record["seconds"])])
    many = f"{record['jobs']} at a time: seconds are longer than alone"
    rows.append(["Beside each other", f"cells ran {many if record['jobs'] > 1 else 'one at a time'}"])
    if record.get("from_cache"):
        rows.append(
            ["Original and retrained models", "taken from the cache: their seconds are those of their training"]
        )
    return rows


def _definitions(record: Record) -> list[Row]:
    names = ("name", "title", "unit", "direction", "ideal", "null", "headline")
    found = []
    for name in _names(record):
        metric = shown_as(name)
        constant, needed = _constant(name), metric.headline
        better = "" if metric.ideal == UNKNOWN else _DIRECTIONS[str(metric.direction)]
        found.append((
            name, metric.title, "" if metric.unit == "1" else metric.unit, better,
            _IDEALS[metric.ideal] if constant is None else f"{constant:g}", metric.null,
            f"{needed.models} ({needed.source})" if needed.models > 1 else "one",
        ))  # fmt: skip
    return [dict(zip(names, values, strict=True)) for values in found]
