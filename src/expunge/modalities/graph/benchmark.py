"""Benchmarks of graph networks: replay decides, and the published verifier's numbers stand next to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.cache import Cache
from expunge.evidence.explanations.kept import KEPT, shares_kept
from expunge.evidence.explanations.legacy import heatmap_shift
from expunge.evidence.explanations.replay import DECIDING
from expunge.metrics.intervals import mean_interval
from expunge.metrics.outcomes import Judgement
from expunge.metrics.prediction_band import Finding, Verified, verified
from expunge.modalities.benchmark import Finished, Number, Workload
from expunge.modalities.graph.recipes import GraphRecipe
from expunge.modalities.graph.workload import AFTER, BEFORE, KNOWN, SCORES
from expunge.modalities.layout import Dots, Layout, Panel
from expunge.modalities.recipes import RETRAIN
from expunge.report import numbers as say

_SAID = {"node": "training nodes", "edge": "edges", "feature": "training nodes, by all their features"}


def forgotten(forget: Mapping[str, Any], count: str) -> str:
    """What was to be forgotten, as a sentence."""
    return f"Forgotten is a random {say.percent(forget['share'])} of the {_SAID[str(forget['kind'])]}{count}."


LAYOUT = Layout(
    lead=(
        "replay_nll", "replay_ra", "replay_auc", KEPT, "replay_accuracy", "RA", "TA", "legacy_ra", "legacy_hs", "link_auc",
        "deleted_auc", "deleted_probability", "link_stealing", "seconds",
    ),
    terminal={
        "replay\nNLL": "replay_nll", "replay\nRA %": "replay_ra", "replay\nAUC": "replay_auc", "TA": "TA",
        "legacy\nRA %": "legacy_ra", "legacy\nHS": "legacy_hs", "seconds": "seconds",
    },
    meaning=(
        "“Forgets” says that the weights, run on the graph as it was, are like those of retrained models in loss, attribution "
        "and membership of what was deleted (of edges also edge by edge), and nothing about what else the model still knows."
    ),
    figures=(
        Dots(
            "replay", "Replay on the graph as it was",
            "What the weights know of what was deleted; the aim is the retrained models (dashed), not an edge.",
            (
                Panel(("replay_nll",), "Loss of what was deleted"),
                Panel(("replay_ra",), "Attribution on what was deleted (%)"),
                Panel(("replay_auc",), "Membership of what was deleted (AUC)"), Panel((KEPT,), "Kept of what was deleted (%)"),
            ),
        ),
        Dots(
            "legacy", "The published verifier, on the graph as it is",
            "Residual attribution is zero for any weights once nodes are cut out of the graph: it cannot tell a model that "
            "forgot from one that was never changed.",
            (Panel(("legacy_ra",), "Residual attribution (%)"), Panel(("legacy_hs",), "Heatmap shift")),
        ),
        Dots(
            "links", "Edges, on the graph as it is",
            "How the models answer once the deleted edges are cut, whatever the weights know.",
            (
                Panel(("link_auc",), "Held-out edges (AUC)"), Panel(("deleted_auc",), "Retained against deleted (AUC)"),
                Panel(("link_stealing",), "Stolen edges (AUC)"),
            ),
        ),
    ),
    forgotten=forgotten,
)  # fmt: skip


@dataclass(frozen=True)
class Replayed:
    """A cell's statistics of replay, next to those of the original and of the retrained models of its forget set."""

    mine: Mapping[str, float]
    source: Mapping[str, float]
    nulls: Sequence[Mapping[str, float]]

    @classmethod
    def of(cls, finished: Finished, cell: Mapping[str, Any]) -> Replayed:
        """With what a model kept, where cells have answers on single edges."""
        here = [each for each in finished.retrained if each["forget_set"] == cell["forget_set"]]
        if finished.row == RETRAIN:
            here = [each for each in here if each["seed"] != cell["seed"]]
        source = next(each for each in finished.sources if each["forget_set"] == cell["forget_set"])
        found = [each["metrics"] for each in (cell, source, *here)]
        scores = [_scores(finished, each) for each in (cell, source, *here)]
        if all(each is not None for each in scores):
            models = np.array(scores, dtype=np.float64)
            known = np.asarray(finished.margins(cell["key"])[KNOWN], dtype=np.float64)
            placed = shares_kept(known, models[2:], models[:2])
            if placed is not None:
                kept = np.concatenate([placed[1], placed[0]]).tolist()
                found = [{**each, KEPT: 100 * share} for each, share in zip(found, kept, strict=True)]
        return cls(found[0], found[1], found[2:])


def _scores(finished: Finished, cell: Mapping[str, Any]) -> np.ndarray | None:
    return finished.margins(cell["key"]).get(SCORES) if "margins" in cell else None


def cells_verified(finished: Finished) -> list[Verified]:
    """What the verifier says of each cell of a row, on its own forget set."""
    replays = [Replayed.of(finished, cell) for cell in finished.cells]
    return [verified(each.mine, each.source, each.nulls, DECIDING) for each in replays]


def together(cells: list[Verified]) -> Verified:
    """One for all cells of a row: forgotten where all are; else the most frequent other word, by the cell furthest outside."""
    others = [each for each in cells if each.finding is not Finding.FORGOTTEN]
    if not others:
        return cells[0]
    word = Counter(each.finding for each in others).most_common(1)[0][0]
    same = [each for each in others if each.finding is word]
    return max(same, key=lambda each: abs(each.z.get(each.statistic, 0.0)))


class GraphBenchmark:
    """See :class:`~expunge.modalities.benchmark.Benchmark`."""

    recipe = GraphRecipe
    layout = LAYOUT
    tuned_by = ()

    def workload(self, recipe: GraphRecipe, cache: Cache) -> Workload:
        """The graph, and the model that learns it."""
        from expunge.modalities.graph import MODALITY
        from expunge.modalities.graph.link_workload import LinkWorkload
        from expunge.modalities.graph.workload import GraphWorkload

        kind = LinkWorkload if recipe.predict == "links" else GraphWorkload
        return kind.of(recipe, MODALITY.open(recipe), cache)

    def compare(self, finished: Finished) -> Mapping[str, Number]:
        """Of edges what is kept of them; of nodes heatmap shift of the published verifier: attributions before, of the source,
        against those after.
        """
        stored = all("margins" in cell for cell in (*finished.cells, *finished.sources))
        if not finished.sources or not stored:
            return {}
        kept = [Replayed.of(finished, cell).mine for cell in finished.cells]
        if kept and all(KEPT in each for each in kept):
            return {KEPT: Number(mean_interval([each[KEPT] for each in kept]))}
        if finished.row == RETRAIN:
            return {}
        shifts = []
        for cell in finished.cells:
            source = next(each for each in finished.sources if each["forget_set"] == cell["forget_set"])
            before, after = finished.margins(source["key"]).get(BEFORE), finished.margins(cell["key"]).get(AFTER)
            if before is None or after is None:
                return {}
            shifts.append(heatmap_shift(np.asarray(before), np.asarray(after)))
        return {"legacy_hs": Number(mean_interval(shifts))}

    def judge(self, finished: Finished, recipe: GraphRecipe) -> tuple[Judgement, Mapping[str, Any]]:
        """By replay; ``finding`` is the verifier's word, ``findings`` that of each cell."""
        cells = cells_verified(finished)
        one = together(cells)
        more = {
            "finding": str(one.finding), "findings": [str(each.finding) for each in cells], "decided_by": one.statistic,
            "z": dict(one.z), "moved": dict(one.moved),
        }  # fmt: skip
        return one.judgement, more


BENCHMARK = GraphBenchmark()
