"""What a benchmark shows on a terminal: its leaderboard, where the page is, and why rows do not forget."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.cli.output import WIDTH, show, table_

Record = Mapping[str, Any]


def show_bench(record: Record, json: bool, pages: Mapping[str, Path] | None = None) -> None:
    """The leaderboard, or with ``json`` the record alone.

    Args:
        pages: what :func:`expunge.bench.page.write_page` wrote.
    """
    from expunge.bench.page_rows import finite, layout, ordered, word_of

    record = finite(record)
    if json:
        show(record, True)
        if pages:
            print(f"Page: {pages['html']}", file=sys.stderr)
        return
    lines = ordered(record)
    columns = layout(record).terminal
    weak = (record.get("source") or {}).get("weak")
    compared = [("retrained", record.get("reference"), ""), ("original", record.get("source"), "weak" if weak else "")]
    rows = [[name, *_cells(row, columns), verdict] for name, row, verdict in compared if row]
    rows += [[]] if rows and lines else []
    rows += [[line.name, *_cells(line.row, columns), line.row["verdict"]] for line in lines]
    seeds, sets = record["seeds"], record["forget_sets"]
    title = f"{record['title']} ({seeds} seed{'s' * (seeds > 1)}, {sets} forget set{'s' * (sets > 1)})"
    table_(title, ("method", *columns, "outcome"), rows, numbers=tuple(columns), tight=True)
    print()
    if weak:
        print(_folded(weak))
    for line in lines:
        if word_of(line.row) != "forgets" or "@" in line.name:
            print(
                _folded(
                    f"{line.name} {_said(line.row['verdict'])}: {line.row.get('reason') or 'no reason is recorded.'}"
                )
            )
    if record.get("quick"):
        print("This was a quick run: it tests that everything works, and its numbers are no result.")
    if record["jobs"] > 1:
        print(f"{record['jobs']} cells ran at a time, so seconds are longer than for a single one.")
    for name, path in (pages or {}).items():
        print(f"{_PAGES.get(name, name)}: {path}")


_PAGES = {"html": "Page", "markdown": "Leaderboard", "json": "Record"}


def _cells(row: Record, columns: Mapping[str, str]) -> list[str]:
    from expunge.bench.page_rows import known, written

    cells = []
    for name in columns.values():
        item = known(row, name)
        text = written(name, item["mean"] if item else None)
        if item and name == "gap_per_seed" and item["low"] is not None and item["low"] < item["high"]:
            text += f" ± {written(name, (item['high'] - item['low']) / 2)}"
        cells.append(text)
    return cells


def _said(verdict: str) -> str:
    """A verdict as the verb of a sentence."""
    word, _, rest = verdict.partition(" ")
    return f"was {verdict}" if word == "refused" or verdict == "not run" else f"{word} {rest}".strip()


def _folded(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def show_recipes(rows: Sequence[Record], json: bool) -> None:
    """The recipes that there are, and what each needs."""
    if json:
        show(list(rows), True)
        return
    if not rows:
        print("This version contains no recipe; give a YAML file.")
        return
    cells = [[row["name"], row["title"], ", ".join(row["marks"])] for row in rows]
    table_("Recipes", ("name", "title", "needs"), cells)
    print("Run one of them: expunge bench NAME.")
