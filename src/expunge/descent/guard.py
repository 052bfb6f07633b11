"""Looks at a run from time to time, keeps the best state, and stops what has gone too far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from expunge.core.errors import InputError
from expunge.descent.work import Work


@dataclass(frozen=True)
class Guard:
    """Keeps the state with the largest score; the run ends with it.

    Attributes:
        score: (work) → a number, larger is better; looks at the model as it is (LUNE: quality on benign material; SCRUB's
            rewinding: minus the distance between forget error and held-out error).
        every: steps between two looks; ``None``: at the end of each epoch.
        least: the run fails where no look reaches this score, in the words of ``unmet``; ``None``: any will do.
        at_end: whether it also looks after the last step, wherever ``every`` falls.
        keep: whether the best state counts; without it the guard only looks, and the last state counts.
        max_drop: end the run when a score is more than this below the one before the first step; ``None``: never.
    """

    score: Callable[[Work], float]
    every: int | None = None
    max_drop: float | None = None
    least: float | None = None
    unmet: str = ""
    keep: bool = True
    at_end: bool = False

    def __post_init__(self):
        if self.every is not None and self.every < 1:
            raise InputError(f"Expected a guard that looks every 1 or more steps; got {self.every}.")

    def looks(self, done: int, ends_epoch: bool) -> bool:
        """Whether it looks after ``done`` steps."""
        return ends_epoch if self.every is None else done % self.every == 0
