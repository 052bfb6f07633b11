"""GraphEditor against a new fit: whether the way that is predicted to be cheaper is the cheaper one (goal: at least as fast).

Ours takes the way that ``curvature.ridge`` predicts to be cheaper; the baseline is always the other one: a ratio below 1
is a wrong choice. Graphs have the size of Cora; features are 512 or 1,433 columns wide. ``curvature.ridge.FACTORISING`` is
what a flop of a factorisation takes in flops of a matrix product: measured at 2.9, 2.3 and 1.6 for 256, 512 and 1,433 columns.
Run from the repository root: ``python bench/graph_editor.py [--smoke] [--json]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from comparison import Case, main
from expunge.core.request import Target
from expunge.curvature.ridge import Ridge, cost_of_change, cost_of_fit
from expunge.data.graphs.block_model import PRESETS, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.splits import shares
from expunge.methods.graph_editor import changed_rows, edited
from expunge.training.graph_ridge import rows_of

STEPS, L2 = 2, 0.1


def compared(graph: Graph, count: int) -> Case:
    """One request for ``count`` nodes."""
    classes = graph.label_count
    ids = graph.select(
        Target("node", {"ids": np.random.default_rng(count).choice(graph.examples, count, replace=False).tolist()})
    )
    after = graph.without(ids)
    gone, moved = changed_rows(graph, after, ids, STEPS)
    ridge = Ridge.fit(*rows_of(graph, STEPS, graph.examples, classes), L2)
    both = cost_of_change(len(gone) + len(moved), graph.width) + cost_of_change(len(moved), graph.width)
    ways = {
        "edit": lambda: edited(ridge, graph, after, gone, moved, STEPS).weights,
        "fit": lambda: Ridge.fit(*rows_of(after, STEPS, after.examples, classes), L2).weights,
    }
    chosen = "edit" if both < cost_of_fit(len(after), graph.width) else "fit"
    other = "fit" if chosen == "edit" else "edit"
    return Case(
        name=f"{count} nodes, {graph.width} columns, {len(moved)} rows reached: {chosen}",
        baselines={other: ways[other]}, ours=ways[chosen], agree=same, double=True, rounds=3, goal=0.83,
    )  # fmt: skip


def same(first: torch.Tensor, second: torch.Tensor) -> None:
    """Both ways give the same weights."""
    assert torch.allclose(first, second, rtol=1e-6, atol=1e-8)


def cases(smoke: bool) -> Iterable[Case]:
    """Widths × numbers of nodes."""
    for width in (30,) if smoke else (512, 1433):
        size = replace(PRESETS["small" if smoke else "cora_like"], columns=width)
        graph = shares(block_model(size), 0.8, 0.1, 0)[0]
        for count in (1,) if smoke else (1, 10, 50, 135):
            yield compared(graph, count)


if __name__ == "__main__":
    main(__doc__, cases)
