"""curves.html and curves.json: what ``expunge calibrate curves`` measured, drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.files import make_folder, write_atomic
from expunge.report.drawing import ACCENT, GREY, INK, LIGHT, Figure, canvas, finished, powers, styled
from expunge.report.html import environment_of, page_style

Record = Mapping[str, Any]
AXES = (
    ("share", "share of rows that go", "log"),
    ("rewind", "rewind, K / T", "linear"),
    ("epsilon", "epsilon", "log"),
)
DRAWN = (
    "original",
    "r2d 10%",
    "r2d 36%",
    "r2d 74%",
    "retrained",
)  # lines of the second figure: more could not be told apart
MARKS = (("s", "-"), ("o", "-"), ("^", "--"), ("v", ":"), ("D", "-"))
WIDE = 10  # values that differ by less are drawn on a linear axis


def write_curves(record: Record, folder: Path) -> None:
    """Write ``curves.json`` and ``curves.html``; equal records give equal bytes.

    Raises:
        InputError: if the folder cannot be written.
    """
    folder = make_folder(folder)
    as_json = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(folder / "curves.json", as_json.encode())
    write_atomic(folder / "curves.html", page(record).encode())


def page(record: Record) -> str:
    """One self-contained page, without scripts. A function of the record alone."""
    figures = [
        drawn
        for drawn in (noise(record["noise"]), accuracy(record["accuracy"]), convergence(record["convergence"]))
        if drawn is not None
    ]
    estimated = [name for name, origin in record["origins"].items() if origin == "estimated"]
    summary = (
        f"{record['forgotten']} of {record['rows']} rows are forgotten by a model of {record['steps']} full-batch steps. Noise "
        f"is for epsilon {record['epsilon'] or 1:g} and delta {record['delta']:g} at a capacity of {record['capacity']} rows, "
        "except along the axis that is drawn."
    )
    if estimated:
        summary += (
            f" The constants {', '.join(estimated)} were sampled, not proved: the noise drawn here gives no guarantee for "
            "this model."
        )
    caption = (
        "Shares; AUC of one class against the rest, mean over classes. Attacks: mean AUC over folds and its standard "
        "deviation, forgotten rows against test rows; the value to compare with is that of the retrained model, not one half"
    )
    sets = ("retain", "forget", "test")
    heads = ["model", "sigma", *(f"accuracy, {of}" for of in sets), *(f"AUC, {of}" for of in sets)]
    heads += ["attack: loss", "attack: outputs moved (MIA-U)"]
    return (
        environment_of("expunge.report")
        .get_template("curves.html.j2")
        .render(
            name=record["name"], summary=summary, figures=figures, flat=0.01, caption=caption, heads=heads,
            lines=[_line(item, sets) for item in record["models"]], style=page_style(),
        )
    )  # fmt: skip


def _line(item: Record, sets: Sequence[str]) -> list[str]:
    cells = [item["name"], f"{item['sigma']:g}", *(f"{item['accuracy'][of]:.3f}" for of in sets)]
    cells += ["–" if item["auc"][of] is None else f"{item['auc'][of]:.3f}" for of in sets]
    for attack in ("loss", "outputs_moved"):
        found = item["membership"].get(attack)
        cells.append("–" if not found else f"{found['mean']:.3f} ± {found['std']:.3f}")
    return cells


@styled
def noise(curves: Record) -> Figure | None:
    """Sigma along the three axes that decide it."""
    figure = canvas(7.2, 2.4)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (name, label, scale) in zip(panels, AXES, strict=True):
        points = [(item["at"], item["sigma"]) for item in curves[name] if item["sigma"]]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, color=ACCENT)
            powers(axes, "y")
        if scale == "log":
            powers(axes, "x")
        axes.set_xlabel(label)
        axes.grid(color=LIGHT, linewidth=0.5)
    panels[0].set_ylabel("sigma per weight")
    return finished(
        figure,
        "curves noise",
        "Three panels: noise against the share of rows that go, against the rewind, and against epsilon.",
        "Noise per weight that the guarantee takes, by the tightest valid bound. At a rewind of 1 nothing of the old model is "
        "left and no noise is needed; a point that is not there has no finite bound, or needs no noise.",
    )


@styled
def accuracy(points: Sequence[Record]) -> Figure | None:
    """Accuracy on test rows against sigma, with the retrained model under the same noise."""
    figure = canvas(7.2, 2.8)
    axes = figure.subplots()
    least = min((item["sigma"] for item in points if item["sigma"]), default=0.0)
    if not least:
        return None
    for name, (mark, dashes) in zip(DRAWN, MARKS, strict=True):
        line = [(item["sigma"] or least / 3, item["accuracy"]) for item in points if item["name"] == name]
        ours = name.startswith("r2d")
        colour = ACCENT if ours else INK if name == "retrained" else GREY
        axes.plot(
            *zip(*line, strict=True),
            marker=mark,
            linestyle=dashes,
            markersize=4,
            color=colour,
            linewidth=1.2,
            label=name,
        )
    powers(axes, "x")
    axes.set_xlabel(f"sigma per weight (leftmost: none, drawn at {least / 3:.2g})")
    axes.set_ylabel("accuracy on test rows")
    axes.grid(color=LIGHT, linewidth=0.5)
    axes.legend(frameon=False, loc="lower left")
    return finished(
        figure,
        "curves accuracy",
        "Accuracy on test rows against noise, for the original, three rewinds and the retrained model under the same noise.",
        "What noise costs: the retrained model carries the same noise. Means over several noisy models; the axis of accuracy "
        "does not start at zero.",
    )


@styled
def convergence(curve: Record) -> Figure | None:
    """Loss above the least against the rewind, with its bound where there is one."""
    points = [(item["rewind"], item["excess"]) for item in curve["points"] if item["excess"] > 0]
    if not points:
        return None
    figure = canvas(7.2, 2.6)
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=ACCENT, label="measured")
    bounds = [(item["rewind"], item["bound"]) for item in curve["points"] if item["bound"]]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), linestyle="--", color=GREY, label="bound")
    drawn = [value for _, value in (*points, *bounds)]
    if max(drawn) > WIDE * min(drawn):
        powers(axes, "y")
    axes.set_xlabel("rewind, K / T")
    axes.set_ylabel("loss above the least")
    axes.grid(color=LIGHT, linewidth=0.5)
    axes.legend(frameon=False)
    said = (
        f"There is no bound to draw: {curve['no_bound']}."
        if curve["no_bound"]
        else "The bound holds for the un-noised model."
    )
    return finished(
        figure,
        "curves convergence",
        "Loss on the retained rows above the least value, by rewind.",
        f"Regularised loss on the retained rows above the least value that five times as many steps reach. {said}",
    )
