"""Decentralised stochastic gradient descent (D-PSGD): every peer mixes with its neighbours and steps on its own examples.

Lian et al. 2017, "Can decentralized algorithms outperform centralized algorithms?" (arXiv 1705.09056), Algorithm 1:
x_i <- sum_j Q_ij x_j - gamma g_i(x_i), the gradient at peer i's model before mixing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Trained
from expunge.data.partition import Partition
from expunge.network.mixing import (
    TOLERANCE,
    among,
    as_matrix,
    as_torch,
    metropolis,
    must_mix,
    second_eigenvalue,
    with_drops,
)
from expunge.network.peers import Peers
from expunge.network.topology import Topology, must_be_plain
from expunge.training.descent import Step, trainable
from expunge.training.facts import RECIPE, RESIDUAL, enforced, inspect, prepared, proved_constants, start_fact
from expunge.training.flat import flatten


@dataclass(frozen=True, eq=False)
class Run:
    """What a simulation of gossip came to.

    Attributes:
        models: of every peer after the last round, (N, d).
        lost: which edges lost their messages in each round, (K, E); ``None`` where none could. With
            ``mixing.with_drops`` it gives the matrix that was in force in each round.
    """

    models: Tensor
    lost: np.ndarray | None = None


def gossip(
    peers: Peers, topology: Topology, stacked: Tensor, rounds: int, lr: float, *, batch_size: int | None = None,
    drop: float = 0.0, seed: int = 0, watch: Any = None, matrix: sparse.csr_array | None = None,
) -> Run:  # fmt: skip
    """``rounds`` of D-PSGD from models ``stacked`` (N, d).

    Args:
        matrix: how neighbours average; Metropolis weights where not given.
        lr: gamma, constant.
        batch_size: examples of each peer's gradient, drawn with replacement; all where ``None``.
        drop: probability with which an edge loses its messages in a round: both ends then keep that weight themselves.
        seed: of drawn examples and of losses.

    Raises:
        InputError: if a weight stops being finite, naming the round.
    """
    matrix = metropolis(topology) if matrix is None else matrix
    generator = np.random.default_rng(seed)
    mixing = as_torch(matrix, stacked.dtype)
    full = peers.all_examples() if batch_size is None else None
    lost = None if not drop else generator.random((rounds, len(topology.edges))) < drop
    stride = max(1, rounds // 100)
    with torch.no_grad():
        for done in range(1, rounds + 1):
            local = full if full is not None else peers.sampled(batch_size or 1, generator)
            gradient = local.gradient(stacked)
            if lost is not None:
                mixing = as_torch(with_drops(matrix, lost[done - 1], topology), stacked.dtype)
            stacked = (mixing @ stacked).sub_(gradient, alpha=lr)
            if done % stride == 0 or done == rounds:
                if not torch.isfinite(stacked).all():
                    raise InputError(
                        f"Gossip diverged: a weight was not finite at round {done} of {rounds}. Take a smaller step size "
                        f"than lr={lr}, or check the inputs."
                    )
                if watch:
                    watch("train", done, rounds)
    return Run(stacked, lost)


@dataclass(frozen=True, kw_only=True)
class Gossip:
    """A network trained by D-PSGD.

    Attributes:
        topology: who talks to whom. Peers whose rows are all gone leave it, with their edges.
        rounds: K. lr: gamma, constant.
        l2: (l2 / 2) ||x||² in every peer's objective.
        batch_size: examples of each step at each peer; all where not given.
        consensus: whether training ends with the exact mean of all peers' models at each of them, as a sum along a spanning
            tree gives it. On: certificates speak of one model that all hold. Off: each peer keeps its own.
        drop: probability with which an edge loses its messages in a round.
        rewire: whether the rest of the network may be joined anew where peers that leave were a cut set.
        mixing: a symmetric, doubly stochastic matrix over the edges of ``topology``, as rows; Metropolis weights where not
            given. Peers keep for themselves what they gave to those that left.
    """

    topology: Topology
    rounds: int
    lr: float
    l2: float = 0.0
    batch_size: int | None = None
    consensus: bool = True
    drop: float = 0.0
    rewire: bool = False
    mixing: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self):
        Step(self.lr, self.l2)
        must_be_plain(self.topology)
        if self.mixing is not None:
            matrix = as_matrix(self.mixing)
            must_mix(matrix, self.topology)
            if second_eigenvalue(matrix) > 1 - TOLERANCE:
                raise InputError(
                    "Expected a mixing matrix under which every peer hears from every other in the end; under this one some "
                    "never do (its second eigenvalue is 1). Give the edges between them weights, or take Metropolis weights."
                )
        if self.rounds < 1:
            raise InputError(f"Expected at least one round; got {self.rounds}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"Expected a batch size of at least 1; got {self.batch_size}.")
        if not 0 <= self.drop < 1:
            raise InputError(f"Expected a probability of losing messages in [0, 1); got {self.drop}.")

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        plain = {
            name: getattr(self, name) for name in ("rounds", "lr", "l2", "batch_size", "consensus", "drop", "rewire")
        }
        own = {} if self.mixing is None else {"mixing": [list(row) for row in self.mixing]}
        return {"recipe": "gossip", **plain, **own, "topology": self.topology.describe()}

    def on_record(self) -> dict[str, Any]:
        """See :class:`~expunge.core.trained.OnRecord`."""
        return {"lr": self.lr, "l2": self.l2, "steps": self.rounds, RECIPE: digest_json(self.describe())}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Gossip:
        """From settings as JSON holds them."""
        mixing = record.get("mixing")
        return cls(
            **{
                **record,
                "topology": Topology.of_record(record["topology"]),
                "mixing": mixing and tuple(map(tuple, mixing)),
            }
        )

    def matrix(self, topology: Topology) -> sparse.csr_array:
        """How the peers of ``topology``, this network or what is left of it, average."""
        if self.mixing is None:
            return metropolis(topology)
        return among(as_matrix(self.mixing), self.topology, topology)

    def network_of(self, data: Partition) -> Topology:
        """The network that trains on ``data``: peers without rows have left.

        Raises:
            RefusedError: if what is left is not connected and may not be rewired.
        """
        if not isinstance(data, Partition):
            return self.topology
        gone = [peer for peer in self.topology.peers if not len(data.at(peer))]
        return self.topology.without(gone, self.rewire, data.name_of) if gone else self.topology

    def models(self, task: Task, data: Partition, seed: int = 0, watch: Any = None) -> tuple[Topology, Peers, Run]:
        """The network, its peers, and their models before any consensus."""
        topology = self.network_of(data)
        start = dict(task.build(seed=seed).state_dict())
        peers = Peers.of(task, data, topology, self.l2, start)
        run = gossip(
            peers, topology, peers.stacked(start), self.rounds, self.lr, batch_size=self.batch_size, drop=self.drop,
            seed=seed, watch=watch, matrix=self.matrix(topology),
        )  # fmt: skip
        return topology, peers, run

    def fit(self, task: Task, data: Partition, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train on record. Formal guarantee: none; the facts say what a theorem may build on."""
        topology, peers, run = self.models(task, data, seed, watch)
        views = views_of(topology, peers, run.models, self.consensus)
        facts = self._facts(task, data, peers, run.models.mean(0), seed)
        return Trained(task, next(iter(views.values())), data, self, None, facts, seed=seed, views=views)

    def _facts(self, task: Task, data: Partition, peers: Peers, mean: Tensor, seed: int) -> dict[str, Any]:
        model, start = peers.model, dict(task.build(seed=seed).state_dict())
        return {
            "optimizer": enforced("decentralised gradient descent"),
            "batch": enforced("full" if self.batch_size is None else "drawn"),
            "augmentation": enforced(False),
            "selection": enforced("fixed", "the number of rounds was fixed before the first"),
            **{name: enforced(value) for name, value in self.on_record().items()},
            "rows": enforced(len(data), "counted"), "peers": enforced(len(peers)),
            RESIDUAL: enforced(
                float(peers.mean_gradient(mean).double().norm()), "gradient norm of the mean objective at the mean model"
            ),
            **inspect(model),
            "buffers_moved": enforced(False, "the module has none"),
            **proved_constants(task, model, Step(self.lr, self.l2)),
            "start": start_fact(task, start, seed),
            "start_norm": enforced(float(flatten(start, trainable(model)).double().norm()), "norm of theta_0"),
            **prepared(data),
        }  # fmt: skip


def views_of(topology: Topology, peers: Peers, models: Tensor, consensus: bool) -> dict[str, Artifact]:
    """What each peer holds: the mean of all, one object, or its own model (N, d)."""
    if consensus:
        whole = Artifact(_own(peers.named(models.mean(0))))
        return dict.fromkeys(topology.peers, whole)
    return {peer: Artifact(_own(peers.named(models[i]))) for i, peer in enumerate(topology.peers)}


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
