"""Results of a benchmark for other programs: cells as CSV or Parquet, the leaderboard as a LaTeX table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.bench.finished import FORMAT
from expunge.bench.page_plots import draw
from expunge.bench.page_rows import finite, layout, ordered
from expunge.core.errors import ExtraMissingError, InputError
from expunge.core.files import make_folder, write_atomic
from expunge.report.drawing import FORMS

Record = Mapping[str, Any]
NAMES = ("recipe", "row", "forget_set", "seed", "trial", "n_forget", "status", "error")


def frame(folder: Path) -> Any:
    """Cells in the order in which they were finished: what they are, their settings as JSON, and each of their numbers.

    ``row`` is the method, ``retrain`` or ``source`` (the original model). ``trial`` is empty for cells of a table, and tells
    trials of ``--tune`` and the retrained models that these are compared with (-1) apart. A folder keeps every cell that was
    ever finished in it: group by ``settings`` too where a row was measured with several. What a table derives from several
    cells (gap, tug of war, outcome) is in its record. A number that a cell lacks is missing (NaN); a method that refused or
    failed has a row that says why (``error``).

    Args:
        folder: of the results.

    Raises:
        InputError: for a folder without results of this version.
    """
    import pandas as pd

    path = folder / "results.jsonl"
    if not path.is_file():
        raise InputError(f"There are no results in {folder}; expunge bench writes them to bench-results/NAME.")
    content = path.read_bytes()
    try:
        head, *cells = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
        if head["format"] != FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no results file of this version.") from None
    rows = []
    for cell in cells:
        settings = cell.get("method", {}).get("settings")
        plain = {name: cell.get(name) for name in NAMES}
        rows.append(
            {**plain, "settings": None if settings is None else json.dumps(settings), **cell.get("metrics", {})}
        )
    return pd.DataFrame(
        rows, columns=list(dict.fromkeys([*NAMES, "settings", *(name for row in rows for name in row)]))
    )


def _csv(record: Record, folder: Path) -> Path:
    path = folder / "cells.csv"
    write_atomic(path, frame(folder).to_csv(index=False).encode())
    return path


def _parquet(record: Record, folder: Path) -> Path:
    path = folder / "cells.parquet"
    try:
        content = frame(folder).to_parquet(None, index=False)
    except ImportError:
        raise ExtraMissingError("arrow", "pyarrow") from None
    write_atomic(path, content)
    return path


def _latex(record: Record, folder: Path) -> Path:
    """The columns that the terminal shows: mean, and half of the interval where there is one; what that is, and a weak original
    model, stand in the caption. LaTeX needs the package booktabs.
    """
    import pandas as pd

    record = finite(record)
    heads = layout(record).terminal
    lines = [("retrained", record["reference"]), ("original", record["source"])]
    rows = [
        {
            "method": name,
            **{head: _cell(row["metrics"].get(of)) for head, of in heads.items()},
            "outcome": row.get("verdict", ""),
        }
        for name, row in [*lines, *((line.name, line.row) for line in ordered(record))]
        if row
    ]
    form = "l" + "r" * len(heads) + "l"
    weak = (record.get("source") or {}).get("weak")
    caption = (
        f"{record['title']}. {record['seeds']} seed(s), {record['forget_sets']} forget set(s); ± is half of the 95 % interval "
        f"of the mean over seeds.{f' {weak}' if weak else ''}"
    )
    text = pd.DataFrame(rows).to_latex(
        index=False, escape=True, caption=_escaped(caption), label=f"tab:{record['recipe']}", column_format=form
    )
    path = folder / "leaderboard.tex"
    write_atomic(path, text.replace("±", "$\\pm$").replace("–", "--").encode())
    return path


def _escaped(text: str) -> str:
    """A caption, which pandas leaves as it is."""
    return re.sub(r"([%&_#])", r"\\\1", text)


def _cell(item: Record | None) -> str:
    """A mean with half of its interval; a dash where there is no number."""
    if item is None or item["mean"] is None:
        return "–"
    if item["low"] is None or item["high"] is None or item["low"] == item["high"]:
        return f"{item['mean']:.4g}"
    return f"{item['mean']:.4g} ± {(item['high'] - item['low']) / 2:.2g}"


def plots(record: Record, folder: Path, forms: Sequence[str]) -> list[Path]:
    """Each figure of the page as a file ``plots/NAME.FORM``.

    Args:
        record: what :func:`expunge.bench.run.bench` returns.
        folder: of the results.
        forms: of :data:`expunge.report.drawing.FORMS`.

    Raises:
        InputError: for another form.
    """
    must_be_forms(forms)
    record, place = finite(record), make_folder(folder / "plots")
    drawn = {shown.name: figure for shown in layout(record).figures if (figure := draw(record, shown)) is not None}
    written = []
    for name, figure in drawn.items():
        for form in dict.fromkeys(forms):
            written.append(place / f"{name}.{form}")
            write_atomic(written[-1], figure.saved(form))
    return written


def must_be_forms(forms: Sequence[str]) -> None:
    """Raise InputError for forms of plots that there are not."""
    bad = [form for form in forms if form not in FORMS]
    if bad or not forms:
        raise InputError(f"Expected --plots {', '.join(FORMS)}, separated by commas; got {', '.join(bad) or 'none'}.")


# What ``--export`` may say: each writes one file into the folder of the results, and returns its path.
EXPORTS: Mapping[str, Callable[[Record, Path], Path]] = {"csv": _csv, "latex": _latex, "parquet": _parquet}
