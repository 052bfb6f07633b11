"""All peers of a network at once: their examples padded into one tensor, their models one row each of another.

A step of every peer is one batched product, by the closed form where the network has one (``tasks.closed_forms``) and by
``torch.func`` otherwise. Padding has weight 0 and repeats a peer's first example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.data.partition import Partition
from expunge.network.topology import Topology
from expunge.tasks.closed_forms import ClosedForm, Examples, closed_form
from expunge.training.descent import trainable


@dataclass(frozen=True, eq=False)
class Peers:
    """The local objectives f_i(x) = mean of the losses on peer i's examples + (l2 / 2) ||x||², all evaluated together.

    Attributes:
        task, model: how models are run; the module's own weights are never read.
        like: name → tensor of the shape that one peer has, in the order in which a model is flattened.
        columns: name → (N, n_max, ...), padded.
        counts: examples of each peer, (N,).
        l2: of every f_i.

    Shapes:
        stacked models (N, d); d counts the trainable weights.
    """

    task: Task
    model: nn.Module
    like: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]
    counts: Tensor
    l2: float
    form: ClosedForm | None

    @classmethod
    def of(cls, task: Task, data: Partition, topology: Topology, l2: float, start: Mapping[str, Tensor]) -> Peers:
        """The peers of ``topology`` with the rows that ``data`` say are theirs.

        Raises:
            InputError: for a peer without rows, a client that is no peer, or a model with buffers, which no peer would share.
        """
        must_be_shared_out(data, topology)
        model = task.build(start)
        names = trainable(model)
        if others := sorted({*model.state_dict()} - {*names}):
            raise InputError(
                f"Expected a model of trainable weights alone; {', '.join(others[:3])} would be averaged with nobody. Take a "
                "network without batch normalisation or frozen parts."
            )
        places = [data.at(peer) for peer in topology.peers]
        counts = torch.tensor([len(at) for at in places])
        most = int(counts.max())
        index = torch.from_numpy(np.stack([np.concatenate([at, np.full(most - len(at), at[0])]) for at in places]))
        form = closed_form(task, model)
        batch = task.batch(data)
        if batch.shared:
            raise InputError("Expected independent examples; these share tensors, which no peer holds alone.")
        batch = batch if form is None else form.projected(batch)
        columns = {name: column[index] for name, column in batch.tensors().items()}
        like = {name: start[name] for name in names}
        return cls(task, model, like, columns, counts, l2, form)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def size(self) -> int:
        """d."""
        return sum(tensor.numel() for tensor in self.like.values())

    @property
    def share(self) -> Tensor:
        """The weight of each example in its peer's mean, 0 for padding, (N, n_max)."""
        columns = torch.arange(next(iter(self.columns.values())).shape[1])
        dtype = next(iter(self.like.values())).dtype
        return (columns[None] < self.counts[:, None]).to(dtype) / self.counts[:, None]

    def stacked(self, model: Mapping[str, Tensor]) -> Tensor:
        """The same model at every peer, (N, d)."""
        flat = torch.cat([model[name].detach().reshape(-1) for name in self.like])
        return flat.expand(len(self), -1).clone()

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Models (..., d) as tensors by name, (..., *shape)."""
        parts = flat.split([tensor.numel() for tensor in self.like.values()], dim=-1)
        lead = flat.shape[:-1]
        return {name: part.reshape(*lead, *t.shape) for (name, t), part in zip(self.like.items(), parts, strict=True)}

    def mean_gradient(self, model: Tensor) -> Tensor:
        """Of F = (1/N) sum_i f_i at one model (d,), on all examples, (d,)."""
        return self.all_examples().gradient(model.expand(len(self), -1)).mean(0)

    def all_examples(self) -> Local:
        """Full-batch gradients, with what no step changes laid out once."""
        return Local.of(self, self.columns, self.share)

    def sampled(self, size: int, generator: np.random.Generator) -> Local:
        """Mean gradients on ``size`` examples of each peer, drawn evenly with replacement from its own."""
        drawn = (generator.random((len(self), size)) * self.counts[:, None].numpy()).astype(np.int64)
        rows, index = torch.arange(len(self))[:, None], torch.from_numpy(drawn)
        columns = {name: column[rows, index] for name, column in self.columns.items()}
        dtype = next(iter(self.like.values())).dtype
        return Local.of(self, columns, torch.full((len(self), size), 1 / size, dtype=dtype))


@dataclass(frozen=True, eq=False)
class Local:
    """Gradients of every peer's objective on chosen examples, as a function of stacked models."""

    peers: Peers
    columns: Mapping[str, Tensor]
    share: Tensor
    examples: Examples | None

    @classmethod
    def of(cls, peers: Peers, columns: Mapping[str, Tensor], share: Tensor) -> Local:
        """Columns (N, n, ...) that went through ``ClosedForm.projected`` where there is a form, and their weights (N, n)."""
        if peers.form is None:
            return cls(peers, columns, share, None)
        features = columns["x"].flatten(2).mT.contiguous()
        return cls(peers, columns, share, Examples(features, columns["y"]))

    def gradient(self, stacked: Tensor) -> Tensor:
        """Of each peer's objective at its own model, (N, d)."""
        peers, names = self.peers, list(self.peers.like)
        params = peers.named(stacked)
        if self.examples is not None:
            assert peers.form is not None
            found = peers.form.gradient(params, names, self.examples, self.share[:, None])
        else:
            found = vmap(grad(self._loss), randomness="error")(params, dict(self.columns), self.share)
        flat = torch.cat([found[name].flatten(1) for name in names], 1)
        return flat.add_(stacked, alpha=peers.l2) if peers.l2 else flat

    def _loss(self, params: dict[str, Tensor], columns: dict[str, Tensor], share: Tensor) -> Any:
        losses = self.peers.task.losses(self.peers.model, params, Batch(columns))
        return (share * losses).sum()


def must_be_shared_out(data: Any, topology: Topology) -> None:
    """Raise InputError unless every peer has rows and every row belongs to a peer."""
    if not isinstance(data, Partition):
        raise InputError(
            "Expected data with an owner for each row (data.partition.Partition): a network of peers trains on what each "
            f"client holds; got {type(data).__name__}."
        )
    if idle := [peer for peer in topology.peers if not len(data.at(peer))]:
        raise InputError(
            f"Expected rows at every peer; {', '.join(idle[:5])} hold(s) none. Leave peers without data out of the network."
        )
    known = {*topology.peers}
    if unknown := [client for client in data.clients if client not in known]:
        raise InputError(
            f"Expected every client to be a peer of the network; {', '.join(unknown[:5])} is none. Peers: "
            f"{', '.join(topology.peers[:10])}."
        )
