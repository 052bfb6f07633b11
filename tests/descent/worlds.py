"""Tiny runs for tests of the loop: a net with BatchNorm and dropout, a net of one layer, and journals that can be cut."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cases import blobs
from expunge.core.data import Deletion, Ids
from expunge.core.method import InMemory
from expunge.descent.descend import Descend, Descended
from expunge.descent.parameters import Selection
from expunge.descent.work import Prepared, Work
from expunge.tasks.classification import Classification

BATCHES = {"forget": 4, "retain": 16, "mixed": 16}


def restless(hidden: int = 8) -> nn.Sequential:
    """BatchNorm and dropout: everything that a forward pass can move or draw."""
    return nn.Sequential(
        nn.Linear(2, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(hidden, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


def plain() -> nn.Sequential:
    """No buffers, no randomness."""
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3))


def work(
    net: Callable[[], nn.Module] = plain, forget: int = 10, seed: int = 0, data: Any = None, probes: Any = None, **options: Any
) -> Work:  # fmt: skip
    """A run on blobs whose first ``forget`` rows go."""
    data = data or blobs()
    ids = Ids.rows(range(forget))
    deletion = Deletion(data, data.without(ids), data.only(ids), ids, probes=probes or {})
    task = options.pop("task", None) or Classification(net)
    model = task.build(seed=3)
    base = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Work(task, model, base, deletion, BATCHES, seed, **options)


def run(method: Descend, on: Work, journal: Any = None) -> Descended:
    return method.run(on, journal or InMemory())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@dataclass(frozen=True)
class Given:
    """An objective from a function of (work, role, batch, turn), on both streams."""

    of: Callable[..., Tensor]

    def prepare(self, work: Work) -> Prepared:
        streams = {
            "forget": work.task.batch(work.deletion.forget),
            "retain": work.task.batch(work.deletion.after),
        }
        return Prepared(streams, functools.partial(self.of, work))


@dataclass(frozen=True)
class Masked:
    """The same random mask for the roles named."""

    strict: bool = True
    roles: tuple[str, ...] = ("forget", "retain")

    def select(self, work: Work) -> Selection:
        names = tuple(name for name, _ in work.model.named_parameters())
        generator = torch.Generator().manual_seed(0)
        masks = {name: torch.rand(tensor.shape, generator=generator) < 0.5 for name, tensor in work.params.items()}
        return Selection(names, dict.fromkeys(self.roles, masks), self.strict)
