"""From which share of right answers on a language model knows what it is asked to forget."""

from __future__ import annotations

from expunge.modalities.knowledge import Knowledge

KNOWN = 0.25  # three times the micro world's chance: below it nothing was learnt that could be forgotten; ours


def knowledge(right: float) -> Knowledge:
    """What a model knows that gets a share ``right`` of what is to be forgotten right (answers, or tokens of them)."""
    return Knowledge(right, KNOWN, "what is to be forgotten", "a quarter")
