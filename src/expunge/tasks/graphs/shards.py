"""Several networks of one kind, one a shard of the training nodes, whose answers are put together.

Source: GraphEraser (Chen et al. 2022, arXiv 2103.14991).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError

AGGREGATORS = ("mean", "majority", "learned")


class ShardedNetwork(nn.Module):
    """The logarithm of the members' probabilities, put together.

    Args:
        member: makes one network.
        shards: how many there are.
        aggregator: ``mean`` of probabilities; ``majority``: shares of votes, smoothed by one vote spread over all classes; or
            ``learned``: a mean with the weights in the buffer ``shares``, (shards,), which training sets.
    """

    def __init__(self, member: Callable[[], nn.Module], shards: int, aggregator: str = "mean"):
        super().__init__()
        if aggregator not in AGGREGATORS or shards < 1:
            raise InputError(
                f"Expected at least one shard and an aggregator among {', '.join(AGGREGATORS)}; got {shards}, {aggregator!r}."
            )
        self.members = nn.ModuleList([member() for _ in range(shards)])
        self.member, self.aggregator = member, aggregator
        self.register_buffer("shares", torch.full((shards,), 1 / shards))
        first: Any = self.members[0]
        self.depth, self.symmetric, self.sparse = first.depth, first.symmetric, first.sparse

    def probabilities(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Of each member, (shards, n, classes)."""
        return torch.stack([torch.softmax(member(x, edge_index), 1) for member in self.members])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits of every node."""
        each = self.probabilities(x, edge_index)
        if self.aggregator == "majority":
            classes = each.shape[2]
            votes = nn.functional.one_hot(each.argmax(2), classes).to(each).sum(0)
            return ((votes + 1 / classes) / (len(each) + 1)).log()
        shares: Tensor = self.shares  # type: ignore[assignment]
        together = (shares.to(each)[:, None, None] * each).sum(0)
        return together.clamp_min(torch.finfo(each.dtype).tiny).log()
