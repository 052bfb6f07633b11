"""One network a shard of the training nodes, each of which can be trained anew by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Trained
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.partitions import PARTITIONS, partition
from expunge.tasks.graphs.shards import ShardedNetwork
from expunge.training.facts import declared, enforced, inspect, prepared
from expunge.training.graphs import GraphTraining
from expunge.training.optimizers import Adam

NODES, SHARD = "shards.nodes", "shards.of"  # names among the secret tensors: training nodes, and the shard of each
SHARES = "shares"  # buffer of the network
LEARNT_ON, BATCH, EPOCHS, RATE = 1000, 32, 50, 1e-3  # of the learned aggregator (released code)


@dataclass(frozen=True, kw_only=True)
class GraphShards:
    """Training nodes by shard, a network on each induced subgraph (edges between shards are lost), and an aggregator.

    Attributes:
        partition: ``random``, ``blpa`` or ``bekm`` (``data.graphs.partitions``).
        epochs, lr, l2: of each network, as in :class:`~expunge.training.graphs.GraphTraining`.

    How many shards there are, and the aggregator, are said by the network.
    """

    partition: str = "random"
    epochs: int = 200
    lr: float = 0.01
    l2: float = 5e-4
    leaves_state: ClassVar[bool] = True

    def __post_init__(self):
        if self.partition not in PARTITIONS:
            raise InputError(f"Expected a partition among {', '.join(PARTITIONS)}; got {self.partition!r}.")
        self._training()  # checks

    def _training(self) -> GraphTraining:
        return GraphTraining(epochs=self.epochs, lr=self.lr, l2=self.l2)

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "shards of a graph", **asdict(self)}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Partition, train each shard, set the aggregator. Formal guarantee: none.

        Raises:
            InputError: for another model than a :class:`~expunge.tasks.graphs.shards.ShardedNetwork`.
        """
        model = sharded(task)
        of = partition(data, len(model.members), self.partition, seed)
        final: dict[str, Tensor] = {}
        for shard in range(len(model.members)):
            final |= self.fit_shard(task, data, data.examples[of == shard], shard, seed)
        final[SHARES] = learned_shares(task, final, data, seed)
        facts = {
            **inspect(model),
            **prepared(data),
            "augmentation": enforced(False),
            "start": declared("independent", "the networks fill their own weights"),
            "selection": enforced("fixed"),
            "rows": enforced(len(data), "counted"),
        }
        state = {**final, NODES: torch.from_numpy(data.examples.copy()), SHARD: torch.from_numpy(of)}
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed, state=state)

    def fit_shard(self, task: Task, data: Graph, nodes: np.ndarray, shard: int, seed: int) -> dict[str, Tensor]:
        """Weights of one network by their names in the whole, trained on the graph that ``nodes`` induce."""
        model = sharded(task)
        alone: Any = replace(task, factory=model.member)  # type: ignore[type-var]
        induced = data.without(Ids({"node": np.setdiff1d(data.nodes, nodes)}))
        trained = self._training().fit(alone, induced, seed=1000 * seed + shard)
        return {f"members.{shard}.{name}": tensor for name, tensor in trained.artifact.tensors.items()}


def sharded(task: Any) -> ShardedNetwork:
    """The network of ``task``; raises InputError where it has no shards."""
    model = task.build()
    if type(model) is not ShardedNetwork:
        raise InputError(
            f"Expected a network of shards (shards: 10 in the training of a job); got {type(model).__name__}."
        )
    return model


def learned_shares(task: Any, tensors: Mapping[str, Tensor], data: Graph, seed: int) -> Tensor:
    """Weights of the members, (shards,): equal ones, or those that minimise ``CE(sum w_i p_i, y) + ||w||`` (LBAggr).

    The released code takes a softmax twice; here probabilities are taken as they are.
    """
    model = sharded(task)
    count = len(model.members)
    if model.aggregator != "learned":
        return torch.full((count,), 1 / count, dtype=task.dtype)
    model.load_state_dict({**tensors, SHARES: torch.full((count,), 1 / count)})
    draw = np.random.default_rng([seed, count])
    batch = task.batch(data)
    chosen = torch.from_numpy(draw.permutation(len(data))[:LEARNT_ON])
    with torch.no_grad():
        each = model.eval().probabilities(batch["x"], batch["edge_index"])[:, batch["node"][chosen]]
    y = batch["y"][chosen]
    shares = torch.full((count,), 1 / count, dtype=each.dtype).requires_grad_()
    optimizer = Adam([shares], RATE)
    for _ in range(EPOCHS):
        order = torch.from_numpy(draw.permutation(len(y)))
        for part in order.split(BATCH):
            mixed = (shares[:, None, None] * each[:, part]).sum(0).clamp_min(1e-12).log()
            loss = nn.functional.nll_loss(mixed, y[part]) + shares.norm()
            (shares.grad,) = torch.autograd.grad(loss, [shares])
            optimizer.step()
            with torch.no_grad():
                shares.clamp_(min=0)
    total = shares.detach().sum()
    return shares.detach() / total if total > 0 else torch.full_like(shares.detach(), 1 / count)
