"""A toy graph for rehearsals: nodes are rows, edges can go, and a row's features follow its neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from cases import FIXED
from expunge.core.data import Ids
from expunge.core.digest import digest_arrays


@dataclass(frozen=True, eq=False)
class Graph:
    """Edges by persistent id; ``shown`` are the nodes that count as rows of this view."""

    features: torch.Tensor
    labels: torch.Tensor
    edges: dict[int, tuple[int, int]]
    shown: np.ndarray
    preprocessing = FIXED

    @property
    def x(self) -> torch.Tensor:
        """Mean over each shown node and its neighbours, (rows, d)."""
        adjacency = torch.eye(len(self.features), dtype=torch.float64)
        for a, b in self.edges.values():
            adjacency[a, b] = adjacency[b, a] = 1.0
        return (adjacency @ self.features / adjacency.sum(1, keepdim=True))[self.shown]

    @property
    def y(self) -> torch.Tensor:
        return self.labels[self.shown]

    @property
    def digest(self) -> str:
        return digest_arrays({"x": self.x, "y": self.y, "edges": np.array(sorted(self.edges)), "shown": self.shown})

    def __len__(self) -> int:
        return len(self.shown)

    def select(self, target):
        return Ids({str(target.kind): [i for i in target.where["ids"] if i in self.edges]})

    def without(self, ids):
        return replace(self, edges={i: ends for i, ends in self.edges.items() if i not in ids["edge"]})

    def only(self, ids):
        return replace(self, shown=np.union1d(ids["row"], self.touched(ids)["row"]))

    def touched(self, ids):
        return Ids.rows({node for i in ids["edge"] for node in self.edges.get(i, ())})
