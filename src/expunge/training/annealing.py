"""How a learning rate rises and falls over the steps of a run."""

from __future__ import annotations

import math


def factor(anneal: str, warmup: float, step: int, steps: int, progress: float | None = None) -> float:
    """The share of its peak that a learning rate has at ``step`` of ``steps``, counted from 0.

    It rises linearly over the first ``warmup`` of the steps, rounded up, and falls from then on. Steps are counted as the
    schedules of ``transformers`` count them: with a warm-up the first step has a rate of 0, and the peak is reached at the
    first step after it.

    Args:
        anneal: ``constant``, ``linear`` or ``cosine``; the last two fall to 0.
        warmup: share of the steps, 0 to 1.
        progress: without a warm-up, the share of the way that was made before this step, where that is not ``step / steps``.

    >>> [round(factor("linear", 0.5, step, 4), 2) for step in range(4)]
    [0.0, 0.5, 1.0, 0.5]
    """
    warm = math.ceil(warmup * steps)
    if step < warm:
        return step / warm
    done = progress if not warm and progress is not None else (step - warm) / (steps - warm)
    match anneal:
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case "linear":
            return 1 - done
        case _:
            return 1.0
