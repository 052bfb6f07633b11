"""One run in several processes: the first decides, keeps records and reports; the others compute their share of the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from expunge.descent.processes import Processes
from expunge.planning import Plan


def found_by_first(
    together: Processes, look: Callable[[], dict[str, Any] | None]
) -> tuple[bool, dict[str, Any] | None]:  # fmt: skip
    """Let the first process alone ``look``, which may write: whether it found something or failed, and what it found."""
    found, over = None, True
    try:
        found = None if together.rank else look()
        over = found is not None
    finally:  # the others wait for its word
        over = together.from_first(over)
    return over, found


@contextmanager
def announced(together: Processes) -> Iterator[Callable[[], None]]:
    """Tell the other processes, once, whether the first step comes."""
    word = iter((together.from_first,))

    def starts() -> None:
        next(word)(True)

    try:
        yield starts
    finally:
        for tell in word:
            tell(False)


def beside(together: Processes, prepare: Callable[[], Plan]) -> dict[str, Any]:
    """Another process of the run: it computes its share of the steps, and records and returns nothing."""
    starts = False
    try:
        planned = prepare()
    finally:  # the first process waits for all to hear its word
        starts = together.from_first(None)
    if starts:
        planned.run()
    return {}
