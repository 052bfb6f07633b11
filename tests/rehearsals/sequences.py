"""A toy language model for rehearsals: token sequences, and a table of next-token scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from expunge.core.batch import Batch
from expunge.core.task import Outputs
from expunge.data.rows import Rows

WORDS = 8


def sentences(n: int = 24, length: int = 5, *, step: int = 1, seed: int = 0) -> Rows:
    """Sequences in which each token is the one before plus ``step``."""
    start = np.random.default_rng(seed).integers(0, WORDS, n)
    tokens = (start[:, None] + step * np.arange(length)) % WORDS
    return Rows.of(tokens, np.zeros(n, dtype=int), {"book": np.arange(n) // 4})


def at(data: Rows, positions: list[int]) -> Rows:
    """The rows at ``positions``, in that order; a row may come more than once."""
    return replace(data, x=data.x[positions], y=data.y[positions], ids=data.ids[positions], columns={})


@dataclass(frozen=True, eq=False)
class Items(Rows):
    """Authored sentences: which predictions count, and which words must not come out there."""

    counts: torch.Tensor | None = None  # (b, L-1)
    pushed: torch.Tensor | None = None  # (b, V)


@dataclass(frozen=True)
class NextToken:
    """Batches hold ``tokens`` (b, L), ``counts`` (b, L-1): which predictions count, ``pushed`` (b, V): masked words."""

    name: str = "sequences"
    device: str = "cpu"

    def build(self, tensors=None, *, seed: int = 0):
        model = nn.Embedding(WORDS, WORDS, dtype=torch.float64)
        nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(seed), std=0.1)
        if tensors is not None:
            model.load_state_dict(dict(tensors))
        return model

    def batch(self, data, index=None):
        tokens = (data.x if index is None else data.x[index]).long()
        pushed = getattr(data, "pushed", torch.zeros(len(data), WORDS, dtype=torch.bool))
        counts = getattr(data, "counts", torch.ones(len(data), tokens.shape[1] - 1, dtype=torch.bool))
        masks = {"counts": counts, "pushed": pushed}
        return Batch({"tokens": tokens, **{n: m if index is None else m[index] for n, m in masks.items()}})

    def outputs(self, model, params, batch):
        return Outputs(functional_call(model, dict(params), (batch["tokens"][:, :-1],)))  # (b, L-1, V)

    def losses(self, model, params, batch):
        logits = self.outputs(model, params, batch).logits.transpose(1, 2)
        each = nn.functional.cross_entropy(logits, batch["tokens"][:, 1:], reduction="none")  # (b, L-1)
        return (each * batch["counts"]).sum(1) / batch["counts"].sum(1)

    def pair(self, first, second):
        """One sentence after the other; only what the second says counts."""
        silent = torch.zeros(len(second), first.x.shape[1], dtype=torch.bool)
        counts = torch.cat([silent, self.batch(second)["counts"]], 1)
        pushed = self.batch(second)["pushed"]
        return Items(torch.cat([first.x, second.x], 1), second.y, second.ids, counts=counts, pushed=pushed)

    def released(self, model):
        return dict(model.state_dict())

    def files(self):
        return {}

    def check(self, data):
        assert data.x.ndim == 2
