"""Waiting for other processes without a clock that a busy machine could lose against."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

HANG = 30 * 60.0  # seconds: ends a deadlock; nothing here takes a hundredth of it


def wait_until(happened: Callable[[], bool], going_on: Callable[[], bool], every: float = 0.005) -> bool:
    """Wait for something that a process does; whether it happened, and did not only end without it."""
    end = time.monotonic() + HANG
    while not happened():
        if not going_on():
            return happened()
        assert time.monotonic() < end, "half an hour has passed, and neither did it happen nor did the process end"
        time.sleep(every)
    return True


def runs(child: int) -> bool:
    """Whether a child of this process has not ended yet; its exit code can still be asked for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
