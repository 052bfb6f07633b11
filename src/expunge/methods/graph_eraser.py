"""Train anew only the shards that a request touches, and set the aggregator again.

GraphEraser (Chen et al. 2022, arXiv 2103.14991).

Formal guarantee: none is certified. Networks of touched shards are retrained and all others never saw what goes; but which node
is in which shard was decided with what goes in view (``blpa``, ``bekm``), and is not decided again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.trained import Artifact
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.methods.stages import stage_once
from expunge.training.graph_shards import NODES, SHARD, SHARES, GraphShards, learned_shares, sharded


@dataclass(frozen=True, kw_only=True)
class GraphEraser:
    """Retraining by shards. A random request for 5 % of the nodes touches every shard and saves nothing."""

    name: ClassVar[str] = "graph_eraser"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("node", "edge", "feature"),
        tasks=("graph",),
        needs=("retained data", "forgotten data", "sharded training"),
    )
    papers: ClassVar[tuple[Paper, ...]] = (Paper("Graph unlearning", "Chen et al., CCS 2022", "2103.14991"),)

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a network of shards, some of which saw what goes, and none of which is left empty."""
        trained, deletion = context.trained, context.deletion
        try:
            sharded(context.task)
        except InputError as error:
            return Refusal(f"graph_eraser trains shards anew. {error}", "Use retrain.")
        if not isinstance(trained.recipe, GraphShards) or NODES not in trained.secret:
            return Refusal(
                "graph_eraser needs to know which node is in which shard; this model's is lost.", "Use retrain."
            )
        nodes, of = (trained.secret[name].numpy() for name in (NODES, SHARD))
        touched = touched_shards(deletion.before, deletion.ids, nodes, of)
        if not len(touched):
            return Refusal(
                "No shard saw what goes: only edges between shards, or nodes that nobody trained on.",
                "Use utu, which cuts the graph and leaves the weights.",
            )
        left = np.isin(nodes, deletion.after.examples)
        if empty := [int(shard) for shard in touched if not left[of == shard].any()]:
            return Refusal(
                f"Every training node of shard {empty[0]} would go; a network cannot be trained on none.",
                "Use retrain.",
            )
        return Estimate(
            int(left[np.isin(of, touched)].sum()) * trained.recipe.epochs, len(deletion.after) * trained.recipe.epochs
        )

    def run(self, context: Context) -> Unlearned:
        """Retrain touched shards from their own seeds; all other networks stay bit for bit."""
        trained, deletion = context.trained, context.deletion
        recipe, after = trained.recipe, deletion.after
        assert isinstance(recipe, GraphShards)
        nodes, of = (trained.secret[name].numpy() for name in (NODES, SHARD))
        touched = touched_shards(deletion.before, deletion.ids, nodes, of)
        stays = np.isin(nodes, after.examples)

        def fitted() -> dict[str, Tensor]:
            final = dict(trained.artifact.tensors)
            for shard in touched:
                mine = nodes[stays & (of == shard)]
                final |= recipe.fit_shard(context.task, after, mine, int(shard), trained.seed)
            return {**final, SHARES: learned_shares(context.task, final, after, trained.seed)}

        final = stage_once(context.journal, "shards", fitted)
        shards = {NODES: torch.from_numpy(nodes[stays]), SHARD: torch.from_numpy(of[stays])}
        return Unlearned(
            views={"model": Artifact(final)},
            state={**final, **shards},
            purged=("networks of the shards that saw what was forgotten",),
            remains=("which node is in which shard, which was decided with what was forgotten in view",),
            gradient_evaluations=int(np.isin(of[stays], touched).sum()) * recipe.epochs,
            details={"shards_retrained": len(touched), "shards": int(of.max()) + 1},
        )


def touched_shards(graph: Graph, ids, nodes: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Shards that saw what goes: of nodes, of features of nodes, and of edges with both ends inside."""
    named = np.union1d(ids["node"], names.apart(ids["feature"])[0])
    found = [of[np.isin(nodes, named)]]
    ends = names.edges(ids["edge"])
    inside = ends[np.isin(ends, nodes).all(1)]
    first, second = (of[np.searchsorted(nodes, column)] for column in inside.T)
    return np.unique(np.concatenate([*found, first[first == second]]))
