"""Figures of what a deletion did to a graph network: three statistics against retrained models, and a neighbourhood.

Both are about single nodes or what was forgotten: for a private page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx

from expunge.report.drawing import ACCENT, GREY, INK, LIGHT, PALE, Figure, canvas, finished, styled

Record = Mapping[str, Any]
WIDTH = 7.4  # inches
LABELS = {
    "replay_nll": "Loss of what was deleted",
    "replay_ra": "Attribution on what was deleted (%)",
    "replay_auc": "Membership of what was deleted (AUC)",
    "replay_kept": "Kept of what training on deleted edges does to them (%)",
}
SMALLEST, LARGEST = 5.0, 90.0  # areas of nodes, in square points


@styled
def bands(record: Record) -> Figure | None:
    """Each deciding statistic: retrained models with their band, the model before and the model after."""
    shown = [(name, each) for name, each in record["replay"].items() if each["decides"] and name in LABELS]
    if not shown:
        return None
    figure = canvas(WIDTH, 0.72 * len(shown) + 0.55)
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (name, each) in zip(panels, shown, strict=True):
        low, high = each["band"]
        axes.axvspan(low, high, color=PALE, zorder=0)
        axes.axvline(each["retrained"], color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        axes.plot(each["nulls"], [0] * len(each["nulls"]), "D", color=GREY, markersize=3.5, linestyle="none", zorder=2)
        axes.plot(
            [each["original"]], [0], "s", markerfacecolor="white", color=INK, markersize=7, linestyle="none", zorder=3
        )
        axes.plot([each["unlearned"]], [0], "o", color=ACCENT, markersize=7, linestyle="none", zorder=4)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(LABELS[name])
        axes.margins(x=0.06)
    handles = [
        panels[0].plot([], [], mark, color=colour, markerfacecolor=face, linestyle="none", label=label)[0]
        for mark, colour, face, label in (
            ("s", INK, "white", "before"), ("o", ACCENT, ACCENT, "after"), ("D", GREY, GREY, "retrained models"),
        )
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    listed = "; ".join(
        f"{LABELS[name]}: before {each['original']:.4g}, after {each['unlearned']:.4g}, retrained {each['retrained']:.4g}"
        for name, each in shown
    )
    return finished(
        figure,
        "explain bands",
        f"{listed}.",
        f"Weights on the graph as it was. Shaded: where a further retrained model lies in all but one of a thousand cases "
        f"({record['nulls']} were trained). A model that forgot is inside in every line.",
    )


@styled
def neighbours(record: Record) -> Figure | None:
    """The neighbourhood with the attribution of each node: of the model before, of the one after, and of a retrained one."""
    around = record["neighbourhood"]
    if not around["nodes"]:
        return None
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(around["nodes"])))
    graph.add_edges_from(around["edges"])
    at = _places(graph)
    figure = canvas(WIDTH, 3.4)
    names = ("before", "after", "retrained")
    largest = max(max(around["attribution"][name]) for name in names) or 1.0
    for axes, name in zip(figure.subplots(1, 3, sharex=True, sharey=True), names, strict=True):
        _graph(axes, around, at, around["attribution"][name], largest)
        share = sum(v for v, named in zip(around["attribution"][name], around["named"], strict=True) if named)
        axes.set_title(f"{name}: {share:.2f} % on filled nodes", fontsize=8.5, color=INK)
    filled = sum(map(bool, around["named"]))
    return finished(
        figure,
        "explain neighbourhood",
        f"{len(around['nodes'])} nodes around {around['centres']} of {around['of']} that the request names, three times: node "
        "areas are shares of attribution.",
        f"The graph as it was around {around['centres']} of the {around['of']} nodes that the request names. Filled: those of "
        f"them that are drawn ({filled}). The area of a node is its share of the attribution of the training loss; dashed "
        "edges were cut. A model that forgot looks like the retrained one, and not like the graph without these nodes.",
    )


def _places(graph: networkx.Graph) -> Mapping[int, Any]:
    """Where nodes are drawn: distances on paper follow those in the graph; parts that nothing joins stand a little apart."""
    apart = dict(networkx.all_pairs_shortest_path_length(graph))
    furthest = max(max(reached.values()) for reached in apart.values())
    far = {a: {b: reached.get(b, furthest + 1) for b in graph} for a, reached in apart.items()}
    return networkx.kamada_kawai_layout(graph, dist=far, pos=networkx.circular_layout(graph))


def _graph(axes: Any, around: Record, at: Mapping[int, Any], weights: Sequence[float], largest: float) -> None:
    for (first, second), cut in zip(around["edges"], around["cut"], strict=True):
        xs, ys = zip(at[first], at[second], strict=True)
        axes.plot(
            xs, ys, color=GREY if cut else LIGHT, linewidth=0.9, linestyle=(0, (2, 1.5)) if cut else "-", zorder=1
        )
    areas = [SMALLEST + (LARGEST - SMALLEST) * weight / largest for weight in weights]
    faces = [ACCENT if named else "white" for named in around["named"]]
    places = [at[i] for i in range(len(weights))]
    axes.scatter(*zip(*places, strict=True), s=areas, c=faces, edgecolors=INK, linewidths=0.7, zorder=2)
    axes.set_axis_off()
    axes.margins(0.12)
