"""A figure of how far every measured value lies from the retrained model's, in units of what two retrainings differ by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.report import numbers as say
from expunge.report.drawing import ACCENT, GREY, INK, LIGHT, Figure, canvas, finished, styled
from expunge.report.vocabulary import label

Record = Mapping[str, Any]
WIDEST = 8.0  # units: what lies further out is drawn at the edge with its number


def differences(run: Record) -> Figure | None:
    """Of every value that has a retrained one beside it and a spread of retrainings; ``None`` for fewer than two.

    Of a model with several views there is none: a figure for each would bury the page.
    """
    items = [
        item for item in run["evidence"]["measurements"]
        if item["view"] is None and item["value"] is not None and item["ideal"] is not None and item["null"]
    ]  # fmt: skip
    lines = [
        (label(item), *(None if item[key] is None else (item[key] - item["ideal"]) / item["null"] for key in KEYS))
        for item in items
    ]
    return _drawn(f"differences {run['name']}", lines) if len(lines) > 1 else None


KEYS = ("original", "value")
Line = tuple[str, float | None, float | None]


@styled
def _drawn(name: str, lines: list[Line]) -> Figure:
    seen = [abs(each) for line in lines for each in line[1:] if each is not None]
    edge = min(WIDEST, max(2.0, *seen) * 1.1)
    figure = canvas(7.2, 0.95 + 0.3 * len(lines))
    axes = figure.add_subplot()
    axes.axvspan(-1, 1, color=LIGHT, linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for at, (_, before, now) in enumerate(lines):
        if before is not None:
            axes.plot([_inside(before, edge)], [at], "o", color="none", markeredgecolor=GREY, markersize=8.5, zorder=3)
        if now is not None:
            axes.plot([0, _inside(now, edge)], [at, at], color=ACCENT, linewidth=1.2, zorder=2)
            axes.plot([_inside(now, edge)], [at], "o", color=ACCENT, markersize=6, zorder=4)
            if abs(now) > edge:
                axes.annotate(
                    say.number(now), (_inside(now, edge), at), xytext=(-9 if now > 0 else 9, 0), textcoords="offset points",
                    ha="right" if now > 0 else "left", va="bottom", color=INK, fontsize=8,
                )  # fmt: skip
    axes.set_yticks(range(len(lines)), [text for text, *_ in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlim(-1.04 * edge, 1.04 * edge)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Difference from the retrained model, in units of what two retrainings differ by")
    handles = [
        axes.plot([], [], "o", color=ACCENT, markersize=6, label="released model")[0],
        *(
            axes.plot([], [], "o", color="none", markeredgecolor=GREY, markersize=8.5, label="before")
            if any(before is not None for _, before, _ in lines)
            else []
        ),
    ]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderpad=0,
                handletextpad=0.3, columnspacing=1.6, labelcolor=INK)  # fmt: skip
    listed = "; ".join(
        f"{text}: {_told(before, 'before')}{_told(now, 'released')}".rstrip(", ") for text, before, now in lines
    )
    out = " What lies further out stands at the edge, with its number." if any(each > edge for each in seen) else ""
    return finished(
        figure, name, f"Differences from the retrained model in units of what two retrainings differ by. {listed}.",
        "How far each value of the table lies from the retrained model's. Inside the band a difference is what chance makes of "
        f"two retrainings; of a model that forgot most dots lie there.{out}",
    )  # fmt: skip


def _inside(value: float, edge: float) -> float:
    return max(-edge, min(edge, value))


def _told(value: float | None, whose: str) -> str:
    return "" if value is None else f"{whose} {say.number(value)}, "
