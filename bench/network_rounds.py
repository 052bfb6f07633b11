"""Rounds of gossip among many peers: all of them as one tensor, and one object a peer as most people write it.

``ours`` is ``network.gossip.gossip``: softmax regression of 510 weights, 20 examples a peer, a ring, full batches.
``one object a peer, gradient by hand`` mixes with its two neighbours and steps with the written-out gradient;
``one object a peer, autograd`` calls ``backward``. Growth is with peers of a ring, and with edges among 1,000 peers.
Run from the repository root: ``python bench/network_rounds.py [--smoke] [--json] [--threads 1]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import networkx
import numpy as np
import torch
from torch import Tensor, nn

from comparison import Case, Growth, main
from expunge.data.partition import evenly
from expunge.data.rows import Rows
from expunge.network.gossip import gossip
from expunge.network.mixing import metropolis
from expunge.network.peers import Peers
from expunge.network.topology import Topology
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead

FEATURES, CLASSES, EXAMPLES, LR, L2 = 51, 10, 20, 0.5, 1e-3


class Peer:
    """What one peer holds, and a round at it."""

    def __init__(self, x: Tensor, y: Tensor, by_hand: bool):
        self.x, self.y, self.by_hand = x, y, by_hand
        self.model = torch.zeros(CLASSES, FEATURES)
        self.neighbours: list[tuple[Peer, float]] = []
        self.own = 1.0

    def gradient(self) -> Tensor:
        if self.by_hand:
            apart = torch.softmax(self.x @ self.model.T, 1)
            apart[torch.arange(len(self.y)), self.y] -= 1
            return apart.T @ self.x / len(self.y) + L2 * self.model
        model = self.model.clone().requires_grad_()
        loss = nn.functional.cross_entropy(self.x @ model.T, self.y) + L2 / 2 * model.square().sum()
        loss.backward()
        assert model.grad is not None
        return model.grad

    def next(self) -> Tensor:
        mixed = self.own * self.model
        for other, weight in self.neighbours:
            mixed = mixed + weight * other.model
        return mixed - LR * self.gradient()


def one_by_one(peers: Peers, topology: Topology, rounds: int, by_hand: bool) -> Callable[[], Tensor]:
    x, y = peers.columns["x"].flatten(2), peers.columns["y"]
    objects = [Peer(x[i], y[i], by_hand) for i in range(len(topology))]
    matrix = metropolis(topology)
    for i, j in topology.edges:
        objects[i].neighbours.append((objects[j], float(matrix[i, j])))
        objects[j].neighbours.append((objects[i], float(matrix[i, j])))
    for peer in objects:
        peer.own = 1 - sum(weight for _, weight in peer.neighbours)

    def run() -> Tensor:
        for peer in objects:
            peer.model = torch.zeros(CLASSES, FEATURES)
        for _ in range(rounds):
            after = [peer.next() for peer in objects]
            for peer, model in zip(objects, after, strict=True):
                peer.model = model
        return torch.stack([peer.model.reshape(-1) for peer in objects])

    return run


def network(count: int, degree: int = 2) -> tuple[Peers, Topology]:
    """Random rows at ``count`` peers: a ring, or a random regular graph of another degree."""
    draw = torch.Generator().manual_seed(0)
    n = count * EXAMPLES
    rows = Rows.of(
        torch.randn(n, FEATURES, generator=draw) / FEATURES**0.5, torch.randint(0, CLASSES, (n,), generator=draw)
    )
    data = evenly(rows, count)
    if degree == 2:
        topology = Topology.make("ring", data.clients)
    else:
        topology = Topology.of(networkx.random_regular_graph(degree, count, seed=0), data.clients)
    task = Classification(functools.partial(SoftmaxHead, FEATURES, CLASSES))
    return Peers.of(task, data, topology, L2, dict(task.build().state_dict())), topology


def ours(made: tuple[Peers, Topology], rounds: int) -> Callable[[], Tensor]:
    peers, topology = made
    start = torch.zeros(len(peers), FEATURES * CLASSES)
    return lambda: gossip(peers, topology, start, rounds, LR).models


def close(theirs: Any, made: Any) -> None:
    if not torch.allclose(theirs, made, atol=1e-5):
        raise SystemExit(f"The models differ by up to {float((theirs - made).abs().max()):.3g}.")


def cases(smoke: bool) -> Iterable[Case]:
    rounds = 2 if smoke else 10
    for count in (4, 8) if smoke else (10, 100, 1_000, 10_000):
        made = network(count)
        few = rounds if count < 10_000 else 1
        sizes = (count, 2 * count, 3 * count, 4 * count) if count in (4, 1_000) else ()
        peers = {size: ours(network(size), few) for size in sizes}
        yield Case(
            name=f"{count:,} peers, {few} rounds", ours=ours(made, few), agree=close,
            baselines={
                "one object a peer, gradient by hand": one_by_one(*made, few, True),
                **({"one object a peer, autograd": one_by_one(*made, few, False)} if count < 10_000 else {}),
            },
            operations=few * count * 4.0 * EXAMPLES * FEATURES * CLASSES, rounds=3,
            growth=Growth(what="peers", ways=peers) if peers else None, goal=20.0 if count == 1_000 else None,
        )  # fmt: skip
    count = 16 if smoke else 1_000
    degrees = (3, 4, 6, 8) if smoke else (4, 8, 16, 32)
    made = network(count, degrees[0])
    yield Case(
        name=f"{count:,} peers, degree {degrees[0]}", ours=ours(made, rounds), agree=close,
        baselines={"one object a peer, gradient by hand": one_by_one(*made, rounds, True)},
        operations=rounds * count * 4.0 * EXAMPLES * FEATURES * CLASSES, rounds=3,
        growth=Growth(
            what="edges", ways={count * d // 2: ours(network(count, d), rounds) for d in degrees}
        ),
    )  # fmt: skip


if __name__ == "__main__":
    np.random.seed(0)
    main(__doc__, cases)
