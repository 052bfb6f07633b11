"""How far one client's data spread through a network: what each peer's model owes to them, to first order.

Run gossip twice, with and without some examples of client c, and let delta_k be the difference of c's two gradients in round k.
Without curvature the models then differ by E_i = -gamma sum_k (Q^(K-1-k))_ic delta_k. As |(Q^t)_ic - 1/N| <= lambda^t, every
peer's share is 1/N up to gamma G / (1 - lambda), G the largest ||delta_k||.

Derived here, in the form of Lemma 1 of "Certified Unlearning in Decentralized Federated Learning" (arXiv 2601.06436), whose
printed inequality is UNKNOWN to us.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from expunge.core.errors import InputError


def spread(matrix: sparse.csr_array, client: int, differences: np.ndarray, lr: float) -> np.ndarray:
    """E_K without curvature: by how much each peer's model differs after K rounds.

    Args:
        matrix: Q, (N, N). client: c. differences: delta_0 … delta_{K-1}, (K, d). lr: gamma.

    Shapes:
        Returns (N, d).
    """
    models = np.zeros((len(matrix.indptr) - 1, differences.shape[1]))
    for difference in differences:
        models = matrix @ models
        models[client] -= lr * difference
    return models


def unequal(largest: float, eigenvalue: float, lr: float) -> float:
    """gamma G / (1 - lambda): by how much at most a peer's share can differ from the mean's, without curvature.

    Args:
        largest: G. eigenvalue: lambda (:func:`~expunge.network.mixing.second_eigenvalue`). lr: gamma.
    """
    if not 0 <= eigenvalue < 1:
        raise InputError(f"Expected an eigenvalue lambda in [0, 1); got {eigenvalue}: such a network does not mix.")
    return lr * largest / (1 - eigenvalue)
