"""A tiny graph whose nodes are classified by two graph convolutions: examples are nodes, and they share the whole graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from cases import FIXED
from expunge.core.batch import Batch
from expunge.core.data import Ids
from expunge.core.digest import digest_arrays
from expunge.core.request import Target
from expunge.core.task import Outputs

CLASSES, WIDTH, FEATURES = 2, 4, 3


@dataclass(frozen=True, eq=False)
class Nodes:
    """A graph and those of its nodes that count as examples; a node that goes stays in the graph without its label.

    Shapes:
        features (n, d), adjacency (n, n) normalised, labels (n,), ids (examples,).
    """

    features: Tensor
    adjacency: Tensor
    labels: Tensor
    ids: np.ndarray
    preprocessing = FIXED

    @property
    def digest(self) -> str:
        return digest_arrays(
            {"features": self.features, "adjacency": self.adjacency, "y": self.labels, "ids": self.ids}
        )

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, target: Target) -> Ids:
        return Ids.rows(np.intersect1d(np.asarray(target.where["ids"]), self.ids))

    def without(self, ids: Ids) -> Nodes:
        return replace(self, ids=np.setdiff1d(self.ids, ids["row"]))

    def only(self, ids: Ids) -> Nodes:
        return replace(self, ids=np.intersect1d(self.ids, ids["row"]))

    def touched(self, ids: Ids) -> Ids:
        return Ids.none()


def two_communities(n: int = 24, seed: int = 0) -> Nodes:
    """Nodes on a ring with a few chords, the features of each half apart; normalised as D^-1/2 (A + I) D^-1/2."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) >= n // 2).astype(int)
    adjacency = np.eye(n)
    for a, b in [(i, (i + 1) % n) for i in range(n)] + [tuple(rng.integers(0, n, 2)) for _ in range(n // 4)]:
        adjacency[a, b] = adjacency[b, a] = 1.0
    scale = 1 / np.sqrt(adjacency.sum(1))
    features = rng.standard_normal((n, FEATURES)) + labels[:, None]
    return Nodes(*map(torch.from_numpy, (features, scale[:, None] * adjacency * scale, labels)), np.arange(n))


class TwoConvolutions(nn.Module):
    """A tanh(A (X W1 + b1)) W2 + b2, both times averaged over neighbours: the logits of every node of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return adjacency @ self.second(torch.tanh(adjacency @ self.first(x)))


@dataclass(frozen=True)
class NodeClassification:
    """Columns ``node`` and ``y``; shared ``x`` and ``adjacency``."""

    name: str = "nodes"
    device: str = "cpu"

    def build(self, tensors: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = TwoConvolutions().double()
        if tensors is not None:
            model.load_state_dict(dict(tensors))
        return model

    def released(self, model: nn.Module) -> dict[str, Tensor]:
        return dict(model.state_dict())

    def check(self, data: Nodes) -> None:
        assert data.features.shape[1] == FEATURES

    def batch(self, data: Nodes, index: Any = None) -> Batch:
        node = torch.from_numpy(data.ids)
        columns = Batch({"node": node, "y": data.labels[node]}, {"x": data.features, "adjacency": data.adjacency})
        return columns if index is None else columns.take(torch.as_tensor(index))

    def outputs(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Outputs:
        every = functional_call(model, dict(params), (batch["x"], batch["adjacency"]))
        return Outputs(every.index_select(0, batch["node"]))

    def losses(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.outputs(model, params, batch).logits, batch["y"], reduction="none")

    def files(self) -> dict[str, bytes]:
        return {}
