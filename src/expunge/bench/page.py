"""A benchmark's record as files that people read: one self-contained page, a leaderboard in Markdown, and the record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from expunge.bench.page_rows import finite
from expunge.bench.page_sheet import sheet
from expunge.core.files import make_folder, write_atomic
from expunge.report.html import environment_of, page_style

Record = Mapping[str, Any]

_WORDS = {
    "leaderboard": (
        "Means with 95 % intervals (Student's, over seeds), cut at values that cannot be; under each head what the number "
        "should be, and what chance alone does to it"
    ),
    "others": (
        "The other numbers of the same rows, in the same order; the interval of KLOM is over forgotten rows, that of "
        "U-LiRA over rows and models"
    ),
    "published": (
        "These are not one comparison: model, data, splits, training, tuning or the way a number is counted may differ from "
        "ours. They stand here to show whether our numbers are of the same kind."
    ),
    "cost": "Seconds of one process on the machine that this ran on",
    "settings": "As they ran, with what tuning found; a row that was not run shows none",
    "definitions": "From the catalogue of metrics; two names that exclude each other never stand in one average",
}
_SINGLE = ". Where no interval stands, there is a single seed, or the number is exact"


def write_page(record: Record, folder: Path) -> dict[str, Path]:
    """Write ``index.html``, ``leaderboard.md`` and ``record.json`` into ``folder``; equal records give equal bytes.

    Args:
        record: what :func:`expunge.bench.run.bench` returns.
        folder: made where it is missing.

    Returns:
        The paths by ``html``, ``markdown`` and ``json``.

    Raises:
        InputError: if the folder cannot be written.
    """
    record, folder = finite(record), make_folder(folder)
    as_json = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
    files = {"index.html": html(record), "leaderboard.md": markdown(record), "record.json": as_json}
    for file, content in files.items():
        write_atomic(folder / file, content.encode())
    return dict(zip(("html", "markdown", "json"), (folder / file for file in files), strict=True))


def html(record: Record) -> str:
    """The page: no scripts, nothing from elsewhere. A function of the record alone."""
    shown = sheet(finite(record))
    template, style = _template()
    return template.render(shown, words=_words(shown), style=style)


def _words(shown: Mapping[str, Any]) -> dict[str, str]:
    single = _SINGLE if shown["leaderboard"]["single"] else ""
    return _WORDS | {"leaderboard": f"{_WORDS['leaderboard']}. {shown['order']}{single}"}


@cache
def _template() -> tuple[Any, str]:
    """The layout, and the style of the evidence report, which this page shares."""
    from markupsafe import Markup, escape

    environment = environment_of("expunge.bench")

    def breakable(text: str) -> Markup:
        """A name that may break after a plus sign."""
        return Markup(re.sub(r"(\+)", r"\1<wbr>", str(escape(text))))

    environment.filters["breakable"] = breakable
    return environment.get_template("bench.html.j2"), page_style()


# --- Markdown -----------------------------------------------------------------------------------------------------------


def markdown(record: Record) -> str:
    """The same tables as Markdown, for a repository or a pull request."""
    shown = sheet(finite(record), figures=False)
    words = _words(shown)
    parts = [f"# {_md(shown['title'])}", f"Recipe {_md(shown['recipe'])}.", _md(shown["summary"])]
    parts += [_md(shown["note"])] if shown["note"] else []
    parts += ["## Leaderboard", *_board(shown["leaderboard"], words["leaderboard"])]
    parts += ["## Why each row has its outcome"]
    parts += ["\n".join(f"- **{_md(r['name'])}**: {_md(r['verdict'])}. {_md(r['text'])}" for r in shown["reasons"])]
    if shown["others"]:
        parts += ["## Other numbers", *_board(shown["others"], words["others"])]
    if published := shown["published"]:
        rows = []
        for item in published["rows"]:
            rows += [[item["name"], item["source"], *item["published"]], ["", "here", *item["ours"]]]
        parts += ["## What papers print", _md(words["published"]), *map(_md, published["differs"])]
        parts += [_table(["Method", "From", *published["names"]], rows)]
    parts += ["## What it cost", _table(["", words["cost"]], shown["cost"])]
    parts += [
        "## Settings of the rows",
        _table(["Row", "Settings", "Tuned"], [[*r[:2], r[2] or "no"] for r in shown["settings"]]),
    ]
    parts += ["## What each number means"]
    names = ("name", "title", "unit", "direction", "ideal", "null", "headline")
    chance = "What chance does to perfect unlearning"
    heads = ["Name", "What it is", "Unit", "Better", "Ideal", chance, "Models for a headline"]
    parts += [_table(heads, [[item[name] for name in names] for item in shown["definitions"]])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _board(table: Mapping[str, Any], caption: str) -> list[str]:
    def row(item: Mapping[str, Any]) -> list[str]:
        cells = [c["value"] + c["mark"] + (f" ({'; '.join(c['notes'])})" if c["notes"] else "") for c in item["cells"]]
        return [str(item["number"]), item["name"], *cells, f"{item['symbol']} {item['verdict']}".strip()]

    heads = ["No.", "Method", *(f"{c['heading']}{c['mark']}: {c['target']}" for c in table["columns"]), "Outcome"]
    rows = [row(item) for item in [*table["top"], *(item for group in table["groups"] for item in group["rows"])]]
    notes = "\n".join(f"- {mark} {_md(text)}." for mark, text in table["notes"])
    return [_md(caption) + ".", _table(heads, rows), notes]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell if cell == '---' else _md(cell) for cell in line)} |" for line in lines)


def _md(text: str) -> str:
    """``text`` that no Markdown reader takes for markup, a link or a cell's end.

    >>> _md("a|b <script> [x]")
    'a\\\\|b &lt;script&gt; \\\\[x]'
    """
    text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[]|(?<![\w])_|_(?!\w))", r"\\\1", text)
