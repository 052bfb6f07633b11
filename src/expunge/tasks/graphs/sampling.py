"""Losses on sampled neighbourhoods: a step reads some neighbours of its examples, some of theirs, and no more of the graph.

Source: the sampler of GraphSAGE (Hamilton et al. 2017, arXiv 1706.02216, algorithm 2), uniform and without replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.tasks.graphs.sparse import Pattern, entries_of, remembered


def sampled(neighbours: Pattern, seeds: Tensor, fan_out: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Nodes around ``seeds`` and the messages towards them, drawn from the global random state.

    Every node that is reached takes messages from as many of its neighbours as ``fan_out`` has at its distance, or from all.

    Args:
        neighbours: who hears whom, a row for each node. seeds: positions, each once. fan_out: for each hop from the seeds.

    Shapes:
        → nodes (k,), positions, the seeds first; messages (2, e), source and target as positions in ``nodes``.
    """
    starts = neighbours.starts
    place = starts.new_full((len(starts) - 1,), -1)
    nodes, front = seeds, seeds
    place[seeds] = torch.arange(len(seeds), device=seeds.device)
    sources, targets = [], []
    for most in fan_out:
        counts = starts[front + 1] - starts[front]
        rows = torch.repeat_interleave(torch.arange(len(front), device=seeds.device), counts)
        ranks = torch.arange(len(rows), device=seeds.device) - (counts.cumsum(0) - counts)[rows]
        shuffled = torch.argsort(rows + torch.rand(len(rows), dtype=torch.float64).to(seeds.device))  # within each row
        chosen = shuffled[ranks < most]
        heard = neighbours.columns[starts[front][rows[chosen]] + ranks[chosen]]
        new = torch.unique(heard[place[heard] < 0])
        place[new] = torch.arange(len(nodes), len(nodes) + len(new), device=seeds.device)
        sources.append(heard)
        targets.append(front[rows[chosen]])
        nodes, front = torch.cat([nodes, new]), new
    return nodes, torch.stack([place[torch.cat(sources)], place[torch.cat(targets)]])


@dataclass(frozen=True)
class SampledNodes(NodeClassification):
    """The same task whose losses in training are those on sampled neighbourhoods; in evaluation it reads the whole graph.

    Attributes:
        fan_out: neighbours at most at each hop, from the examples outwards.
    """

    fan_out: tuple[int, ...] = ()

    @classmethod
    def around(cls, task: NodeClassification, fan_out: Sequence[int]) -> SampledNodes:
        """``task`` with sampled losses."""
        return cls(**vars(task), fan_out=tuple(fan_out))

    def losses(
        self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch, weight: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of each example, (b,); with ``weight``, which is of all edges, on the whole graph."""
        if not model.training or weight is not None:
            return super().losses(model, params, batch, weight)
        x, index = batch["x"], batch["edge_index"]
        hears = remembered(index, "hears", lambda it: Pattern.of(it[1], it[0], (x.shape[0],) * 2)[0])
        nodes, messages = sampled(hears, batch["node"], self.fan_out)
        part = {"x": rows_of(x, nodes), "edge_index": messages, "nodes": batch["nodes"][nodes]}
        seeds = torch.arange(len(batch), device=nodes.device)
        return super().losses(model, params, Batch({"node": seeds, "y": batch["y"]}, part))


def rows_of(x: Tensor, rows: Tensor) -> Tensor:
    """Some rows of a matrix, compressed as it is: (n, d) → (k, d)."""
    if x.layout is not torch.sparse_csr:
        return x.index_select(0, rows)
    pattern, values = entries_of(x)
    counts = pattern.starts[rows + 1] - pattern.starts[rows]
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    of = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    entries = pattern.starts[rows][of] + torch.arange(len(of), device=rows.device) - starts[of]
    return torch.sparse_csr_tensor(starts, pattern.columns[entries], values[entries], (len(rows), x.shape[1]))
