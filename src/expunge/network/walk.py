"""A token that carries the model along a random walk; each holder takes a few steps on its own examples.

The walk of RR-DU (arXiv 2512.08443): the next holder is u with probability p and otherwise a neighbour of the present one,
drawn evenly among those that are not u. So the visits to u are Binomial(hops, p) whatever the graph is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Trained
from expunge.data.partition import Partition
from expunge.network.gossip import Gossip
from expunge.network.peers import must_be_shared_out
from expunge.network.topology import Topology, must_be_plain
from expunge.training.descent import split
from expunge.training.facts import RECIPE, buffers_moved, enforced, inspect, prepared, start_fact


def walk(topology: Topology, hops: int, generator: np.random.Generator, start: int = 0) -> list[int]:
    """Holders of ``hops`` hops from ``start`` on, each an evenly drawn neighbour of the one before."""
    holders, here = [], start
    neighbours = {i: sorted(topology.graph.neighbors(i)) for i in range(len(topology))}
    for _ in range(hops):
        holders.append(here)
        here = neighbours[here][generator.integers(len(neighbours[here]))] if neighbours[here] else here
    return holders


def walk_with_restarts(
    topology: Topology, hops: int, client: int, restart: float, generator: np.random.Generator
) -> list[int]:
    """Holders of ``hops`` hops: ``client`` with probability ``restart`` at each, otherwise a neighbour that is another peer.

    A peer whose only neighbour is ``client`` keeps the token instead. The walk begins at ``client``.

    Raises:
        InputError: for a probability outside (0, 1], or a network of one peer.
    """
    if not 0 < restart <= 1:
        raise InputError(f"Expected a restart probability in (0, 1]; got {restart}. 1/N makes the walk unbiased.")
    if len(topology) < 2:
        raise InputError("Expected at least two peers; a token has nowhere to go in a network of one.")
    others = {i: [j for j in sorted(topology.graph.neighbors(i)) if j != client] for i in range(len(topology))}
    holders, here = [], client
    for _ in range(hops):
        if generator.random() < restart:
            here = client
        elif others[here]:
            here = others[here][generator.integers(len(others[here]))]
        holders.append(here)
    return holders


def segments(holders: list[int], client: int) -> list[int]:
    """Hops from each visit of ``client`` to its next one."""
    at = [i for i, holder in enumerate(holders) if holder == client]
    return np.diff(at).tolist()


@dataclass(frozen=True, eq=False)
class Token:
    """A model on its way, with the optimizers that stay behind at each peer: the token itself is the model alone.

    Attributes:
        weights: name → tensor that moves. fixed: what does not.
        optimizer: ``adam`` or ``sgd``. lr: eta.
    """

    task: Task
    model: torch.nn.Module
    weights: dict[str, Tensor]
    fixed: Mapping[str, Tensor]
    optimizer: str
    lr: float

    @classmethod
    def of(cls, task: Task, tensors: Mapping[str, Tensor], optimizer: str, lr: float) -> Token:
        """A token with the model ``tensors``."""
        if optimizer not in ("adam", "sgd"):
            raise InputError(f"Expected an optimizer adam or sgd; got {optimizer!r}.")
        model = task.build(tensors)
        moved, fixed = split(model, tensors)
        return cls(task, model, {n: t.requires_grad_() for n, t in moved.items()}, fixed, optimizer, lr)

    def tensors(self) -> dict[str, Tensor]:
        """The model as it is now."""
        return {n: t.detach().clone() for n, t in {**self.weights, **self.fixed}.items()}

    def local(self) -> torch.optim.Optimizer:
        """A fresh optimizer of one peer; its moments stay with that peer."""
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.SGD
        return kind(list(self.weights.values()), lr=self.lr)

    def gradient(self, batch: Any) -> dict[str, Tensor]:
        """Of the mean loss on ``batch``."""
        losses = self.task.losses(self.model, {**self.weights, **self.fixed}, batch)
        found = torch.autograd.grad(losses.mean(), list(self.weights.values()), materialize_grads=True)
        return dict(zip(self.weights, found, strict=True))

    def descend(self, data: Partition, at: np.ndarray, optimizer: torch.optim.Optimizer, generator: np.random.Generator,
                averaged: int, batch_size: int) -> None:  # fmt: skip
        """One step on the mean of ``averaged`` mini-batches drawn from positions ``at``, the holder's own."""
        drawn = generator.choice(at, size=averaged * batch_size, replace=True)
        gradient = self.gradient(self.task.batch(data, torch.from_numpy(np.sort(drawn))))
        for name, tensor in self.weights.items():
            tensor.grad = gradient[name]
        optimizer.step()


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A network trained by a token on a random walk; all peers get the model at the end.

    Attributes:
        topology: who talks to whom. Peers whose rows are all gone leave it.
        hops: T. steps: local steps of each holder; several, their number is UNKNOWN in the paper: 60 as in our measurements.
        lr: eta. optimizer: ``adam`` (the paper's) or ``sgd``; its moments stay at each peer.
        batch_size: of each step; 64: our choice, UNKNOWN in the paper.
        rewire: see :class:`~expunge.network.gossip.Gossip`.
    """

    topology: Topology
    hops: int
    lr: float
    steps: int = 60
    batch_size: int = 64
    optimizer: str = "adam"
    rewire: bool = False

    def __post_init__(self):
        must_be_plain(self.topology)
        if min(self.hops, self.steps, self.batch_size) < 1:
            raise InputError("Expected at least one hop, one step and one example a step.")
        if not self.lr > 0:
            raise InputError(f"Expected a step size lr > 0; got {self.lr}.")

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        plain = {name: getattr(self, name) for name in ("hops", "steps", "lr", "batch_size", "optimizer", "rewire")}
        return {"recipe": "token walk", **plain, "topology": self.topology.describe()}

    def on_record(self) -> dict[str, Any]:
        """See :class:`~expunge.core.trained.OnRecord`."""
        return {"lr": self.lr, "steps": self.hops * self.steps, RECIPE: digest_json(self.describe())}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Walk:
        """From settings as JSON holds them."""
        return cls(**{**record, "topology": Topology.of_record(record["topology"])})

    def network_of(self, data: Partition) -> Topology:
        """See :meth:`Gossip.network_of <expunge.network.gossip.Gossip.network_of>`."""
        return Gossip(topology=self.topology, rounds=1, lr=1.0, rewire=self.rewire).network_of(data)

    def fit(self, task: Task, data: Partition, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train on record. Formal guarantee: none."""
        topology = self.network_of(data)
        must_be_shared_out(data, topology)
        start = dict(task.build(seed=seed).state_dict())
        token, generator = Token.of(task, start, self.optimizer, self.lr), np.random.default_rng(seed)
        places = [data.at(peer) for peer in topology.peers]
        optimizers: dict[int, torch.optim.Optimizer] = {}
        first = int(generator.integers(len(topology)))
        for done, holder in enumerate(walk(topology, self.hops, generator, first), 1):
            optimizer = optimizers.setdefault(holder, token.local())
            for _ in range(self.steps):
                token.descend(data, places[holder], optimizer, generator, 1, self.batch_size)
            if watch:
                watch("train", done, self.hops)
        whole = Artifact(token.tensors())
        if not all(torch.isfinite(tensor).all() for tensor in whole.tensors.values()):
            raise InputError(f"The walk diverged. Take a smaller step size than lr={self.lr}, or check the inputs.")
        facts = {
            "optimizer": enforced(f"{self.optimizer} on a token walk"), "batch": enforced("drawn"),
            "augmentation": enforced(False), "selection": enforced("fixed", "the number of hops was fixed before the first"),
            **{name: enforced(value) for name, value in self.on_record().items()}, "l2": enforced(0.0),
            "rows": enforced(len(data), "counted"), "peers": enforced(len(topology)), **inspect(token.model),
            **buffers_moved(token.model, [start, whole.tensors]), "start": start_fact(task, start, seed), **prepared(data),
        }  # fmt: skip
        return Trained(task, whole, data, self, None, facts, seed=seed, views=dict.fromkeys(topology.peers, whole))
