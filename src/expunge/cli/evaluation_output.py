"""What a person sees of an evaluation: every metric on every set, beside a retrained model where there is one."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.cli.output import WIDTH, number, show, table_
from expunge.core.errors import InputError
from expunge.metrics.catalogue import METRICS

CELL, ABREAST = 16, 72  # characters of a share with its interval; of all columns of a table: TOFU has four sets


def named_sets(items: Sequence[str], suite: str | None, on_job: bool) -> dict[str, Path]:
    """``NAME=FILE`` as a mapping.

    Raises:
        InputError: for anything else, a name that is taken twice or has other signs than letters, digits, _ and -, a file that
            is not there, or a suite that there is not.
    """
    if suite not in (known := (None, "custom") if on_job else (None, "tofu", "custom")):
        raise InputError(f"Expected a suite among {', '.join(filter(None, known))}; got {suite!r}.")
    found: dict[str, Path] = {}
    for item in items:
        name, equals, place = item.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in found or not Path(place).exists():
            raise InputError(f"Expected --on NAME=FILE, each name once and each file there; got {item!r:.120}.")
        found[name] = Path(place)
    return found


def show_evaluation(result: Mapping[str, Any], json: bool) -> None:
    """What a model still knows, set by set; what has no number, and why; what must not be overlooked."""
    if json:
        show(result, True)
        return
    split = f", {result['split']} forgotten" if result.get("split") else ""
    asked = f"{result['suite']}{split}" if "suite" in result else result["job"]
    print(f"{result['model']}, {asked}; 95 % intervals over records")
    numbers = result["measurements"]
    for columns in _abreast({name: f"{_words(name)} ({counts['n']})" for name, counts in result["sets"].items()}):
        heads = list(columns.values())
        rows = _metric_rows(numbers, list(columns), result["retrained"] is not None)
        table_("", ("", *heads), rows, numbers=heads, tight=True)
    whole = [item for item in numbers if item["set"] is None]
    if whole:
        rows = [[_label(item["metric"]), number(item["value"]), *_ends(item), number(item["ideal"]), str(item["n"])]
                for item in whole]  # fmt: skip
        columns = ("sets together", "value", "from", "to", "retrained", "records")
        table_("", columns, rows, numbers=columns[1:])
    for name, counts in result["sets"].items():
        left_out = [f"{count} dropped ({reason})" for reason, count in counts.get("dropped", {}).items()]
        cut = counts.get("cut", 0) + counts.get("reworded_cut", 0)
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


def _metric_rows(numbers: Sequence[Mapping[str, Any]], sets: Sequence[str], retrained: bool) -> list[list[str]]:
    """A row for each metric over some sets, and one below it for the retrained model."""
    rows = []
    by_place = {(item["metric"], item["set"]): item for item in numbers}
    for metric in dict.fromkeys(metric for metric, of in by_place if of is not None):
        cells = [by_place.get((metric, name)) for name in sets]
        if any(cells):
            rows.append([_label(metric), *(_with_ends(item) if item else "" for item in cells)])
            if retrained:
                rows.append(["  retrained", *(f"{item['ideal']:.3f}" if item else "" for item in cells)])
    return rows


def _ends(item: Mapping[str, Any]) -> list[str]:
    return [number(end, 3) for end in item["interval"] or (None, None)]


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else _words(metric)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _with_ends(item: Mapping[str, Any]) -> str:
    """A value and its interval, short enough for four abreast."""
    if item["interval"] is None:
        return f"{item['value']:.3f}"
    low, high = item["interval"]
    return f"{item['value']:.3f} [{_short(low)}, {_short(high)}]"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2f}".removeprefix("0")
