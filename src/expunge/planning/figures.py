"""Figures of a run as its record can hold them."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

import torch

from expunge.core.digest import finite


def finite_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON can carry; ``None`` for an infinite number, which bounds nothing."""
    return {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}


def peak_memory() -> int:
    """The most bytes that this process held so far; on a GPU, where one is used, of that."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
