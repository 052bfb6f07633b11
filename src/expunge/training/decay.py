"""Which weights weight decay pulls at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def matrices_alone(parameters: Sequence[Tensor], decay: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer in which tensors of fewer than two dimensions have no decay.

    These are the biases and the weights of normalisation, which the Trainer of ``transformers``, and so every trainer that
    language models are unlearned with, leaves out by name. Embeddings decay there, and here.
    """
    groups = [
        {"params": [tensor for tensor in parameters if tensor.ndim > 1], "weight_decay": decay},
        {"params": [tensor for tensor in parameters if tensor.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
