"""Small networks for tests: softmax regression in double precision on real digits or on blobs, shared out over ten peers."""

from __future__ import annotations

import functools

import numpy as np
import torch

from cases import FIXED
from expunge.data.partition import Partition, by_label, evenly
from expunge.data.rows import Rows
from expunge.network.gossip import Gossip
from expunge.network.topology import Topology
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead

NAMES = tuple(str(i) for i in range(10))


@functools.cache
def digits(features: int = 16, n: int = 1000) -> Rows:
    """Digits of scikit-learn on their leading principal axes, with a constant, scaled to norm one; double precision."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x[:n] - x[:n].mean(0)
    x = x @ np.linalg.svd(x, full_matrices=False)[2][:features].T
    x = np.c_[x / np.linalg.norm(x, axis=1, keepdims=True), np.ones(len(x))] / np.sqrt(2)
    return Rows.of(x, y[:n], preprocessing=FIXED)


@functools.cache
def partition(clients: int = 10, alpha: float | None = None, seed: int = 0) -> Partition:
    return evenly(digits(), clients, seed) if alpha is None else by_label(digits(), clients, alpha, seed)


def head(rows: Rows) -> Classification:
    shape = rows.x.shape[1], rows.classes
    return Classification(lambda: SoftmaxHead(*shape), dtype=torch.float64)


def recipe(kind: str = "ring", clients: int = 10, **settings) -> Gossip:
    names = tuple(str(i) for i in range(clients))
    return Gossip(
        **{"topology": Topology.make(kind, names, probability=0.5), "rounds": 60, "lr": 2.0, "l2": 1e-2, **settings}
    )
