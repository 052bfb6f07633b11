"""Prediction of edges: any module that maps features and edges to a vector for every node, joined pairs by inner products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Outputs
from expunge.data.graphs.links import Links
from expunge.tasks.classification import must_name_each_weight_once
from expunge.tasks.graphs.nodes import NodeClassification


@dataclass(frozen=True)
class LinkPrediction(NodeClassification):
    """Runs modules ``(x, edge_index) → (n, k)`` on :class:`~expunge.data.graphs.links.Links`.

    An example is a pair of nodes. With s the inner product of their vectors the logits are ``(-s / 2, s / 2)``, of apart and
    joined: their cross-entropy is the binary logistic loss of s (as in GNNDelete, arXiv 2302.13406).
    """

    name: str = "links"

    def batch(self, data: Links, index: Any = None) -> Batch:
        """Columns ``first`` and ``second`` (places in the graph) and ``y`` (1 where joined); shared as of the graph."""
        places = torch.from_numpy(data.graph.positions(data.pairs))
        columns = {"first": places[:, 0], "second": places[:, 1], "y": torch.from_numpy(data.joined.astype("int64"))}
        batch = Batch({name: each.to(self.device) for name, each in columns.items()}, self.shared(data.graph))
        return batch if index is None else batch.take(torch.as_tensor(index))

    def outputs(
        self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch, weight: Tensor | None = None
    ) -> Outputs:
        """Logits (b, 2): apart, joined; ``weight`` as of :meth:`every`."""
        return Outputs(self.logits_from(self.every(model, params, batch, weight), batch))

    def logits_from(self, every: Tensor, batch: Batch) -> Tensor:
        """Logits of the examples of ``batch``, (b, 2), from the vectors of every node."""
        score = (every.index_select(0, batch["first"]) * every.index_select(0, batch["second"])).sum(1)
        return torch.stack([-score / 2, score / 2], 1)

    def check(self, data: Links) -> None:  # type: ignore[override]
        """Whether the module accepts the graph; one forward pass.

        Raises:
            InputError: with the shapes that do not fit, or the weights that stand under several names.
        """
        model = self.build().eval()
        must_name_each_weight_once(model)
        if not data.joined.any():
            raise InputError("Expected at least one edge that is trained on; there is none.")
        vectors = self.must_accept(model, data.graph, self.batch(data), "a vector for every node")
        if vectors.ndim != 2 or len(vectors) != len(data.graph.nodes):
            raise InputError(f"Expected vectors of shape (nodes, k); the model gives {tuple(vectors.shape)}.")
