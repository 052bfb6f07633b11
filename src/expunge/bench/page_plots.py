"""Figures of a benchmark, as its layout asks for them: points with intervals, retraining with what chance does to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from expunge.bench.page_rows import Line, bounds, heading, interval, known, limits, ordered, shown_as, written
from expunge.metrics.metric_spec import RETRAINED
from expunge.metrics.outcomes import Word
from expunge.modalities.layout import Dots, Panel
from expunge.report import numbers as say
from expunge.report.drawing import ACCENT, GREY, INK, LIGHT, PALE, Figure, canvas, finished, styled

Record = Mapping[str, Any]

WIDTH = 9.2  # inches: letters come out as large as the text around
_ROOM = 0.06  # of an axis, left free at its ends
_SOLE, _SEVERAL = 0.235, 0.32  # inches of a line with one number, and with several
_APART = 0.2  # of a line's height, between its numbers
_SEVERAL_MARKS = (("X", GREY, GREY), ("o", ACCENT, "white"), ("o", ACCENT, ACCENT))
_MODELS = {"retrained": ("D", GREY, GREY), "original": ("s", GREY, "white")}
_BANDS = " Grey: what chance does to retraining."
_BEYOND = " A triangle lies beyond the axes."
_CUT = " Some bars go on beyond the axes."
Mark = tuple[str, str, str]  # shape, colour, face


@dataclass(frozen=True)
class _Span:
    """What an axis shows, and whether it is logarithmic."""

    low: float
    high: float
    log: bool = False

    def clamp(self, value: float) -> float:
        return min(self.high, max(self.low, value))

    @property
    def ends(self) -> tuple[float, float]:
        """A little more than the span."""
        if self.log:
            factor = (self.high / self.low) ** _ROOM
            return self.low / factor, self.high * factor
        room = _ROOM * (self.high - self.low)
        return self.low - room, self.high + room


def draw(record: Record, shown: Dots) -> Figure | None:
    """``shown`` of ``record``; ``None`` where there is nothing to show in its first panel."""
    return _drawn(record, asdict(shown))


@styled
def _drawn(record: Record, layout: Mapping[str, Any]) -> Figure | None:
    panels_of = tuple(Panel(tuple(panel["metrics"]), panel["label"]) for panel in layout["panels"])
    shown = Dots(**{**layout, "panels": panels_of})
    panels = [panel for panel in shown.panels if _lines(record, [panel])]
    if shown.panels[0] not in panels:
        return None
    lines = _lines(record, panels)
    first = panels[0].metrics
    models = [(name, row) for name in _MODELS if (row := _model(record, name)) and all(known(row, m) for m in first)]
    rows = [*models, *((line.name, line.row) for line in lines)]
    several = max(len(panel.metrics) for panel in panels) > 1
    figure = canvas(WIDTH, 1.0 + (_SEVERAL if several else _SOLE) * len(rows))
    spans: dict[str, _Span] = {}
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        span = _span(record, panel, lines)
        spans |= dict.fromkeys(panel.metrics, span)
        _background(axes, record, panel, span, [name for name, _ in rows])
        for at, (name, row) in enumerate(rows):
            if len(panel.metrics) > 1:
                marks: Sequence[Mark] = _SEVERAL_MARKS
            else:
                marks = [_MODELS[name] if at < len(models) else _mark(lines[at - len(models)].word)]
            for place, (metric, mark) in enumerate(zip(panel.metrics, marks, strict=True)):
                if item := known(row, metric):
                    _point(axes, at + _APART * (place - (len(marks) - 1) / 2), metric, item, mark, span)
    named = [(name, _MODELS[name]) for name, _ in models]
    if several:
        named = [(heading(name), mark) for name, mark in zip(panels[0].metrics, _SEVERAL_MARKS, strict=True)]
    else:
        named = [*dict.fromkeys((_word(line.word), _mark(line.word)) for line in lines), *named]
    _legend(figure, named)
    names = [name for panel in panels for name in panel.metrics]
    listed = "; ".join(f"{who}: {values}" for who, row in rows if (values := _listed(row, names)))
    bands = _BANDS if any(_band(record, name) for name in names) else ""
    caption = f"{shown.caption}{bands}{_beyond(lines, spans)}"
    return finished(figure, f"bench {shown.name}", f"{shown.title}. {listed}.", caption)


def _lines(record: Record, panels: Sequence[Panel]) -> list[Line]:
    """Rows that have all numbers of some panel, in the order of the table."""
    return [line for line in ordered(record) if any(all(map(line.metric, panel.metrics)) for panel in panels)]


def _model(record: Record, name: str) -> Record | None:
    return record.get({"retrained": "reference", "original": "source"}[name])


def _band(record: Record, name: str) -> tuple[float, float] | None:
    """What chance does to retraining: around the retrained value, or from an ideal that is the same everywhere."""
    ideal, item = shown_as(name).ideal, known(record.get("reference"), name)
    if item is None or item["null"] is None:
        return None
    if ideal == RETRAINED:
        return item["mean"] - item["null"], item["mean"] + item["null"]
    return (float(ideal), ideal + item["null"]) if isinstance(ideal, int | float) else None


def _span(record: Record, panel: Panel, lines: Sequence[Line]) -> _Span:
    """Around retrained model, original and ideal, and the rows that are not far off; all of a scale that several share.

    Intervals count as far as the points themselves spread.
    """
    name = panel.metrics[0]
    ideal, (low, high) = shown_as(name).ideal, limits(name)
    if len(panel.metrics) > 1 and math.isfinite(high):
        return _Span(low, high)
    there = [(line.word, item) for line in lines if (item := line.metric(name))]
    if shown_as(name).unit == "seconds":
        again = known(record.get("reference"), name)
        seen = [item["mean"] for item in [*(item for _, item in there), again] if item and item["mean"] > 0] or [1.0]
        return _Span(min(seen) / 1.6, max(seen) * 1.6, True)
    near = [*(_band(record, name) or ())]
    if isinstance(ideal, int | float):
        near.append(float(ideal))
    else:
        near += [item["mean"] for model in _MODELS if (item := known(_model(record, model), name))]
    far = (Word.UTILITY_COLLAPSE, Word.OVER_FORGETS)
    items = [item for word, item in there if word not in far] or [item for _, item in there]
    points = [*near, *(item["mean"] for item in items)]
    low, high = min(points), max(points)
    reach = max(high - low, 1.0 if limits(name)[1] == 100 else 0.1)  # where all are equal, a little room
    items += [item for _, item in there if low - reach <= item["mean"] <= high + reach and item not in items]
    low, high = min([low, *(item["mean"] for item in items)]), max([high, *(item["mean"] for item in items)])
    ends = [end for item in items for end in (bounds(name, item) or ())]
    low = min([low, *(max(end, low - reach) for end in ends)])
    high = max([high, *(min(end, high + reach) for end in ends)])
    return _Span(low, high) if high - low > 1e-9 else _Span(low - 0.5 * reach, high + 0.5 * reach)


def _background(axes: Any, record: Record, panel: Panel, span: _Span, names: Sequence[str]) -> None:
    """The axis, a line for each row, the retrained value and what chance does to it."""
    if span.log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: say.number(value)))
    if len(panel.metrics) == 1:
        name, ideal = panel.metrics[0], known(record.get("reference"), panel.metrics[0])
        if band := _band(record, name):
            axes.axvspan(*band, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)
        if shown_as(name).ideal == RETRAINED and ideal:
            axes.axvline(ideal["mean"], color=GREY, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for at in range(len(names)):
        axes.axhline(at, color=PALE, linewidth=1, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(*span.ends)
    begins = not span.log and span.ends[0] > 0
    axes.set_xlabel(f"{panel.label}; from {say.number(span.ends[0])}" if begins else panel.label)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _point(axes: Any, y: float, name: str, item: Record, mark: Mark, span: _Span) -> None:
    """A number with its interval; beyond the axis a triangle at the edge with the number beside it."""
    shape, colour, face = mark
    value = span.clamp(item["mean"])
    if value != item["mean"]:
        right = item["mean"] > value
        shape = ">" if right else "<"
        axes.annotate(
            written(name, item["mean"]), (value, y), xytext=(-7 if right else 7, 0), textcoords="offset points",
            ha="right" if right else "left", va="center", color=GREY,
        )  # fmt: skip
    elif pair := bounds(name, item):
        axes.plot([span.clamp(end) for end in pair], [y, y], color=colour, linewidth=1.5, alpha=0.5, zorder=3,
                  solid_capstyle="butt")  # fmt: skip
    axes.plot([value], [y], shape, color=colour, markerfacecolor=face, markeredgecolor=colour, markersize=6, zorder=5)


def _mark(word: str) -> Mark:
    """The mark of an outcome."""
    if word == Word.UTILITY_COLLAPSE:
        return "X", GREY, GREY
    return "o", ACCENT, ACCENT if word == Word.FORGETS else "white"


def _word(word: str) -> str:
    """What a legend calls the mark of an outcome."""
    return word if word in (Word.FORGETS, Word.UTILITY_COLLAPSE) else "does not, or cannot be decided"


def _legend(figure: Any, named: Sequence[tuple[str, Mark]]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=colour, marker=shape, markerfacecolor=face, markersize=6, linestyle="", label=name)
        for name, (shape, colour, face) in named
    ]
    figure.legend(
        handles=marks, ncols=len(marks), frameon=False, borderpad=0, handletextpad=0.2, columnspacing=1.3, labelcolor=INK,
        loc="outside upper right",
    )  # fmt: skip


def _listed(row: Record, names: Sequence[str]) -> str:
    """All values in words, for those who cannot see them."""
    parts = []
    for name in names:
        if item := known(row, name):
            between = interval(name, item)
            parts.append(f"{heading(name)} {written(name, item['mean'])}" + (f" ({between})" if between else ""))
    return ", ".join(parts)


def _beyond(lines: Sequence[Line], spans: Mapping[str, _Span]) -> str:
    """What the reader must know of points and bars that the axes do not hold; empty where they hold all."""
    found = [(span, name, item) for line in lines for name, span in spans.items() if (item := line.metric(name))]
    held = [each for each in found if each[0].clamp(each[2]["mean"]) == each[2]["mean"]]
    cut = any(span.clamp(end) != end for span, name, item in held for end in bounds(name, item) or ())
    return (_BEYOND if len(held) < len(found) else "") + (_CUT if cut else "")
