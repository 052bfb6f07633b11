"""From which accuracy on its own training rows on a classifier has learnt something that could be forgotten."""

from __future__ import annotations

from expunge.modalities.knowledge import Knowledge

CHANCE_TIMES = 3  # below so many times chance nothing was learnt; ours
WAY = 0.25  # or, with few classes, below this share of the way from chance to no error at all; ours


def knowledge(right: float, classes: int) -> Knowledge:
    """What a classifier knows that gets a share ``right`` of its training rows right."""
    chance = 1 / classes
    least, bar = min(
        (CHANCE_TIMES * chance, f"{CHANCE_TIMES} times chance"),
        (chance + WAY * (1 - chance), "a quarter of the way from chance to no error"),
    )
    return Knowledge(right, least, "its own training rows", bar)
