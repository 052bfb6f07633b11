"""Figures of a report as SVG text: the same record gives the same bytes; one accent colour, shapes beside it, no 3-D.

Each plot takes the record (or a run of it) and returns a :class:`Figure`, or ``None`` where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.certificate import Verdict
from expunge.report import numbers as say
from expunge.report.drawing import ACCENT, GREY, INK, LIGHT, PALE, Figure, canvas, finished, powers, styled
from expunge.report.guarantee import certificates
from expunge.report.vocabulary import is_attack, label, place

Record = Mapping[str, Any]

_ACCURACY = tuple(("accuracy", of) for of in ("retain", "forget", "test"))
_SPAN = 1e7  # bounds this many times above the one used are drawn at the edge: their size says nothing more
_MODULES = 12  # rows of the change plot; the rest is summed up in the caption


def accuracy(record: Record) -> Figure | None:
    """Accuracy of every run on retained, forgotten and test rows, beside the original and the retrained model."""
    rows = _rows(record, _ACCURACY)
    if not rows:
        return None
    return _beside(
        "accuracy", rows, "Accuracy (share of rows classified correctly)", _range(rows), None, _compared(rows),
        f"Accuracy of the released model (filled dot, bar: 95 % interval), of the model before (ring){_and_retrained(rows)}.",
    )  # fmt: skip


def membership(record: Record) -> Figure | None:
    """How well membership attacks tell forgotten from unseen rows, beside the original and the retrained model."""
    attacks = dict.fromkeys(
        (item["metric"], item["set"]) for run in record["runs"] for item in run["evidence"]["measurements"]
        if is_attack(item)
    )  # fmt: skip
    rows = _rows(record, tuple(attacks))
    if not rows:
        return None
    return _beside(
        "membership", rows, "Area under the ROC curve (AUC)", _range(rows, 0.4, 0.6), 0.5, _compared(rows),
        "How often an attack ranks a forgotten row above an unseen one, for the released model (filled dot) and the one "
        f"before (ring){_and_retrained(rows)}. 0.5 (dashed) is guessing; a retrained model need not score 0.5 either.",
    )  # fmt: skip


def trade_off(run: Record, view: str = "") -> Figure | None:
    """Every (epsilon, delta) pair that a view's certificate says holds at once, with the stated one marked."""
    certificate = dict(certificates(run))[view]
    if (
        certificate is None
        or not certificate["curve"]
        or certificate["epsilon"] is None
        or run["verdict"] == Verdict.VOID
    ):
        return None
    from expunge.privacy.gaussian import delta_of

    mu, stated, delta = certificate["composed_mu"], certificate["epsilon"], certificate["delta"]
    if not mu or stated > 100:  # at such an epsilon every point of the curve says the same: nothing is hidden
        return None
    top = 1.6 * max(stated, 0.05)
    points = [(top * i / 200, delta_of(top * i / 200, mu)) for i in range(201)]
    points = [(x, y) for x, y in points if y > 1e-12]
    promised = run["verdict"].startswith("certified")
    return _trade_off(_named("trade-off", run, view), _of(view), points, stated, delta, promised)


@styled
def _trade_off(
    name: str, of: str, points: list[tuple[float, float]], stated: float, delta: float, promised: bool
) -> Figure:  # fmt: skip
    figure = canvas(7.2, 2.7)
    axes = figure.add_subplot()
    axes.plot(
        *zip(*points, strict=True), color=ACCENT if promised else GREY, linestyle="-" if promised else (0, (4, 2))
    )
    axes.plot(
        [stated], [delta], "o", color=ACCENT if promised else "white", markeredgecolor=ACCENT if promised else GREY
    )
    axes.annotate(
        f"ε = {say.number(stated)}, δ = {say.number(delta)}", (stated, delta), xytext=(8, 8),
        textcoords="offset points", color=INK,
    )  # fmt: skip
    powers(axes, "y")
    axes.set_ylim(min(delta / 30, points[-1][1]), 1)
    axes.set_xlim(0, 1.6 * max(stated, 0.05))
    axes.set_xlabel("ε (log-odds that any test can gain)")
    axes.set_ylabel("δ (chance that it gains more)")
    kind = "" if promised else "Nominal, no promise: "
    return finished(
        figure, name,
        f"Curve falling from δ = {say.number(points[0][1])} at ε = 0; the stated point is ε = {say.number(stated)} at "
        f"δ = {say.number(delta)}.",
        f"{of}{kind}{'A' if not kind else 'a'}ll pairs on the curve hold at once, for all releases so far together; "
        "the dot is the pair that is stated.",
    )  # fmt: skip


def bounds(run: Record, view: str = "") -> Figure | None:
    """Sensitivity bounds of a view's certificate on a logarithmic axis, the applicable ones apart from the others."""
    certificate = dict(certificates(run))[view]
    if certificate is None:
        return None
    found = [b for b in certificate["bounds"] if b["value"] is None or b["value"] > 0]
    finite = [b["value"] for b in found if b["value"] is not None]
    if len(found) < 2 or not finite or run["verdict"] == Verdict.VOID:
        return None
    return _bounds(_named("bounds", run, view), _of(view), found, _used(certificate))


@styled
def _bounds(name: str, of: str, found: list[Record], used: str) -> Figure:
    finite = [b["value"] for b in found if b["value"] is not None]
    least = min(finite)
    edge = least * min(_SPAN, max(finite) / least * 10)
    figure = canvas(7.2, 0.85 + 0.3 * len(found))
    axes = figure.add_subplot()
    for row, bound in enumerate(found):
        axes.axhline(row, color=PALE, linewidth=1, zorder=0)
        value, applies, chosen = bound["value"], bound["valid"], bound["name"] == used
        beyond = value is None or value > edge
        text = say.number(value, "infinite") + (", used" if chosen else "" if applies else ", does not apply")
        axes.plot(
            [edge if value is None or beyond else value], [row], marker=">" if beyond else "o", markersize=6.5, linestyle="",
            color=(ACCENT if chosen else GREY) if applies else "none", markeredgecolor=ACCENT if chosen else GREY,
        )  # fmt: skip
        axes.annotate(text, (edge if value is None or beyond else value, row), xytext=(9, 0), textcoords="offset points",
                      va="center", color=INK if chosen else GREY, weight="bold" if chosen else "normal")  # fmt: skip
    powers(axes, "x")
    axes.set_xlim(least / 2, edge * (edge / least) ** 0.35)
    _rows_axis(axes, [bound["name"].replace("_", " ") for bound in found])
    axes.set_xlabel("Bound on the distance to the retrained weights (L2, log scale)")
    listed = "; ".join(
        f"{bound['name'].replace('_', ' ')} {say.number(bound['value'], 'infinite')}"
        + ("" if bound["valid"] else " (does not apply)")
        for bound in found
    )
    return finished(
        figure, name, f"Sensitivity bounds: {listed}.",
        f"{of}Bounds on how far the weights can be from the retrained ones, before noise. Filled marks apply here, "
        "hollow ones do not; a triangle lies beyond the axis. The tightest that applies is used.",
    )  # fmt: skip


def change(run: Record) -> Figure | None:
    """How far each module's released weights moved."""
    modules: dict[str, float] = {}
    for tensor, moved in run["change"].items():
        if moved is None:
            return None  # a tensor without counterpart: there is no distance to draw
        module = tensor.rpartition(".")[0] or tensor
        modules[module] = math.hypot(modules.get(module, 0.0), moved)
    if len(modules) < 2 or not any(modules.values()):
        return None  # one number needs no picture
    return _change(f"change {run['name']}", list(modules.items()))


@styled
def _change(name: str, modules: list[tuple[str, float]]) -> Figure:
    largest = sorted(modules, key=lambda item: -item[1])[:_MODULES]
    figure = canvas(7.2, 0.75 + 0.26 * len(largest))
    axes = figure.add_subplot()
    axes.barh(range(len(largest)), [size for _, size in largest], height=0.5, color=ACCENT)
    for row, (_, size) in enumerate(largest):
        axes.annotate(say.number(size), (size, row), xytext=(5, 0), textcoords="offset points", va="center", color=INK)
    axes.set_xlim(0, 1.15 * largest[0][1])
    _rows_axis(axes, [name for name, _ in largest])
    axes.set_xlabel("L2 distance from the weights released before")
    others = len(modules) - len(largest)
    listed = "; ".join(f"{module} {say.number(size)}" for module, size in largest)
    return finished(
        figure, name, f"Change of each module: {listed}.",
        "Change of the released weights by module, the noise of both releases included"
        + (f"; the {_MODULES} largest of {len(modules)}." if others else "."),
    )  # fmt: skip


def _of(view: str) -> str:
    return f"{view}: " if view else ""


def _named(what: str, run: Record, view: str) -> str:
    return f"{what} {run['name']}" + (f" {view}" if view else "")


def _and_retrained(rows: list[tuple[str, list[Record]]]) -> str:
    if not _compared(rows):
        return "; there is no retrained model to compare with"
    return " and of the model retrained without the forgotten rows (diamond, band: what two retrainings differ by)"


def _compared(rows: list[tuple[str, list[Record]]]) -> bool:
    return any(item["ideal"] is not None for _, items in rows for item in items)


def _used(certificate: Record) -> str:
    """The bound whose value the sensitivity is: the least that applies."""
    valid = [bound for bound in certificate["bounds"] if bound["valid"] and bound["value"] is not None]
    return min(valid, key=lambda bound: bound["value"])["name"] if valid else ""


def _rows(record: Record, kinds: Sequence[tuple[str, str | None]]) -> list[tuple[str, list[Record]]]:
    """Of every run the measurements of these metrics and sets, in that order; runs without any are left out."""
    found = []
    for run in record["runs"]:
        items = [item for item in run["evidence"]["measurements"] if item["value"] is not None]
        if chosen := [item for kind in kinds for item in items if (item["metric"], item["set"]) == kind]:
            found.append((run["name"], chosen))
    return found


@styled
def _beside(
    name: str, groups: list[tuple[str, list[Record]]], axis: str, limits: tuple[float, float], line: float | None,
    compared: bool, caption: str,
) -> Figure:  # fmt: skip
    """A row for each measurement of each run: original ring, retrained diamond with band, released dot with interval."""
    several = len(groups) > 1
    height = sum(len(items) + (0.9 if several else 0) for _, items in groups)
    figure = canvas(7.2, 0.95 + 0.34 * height)
    axes = figure.add_subplot()
    at, ticks, described = 0.0, [], []
    for run, items in groups:
        if several:
            axes.annotate(
                say.initial(run), (0, at), xycoords=("axes fraction", "data"), xytext=(-4, 0),
                textcoords="offset points", ha="right", va="center", weight="bold", color=INK,
            )  # fmt: skip
            at += 0.9
        for item in items:
            _row(axes, at, item)
            ticks.append((at, place(item)))
            described.append(f"{run}, {_described(item)}")
            at += 1
    if line is not None:
        axes.axvline(line, color=GREY, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    room = 0.02 * (limits[1] - limits[0])
    axes.set_xlim(limits[0] - room, limits[1] + room)
    axes.set_ylim(at - 0.5, -0.6)
    axes.set_yticks([tick for tick, _ in ticks], [text for _, text in ticks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{axis}; the axis begins at {limits[0]:g}" if limits[0] else axis)
    _legend(axes, compared)
    return finished(figure, name, f"{axis}. {'; '.join(described)}.", caption)


def _row(axes: Any, at: float, item: Record) -> None:
    axes.axhline(at, color=PALE, linewidth=1, zorder=0)
    if item["ideal"] is not None:
        if item["null"]:
            band = max(0.0, item["ideal"] - item["null"]), min(1.0, item["ideal"] + item["null"])
            axes.plot(band, [at, at], color=LIGHT, linewidth=7,
                      solid_capstyle="butt", zorder=1)  # fmt: skip
        axes.plot([item["ideal"]], [at], "D", color=GREY, markersize=6.5, zorder=2)
    if item["original"] is not None:
        axes.plot([item["original"]], [at], "o", color="none", markeredgecolor=GREY, markersize=8.5, zorder=3)
    if item["interval"]:
        axes.plot(item["interval"], [at, at], color=ACCENT, linewidth=1.8, zorder=4, solid_capstyle="butt")
    axes.plot([item["value"]], [at], "o", color=ACCENT, markersize=6, zorder=5)


def _legend(axes: Any, retrained: bool) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=ACCENT, marker="o", markersize=6, linewidth=1.8, label="released model, 95 % interval"),
        Line2D([], [], color=GREY, marker="o", markersize=8.5, markerfacecolor="none", linestyle="", label="before"),
    ]
    if retrained:
        marks.append(Line2D([], [], color=GREY, marker="D", markersize=6.5, linestyle="", label="retrained"))
    axes.legend(
        handles=marks, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(marks), frameon=False, borderpad=0,
        handletextpad=0.5, columnspacing=1.6, labelcolor=INK,
    )  # fmt: skip


def _rows_axis(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _range(rows: list[tuple[str, list[Record]]], low: float = 0.9, high: float = 1.0) -> tuple[float, float]:
    """Whole tenths around everything that is drawn, never narrower than (low, high)."""
    seen = [
        value
        for _, items in rows
        for item in items
        for value in (item["value"], item["ideal"], item["original"], *(item["interval"] or ()))
        if value is not None
    ]
    return max(0.0, math.floor(10 * min([low, *seen])) / 10), min(1.0, math.ceil(10 * max([high, *seen])) / 10)  # fmt: skip


def _described(item: Record) -> str:
    name = item["metric"]
    parts = [f"{label(item)}: released {say.value(name, item['value'])}"]
    if item["interval"]:
        parts.append(f"interval {say.interval(name, item['interval'])}")
    parts += [f"{word} {say.value(name, item[key])}" for key, word in (("original", "before"), ("ideal", "retrained"))
              if item[key] is not None]  # fmt: skip
    return ", ".join(parts)
