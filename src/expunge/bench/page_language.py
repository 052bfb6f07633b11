"""What the page says and draws of language models: what each row still answers, and what a request's wording broke."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.bench.page_rows import bounds, heading, interval, known, ordered, written
from expunge.report.drawing import ACCENT, GREY, INK, PALE, Figure, canvas, finished, styled

Record = Mapping[str, Any]

WIDTH = 9.2  # inches, as all figures of the page
ORDER = "By method, in the order of the recipe"
MEANING = (
    "“Forgets” says that questions about what was to be forgotten score below half of what the source scores, and nothing "
    "about what else the model still knows; +su is the scope term, @attack a request whose questions carry everyday words."
)
SAID = {  # verdict → what so many rows do, for one and for several
    "forgets": ("forgets", "forget"),
    "breaks on trigger words": ("breaks on trigger words", "break on trigger words"),
    "under-forgets": ("still answers what it should forget", "still answer what they should forget"),
    "destroys": ("destroys the model", "destroy the model"),
    "refused": ("was refused", "were refused"),
    "failed": ("failed", "failed"),
    "not run": ("was not run", "were not run"),
}
DRAWN = {"forget": ("X", GREY, GREY), "clean": ("o", ACCENT, "white"), "trigger": ("o", ACCENT, ACCENT)}
_APART = 0.2  # of a row's height, between its three numbers


@styled
def answers(record: Record) -> Figure | None:
    """What each row still answers: forgotten questions, retained ones, and these with trigger words."""
    lines = [line for line in ordered(record) if all(line.metric(name) for name in DRAWN)]
    if not lines:
        return None
    rows = [("source", record.get("source")), *((line.name, line.row) for line in lines)]
    rows = [(name, row) for name, row in rows if row]
    figure = canvas(WIDTH, 0.9 + 0.32 * len(rows))
    axes = figure.add_subplot()
    for at, (_, row) in enumerate(rows):
        axes.axhline(at, color=PALE, linewidth=1, zorder=0)
        for place, (name, (mark, colour, face)) in enumerate(DRAWN.items(), -1):
            if (item := known(row, name)) is None:
                continue
            y = at + _APART * place
            if pair := bounds(name, item):
                axes.plot(pair, [y, y], color=colour, linewidth=1.4, alpha=0.45, solid_capstyle="butt", zorder=3)
            axes.plot([item["mean"]], [y], mark, color=colour, markerfacecolor=face, markeredgecolor=colour, markersize=6,
                      zorder=5)  # fmt: skip
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Questions answered right (share, or ROUGE-L recall)")
    _legend(axes)
    return finished(
        figure, "bench language answers", f"What is still answered. {_listed(rows)}.",
        "Crosses should be far left and both circles far right; where the filled circle has left the open one, everyday words "
        "have become part of what the model unlearnt. Bars are 95 % intervals over seeds, cut at 0 and 1.",
    )  # fmt: skip


def _legend(axes: Any) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=colour, marker=mark, markerfacecolor=face, markersize=6, linestyle="", label=heading(name))
        for name, (mark, colour, face) in DRAWN.items()
    ]
    axes.legend(
        handles=marks, ncols=len(marks), frameon=False, borderpad=0, handletextpad=0.2, columnspacing=1.3, labelcolor=INK,
        loc="lower right", bbox_to_anchor=(1, 1),
    )  # fmt: skip


def _listed(rows: list[tuple[str, Record]]) -> str:
    """All values in words, for those who cannot see them."""
    told = []
    for who, row in rows:
        parts = []
        for name in DRAWN:
            if item := known(row, name):
                between = interval(name, item)
                parts.append(f"{heading(name)} {written(name, item['mean'])}" + (f" ({between})" if between else ""))
        told.append(f"{who}: {', '.join(parts)}")
    return "; ".join(told)
