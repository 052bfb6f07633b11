"""Figures of a benchmark: every point with its interval, retraining with what chance alone does to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.bench.page_labels import place_labels
from expunge.bench.page_rows import Line, bounds, heading, interval, known, limits, ordered, written
from expunge.report import numbers as say
from expunge.report.drawing import ACCENT, GREY, INK, LIGHT, PALE, Figure, canvas, finished, styled

Record = Mapping[str, Any]

WIDTH = 9.2  # inches: letters come out as large as the text around
_ROOM = 0.06  # of an axis, left free at its ends
_BEYOND = "A triangle lies beyond the axes."
_CUT = "Some bars go on beyond the axes."


@dataclass(frozen=True)
class _Span:
    """What an axis shows, and what lies beyond."""

    low: float
    high: float

    def clamp(self, value: float) -> float:
        return min(self.high, max(self.low, value))


@styled
def gaps(record: Record) -> Figure | None:
    """Gap per seed of each row with its interval, beside what a retrained model itself has."""
    lines = _with(record, "gap_per_seed")
    if not lines:
        return None
    null = _null(record, "gap_per_seed")
    span = _span(lines, "gap_per_seed", [0.0, *([null] if null is not None else [])])
    figure = canvas(WIDTH, 0.9 + 0.235 * len(lines))
    axes = figure.add_subplot()
    if null is not None:
        axes.axvspan(0, null, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)
    for at, line in enumerate(lines):
        _dot(axes, at, line, "gap_per_seed", span)
    _names(axes, [line.name for line in lines], span)
    axes.set_xlabel("Average gap to retraining of one seed, in points of percent")
    _legend(axes, lines, False, False)
    chance = (
        "" if null is None else f" The grey band ends at {written('gap', null)}, the gap of a retrained model itself."
    )
    return finished(
        figure, "bench gaps", f"Gap per seed. {_listed(lines, ('gap_per_seed',))}.",
        "Gap per seed with its 95 % interval; less is better, but a small gap does not show that anything was forgotten: "
        f"the mark does.{chance}{_beyond(lines, {'gap_per_seed': span})}",
    )  # fmt: skip


@styled
def forgetting(record: Record) -> Figure | None:
    """Accuracy on forgotten rows against accuracy on retained rows."""
    lines = _with(record, "FA", "RA")
    if not lines:
        return None
    reference, source = record.get("reference"), record.get("source")
    spans = {}
    for name in ("FA", "RA"):
        near = [item["mean"] for row in (reference, source) if (item := known(row, name))]
        band = known(reference, name)
        if band and band["null"] is not None:
            near += [band["mean"] - band["null"], band["mean"] + band["null"]]
        spans[name] = _span(lines, name, near)
    drawn = _Scatter(lines, "FA", "RA", spans)
    of_fa, of_ra = known(reference, "FA"), known(reference, "RA")
    if of_fa and of_ra:
        drawn.band("x", of_fa)
        drawn.band("y", of_ra)
        drawn.model(of_fa["mean"], of_ra["mean"], "D", "retrained")
    before = known(source, "FA"), known(source, "RA")
    if before[0] and before[1]:
        drawn.model(before[0]["mean"], before[1]["mean"], "s", "source")
    drawn.axes.set_xlabel("Accuracy on the forgotten rows (FA, %)")
    drawn.axes.set_ylabel("Accuracy on the retained rows (RA, %)")
    drawn.finish(lines, bool(of_fa and of_ra), bool(before[0] and before[1]))
    bands = " Grey bands: what retrained models differ by." if of_fa and of_fa["null"] is not None else ""
    return finished(
        drawn.figure, "bench forgetting", f"FA and RA. {_listed(lines, ('FA', 'RA'), record)}.",
        "What is forgotten against what is kept; the aim is the retrained model, not the left edge. Bars are 95 % "
        f"intervals.{bands}{_beyond(lines, spans)}",
    )  # fmt: skip


@styled
def privacy(record: Record) -> Figure | None:
    """Both membership conventions, each in its own panel beside the retrained model."""
    names = [name for name in ("mia_entropy_member", "mia_svc_nonmember") if _with(record, name)]
    if not names:
        return None
    lines = [line for line in ordered(record) if any(line.metric(name) for name in names)]
    figure = canvas(WIDTH, 1.05 + 0.235 * (len(lines) + 2))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    reference, source = record.get("reference"), record.get("source")
    spans = {}
    for axes, name in zip(panels, names, strict=True):
        ideal, before = known(reference, name), known(source, name)
        near = [item["mean"] for item in (ideal, before) if item]
        if ideal and ideal["null"] is not None:
            near += [ideal["mean"] - ideal["null"], ideal["mean"] + ideal["null"]]
        span = spans[name] = _span(lines, name, near)
        if ideal:
            if ideal["null"] is not None:
                axes.axvspan(ideal["mean"] - ideal["null"], ideal["mean"] + ideal["null"], color=LIGHT, alpha=0.6,
                             linewidth=0, zorder=0)  # fmt: skip
            axes.axvline(ideal["mean"], color=GREY, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for at, (item, mark) in enumerate(((ideal, "D"), (before, "s"))):
            axes.axhline(at, color=PALE, linewidth=1, zorder=0)
            if item:
                axes.plot([item["mean"]], [at], mark, color=GREY if mark == "D" else "white", markeredgecolor=GREY,
                          markersize=6, zorder=4)  # fmt: skip
        for at, line in enumerate(lines, 2):
            _dot(axes, at, line, name, span)
        _names(axes, ["retrained", "source", *(line.name for line in lines)], span)
        count = "members" if name == "mia_entropy_member" else "non-members"
        axes.set_xlabel(f"Forgotten rows called {count} (%)\n{name}")
    there = [any(known(row, name) for name in names) for row in (reference, source)]
    _legend(figure, lines, there[0], there[1])
    return finished(
        figure, "bench privacy", f"Membership attacks. {_listed(lines, tuple(names), record)}.",
        "Two attacks that are both called MIA in papers and count opposite things. Neither should be 0 or 100: the aim is "
        f"the retrained model (dashed; band: what retrained models differ by).{_beyond(lines, spans)}",
    )  # fmt: skip


@styled
def cost(record: Record) -> Figure | None:
    """Gap per seed against seconds on a logarithmic axis, with what retraining takes."""
    lines = [line for line in _with(record, "gap_per_seed", "seconds") if line.row["metrics"]["seconds"]["mean"] > 0]
    if not lines:
        return None
    null, retrained = _null(record, "gap_per_seed"), known(record.get("reference"), "seconds")
    seconds = [line.row["metrics"]["seconds"]["mean"] for line in lines]
    line_at = retrained["mean"] if retrained and retrained["mean"] > 0 else None
    seen = [*seconds, *([line_at] if line_at else [])]
    spans = {
        "seconds": _Span(min(seen) / 1.6, max(seen) * 1.6),
        "gap_per_seed": _span(lines, "gap_per_seed", [0.0, *([null] if null is not None else [])]),
    }
    drawn = _Scatter(lines, "seconds", "gap_per_seed", spans, log=True)
    axes = drawn.axes
    if null is not None:
        axes.axhspan(0, null, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)
    if line_at is not None:
        axes.axvline(line_at, color=GREY, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.set_xlabel("Seconds of unlearning (log scale)")
    axes.set_ylabel("Gap per seed (points of percent)")
    drawn.finish(lines, False, False, "" if line_at is None else f"one retraining, {say.seconds(line_at)}")
    return finished(
        drawn.figure, "bench cost", f"Gap per seed and seconds. {_listed(lines, ('gap_per_seed', 'seconds'), record)}.",
        f"What the gap costs; bars are 95 % intervals."
        f"{'' if null is None else ' Grey band: the gap of a retrained model itself.'}{_beyond(lines, spans)}",
    )  # fmt: skip


# --- parts --------------------------------------------------------------------------------------------------------------


class _Scatter:
    """Numbered points with intervals, and beside them which number is which row."""

    def __init__(self, lines: Sequence[Line], x: str, y: str, spans: Mapping[str, _Span], log: bool = False):
        self.figure = canvas(WIDTH, max(4.2, 0.75 + 0.175 * len(lines)))
        self.axes, self.key = self.figure.subplots(1, 2, width_ratios=[3.4, 1])
        self.lines, self.x, self.y, self.spans = lines, x, y, spans
        self.others: list[tuple[float, float, str]] = []
        if log:
            _seconds(self.axes)
        self.axes.set_xlim(*_open(spans[x], log))
        self.axes.set_ylim(*_open(spans[y]))

    def band(self, axis: str, item: Record) -> None:
        """What chance does to the retrained value."""
        if item["null"] is not None:
            draw = self.axes.axvspan if axis == "x" else self.axes.axhspan
            low, high = item["mean"] - item["null"], item["mean"] + item["null"]
            draw(low, high, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)

    def model(self, x: float, y: float, mark: str, name: str) -> None:
        """A model that methods are compared with."""
        self.axes.plot(
            [x], [y], mark, color=GREY if mark == "D" else "white", markeredgecolor=GREY, markersize=7.5, zorder=3,
        )  # fmt: skip
        self.others.append((x, y, name))

    def finish(self, lines: Sequence[Line], retrained: bool, source: bool, dashed: str = "") -> None:
        """Points, their numbers where there is room, the key, and what the marks mean."""
        points = []
        for line in lines:
            at = [line.row["metrics"][name]["mean"] for name in (self.x, self.y)]
            x, y = (self.spans[name].clamp(value) for name, value in zip((self.x, self.y), at, strict=True))
            beyond = _triangle(at, [x, y])
            if not beyond:
                for name, swap in ((self.x, False), (self.y, True)):
                    pair = bounds(name, line.row["metrics"][name])
                    if pair:
                        ends = [self.spans[name].clamp(end) for end in pair]
                        along = ([x, x], ends) if swap else (ends, [y, y])
                        self.axes.plot(*along, color=_colour(line), linewidth=1.1, alpha=0.4, zorder=2)
            self.axes.plot([x], [y], beyond or "o", zorder=5, **_look(line, 6 if not beyond else 7))
            points.append((x, y, str(line.number)))
        place_labels(self.figure, self.axes, points + self.others, INK, GREY)
        _legend(self.axes, lines, retrained, source, dashed)
        self._key()

    def _key(self) -> None:
        self.key.set_axis_off()
        rows = max(len(self.lines), 20)
        self.key.set_xlim(0, 1)
        self.key.set_ylim(rows - 0.4, -0.6)
        for at, line in enumerate(self.lines):
            self.key.annotate(str(line.number), (0.13, at), ha="right", va="center", color=INK, annotation_clip=False)
            self.key.plot([0.19], [at], _mark(line), clip_on=False, **_look(line, 5.5))
            self.key.annotate(line.name, (0.25, at), ha="left", va="center", color=INK, annotation_clip=False)


def _with(record: Record, *names: str) -> list[Line]:
    """Rows that have all of ``names``, in the order of the table."""
    return [line for line in ordered(record) if all(line.metric(name) for name in names)]


def _null(record: Record, name: str) -> float | None:
    """What chance gives, which is one value for all rows."""
    row: Record | None = known(record.get("reference"), name)
    rows = [row] if row else [item for line in ordered(record) if (item := line.metric(name))]
    return rows[0]["null"] if rows else None


def _span(lines: Sequence[Line], name: str, near: Sequence[float]) -> _Span:
    """Around ``near`` and the rows that are not far off; intervals count as far as the points themselves spread."""
    there = [(line.word, item) for line in lines if (item := line.metric(name))]
    items = [item for word, item in there if word not in ("destroys", "over-forgets")] or [item for _, item in there]
    points = [*near, *(item["mean"] for item in items)]
    low, high = min(points), max(points)
    reach = max(high - low, 1.0 if limits(name)[1] == 100 else 0.1)  # where all are equal, a little room
    items += [item for _, item in there if low - reach <= item["mean"] <= high + reach and item not in items]
    low, high = min([low, *(item["mean"] for item in items)]), max([high, *(item["mean"] for item in items)])
    ends = [end for item in items for end in (bounds(name, item) or ())]
    low = min([low, *(max(end, low - reach) for end in ends)])
    high = max([high, *(min(end, high + reach) for end in ends)])
    return _Span(low, high) if high - low > 1e-9 else _Span(low - 0.5 * reach, high + 0.5 * reach)


def _open(span: _Span, log: bool = False) -> tuple[float, float]:
    """Limits of an axis: a little more than its span."""
    if log:
        factor = (span.high / span.low) ** _ROOM
        return span.low / factor, span.high * factor
    room = _ROOM * (span.high - span.low)
    return span.low - room, span.high + room


def _dot(axes: Any, at: int, line: Line, name: str, span: _Span) -> None:
    """One row of a dot plot: its interval, and its point or a triangle at the edge with the number beside it."""
    axes.axhline(at, color=PALE, linewidth=1, zorder=0)
    item = line.metric(name)
    if item is None:
        return
    value = span.clamp(item["mean"])
    beyond = _triangle([item["mean"], 0.0], [value, 0.0])
    if beyond:
        right = beyond == ">"
        axes.annotate(
            written(name, item["mean"]), (value, at), xytext=(-7 if right else 7, 0), textcoords="offset points",
            ha="right" if right else "left", va="center", color=GREY,
        )  # fmt: skip
    elif pair := bounds(name, item):
        axes.plot([span.clamp(end) for end in pair], [at, at], color=_colour(line), linewidth=1.6, alpha=0.55, zorder=3,
                  solid_capstyle="butt")  # fmt: skip
    axes.plot([value], [at], beyond or _mark(line), zorder=5, **_look(line, 6))


def _names(axes: Any, names: Sequence[str], span: _Span) -> None:
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(*_open(span))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _triangle(at: Sequence[float], shown: Sequence[float]) -> str:
    """The mark of a point that lies beyond the axes, pointing to where it is; empty for others."""
    (x, y), (x_shown, y_shown) = at, shown
    if x != x_shown:
        return ">" if x > x_shown else "<"
    return ("^" if y > y_shown else "v") if y != y_shown else ""


def _mark(line: Line) -> str:
    return "X" if line.word == "destroys" else "o"


def _colour(line: Line) -> str:
    return GREY if line.word == "destroys" else ACCENT


def _look(line: Line, size: float) -> dict[str, Any]:
    colour = _colour(line)
    filled = line.word in ("forgets", "destroys")
    return {"color": colour, "markerfacecolor": colour if filled else "white", "markeredgecolor": colour,
            "markersize": size}  # fmt: skip


def _legend(where: Any, lines: Sequence[Line], retrained: bool, source: bool, dashed: str = "") -> None:
    from matplotlib.lines import Line2D

    def mark(shape: str, label: str, colour: str, face: str) -> Any:
        return Line2D([], [], color=colour, marker=shape, markersize=6, markerfacecolor=face, linestyle="", label=label)

    words = {line.word for line in lines}
    marks = [mark("o", "forgets", ACCENT, ACCENT)] if "forgets" in words else []
    if words - {"forgets", "destroys"}:
        marks.append(mark("o", "does not, or cannot be told", ACCENT, "white"))
    if "destroys" in words:
        marks.append(mark("X", "destroys the model", GREY, GREY))
    if retrained:
        marks.append(mark("D", "retrained", GREY, GREY))
    if source:
        marks.append(mark("s", "source", GREY, "white"))
    if dashed:
        marks.append(Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (3, 3)), label=dashed))
    if hasattr(where, "subplots"):  # of a whole figure, above its panels
        place: dict[str, Any] = {"loc": "outside upper right"}
    else:
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1)}
    where.legend(
        handles=marks, ncols=len(marks), frameon=False, borderpad=0, handletextpad=0.2, columnspacing=1.3, labelcolor=INK,
        **place,
    )  # fmt: skip


def _seconds(axes: Any) -> None:
    """A logarithmic axis with seconds written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: say.number(value)))


def _listed(lines: Sequence[Line], names: Sequence[str], record: Record | None = None) -> str:
    """All values in words, for those who cannot see them."""

    def told(who: str, item_of: Callable[[str], Record | None]) -> str:
        parts = []
        for name in names:
            if item := item_of(name):
                between = interval(name, item)
                parts.append(f"{heading(name)} {written(name, item['mean'])}" + (f" ({between})" if between else ""))
        return f"{who}: {', '.join(parts)}" if parts else ""

    listed = [told(line.name, line.metric) for line in lines]
    for who, word in (("reference", "retrained"), ("source", "source")):
        if record and record.get(who):
            listed.append(told(word, lambda name, row=record[who]: known(row, name)))
    return "; ".join(text for text in listed if text)


def _beyond(lines: Sequence[Line], spans: Mapping[str, _Span]) -> str:
    """What the reader must know of points and bars that the axes do not hold; empty where they hold all."""
    out = cut = False
    for line in lines:
        for name, span in spans.items():
            item = line.metric(name)
            if item is None:
                continue
            if span.clamp(item["mean"]) != item["mean"]:
                out = True
            else:
                cut = cut or any(span.clamp(end) != end for end in bounds(name, item) or ())
    return (f" {_BEYOND}" if out else "") + (f" {_CUT}" if cut else "")
