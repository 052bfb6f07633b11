"""Start-up: ``expunge --help`` against an empty typer programme (goal: at most 4 x its time), and ``import expunge``.

Processes are started in turn; the processor time of these processes is compared. The ratio is below 1 where ours takes longer.
Run from the repository root: ``python bench/start_up.py [--smoke] [--json]``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable

from comparison import Case, main

EMPTY = "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None: ...\napp()"


def started(*arguments: str) -> Callable[[], str]:
    return lambda: subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def without_torch(_: str, found: str) -> None:
    if found.strip() == "True":
        raise SystemExit("import expunge loads torch.")


def cases(smoke: bool) -> Iterable[Case]:
    loaded = started("-c", "import sys, expunge; print('torch' in sys.modules)")
    yield Case(
        name="import expunge", baselines={"an empty Python programme": started("-c", "pass")}, ours=loaded,
        agree=without_torch, clock=of_children,
    )  # fmt: skip
    if not smoke:
        yield Case(
            name="expunge --help", baselines={"an empty typer programme": started("-c", EMPTY, "--help")},
            ours=started("-m", "expunge", "--help"), clock=of_children, rounds=11, goal=0.25,
        )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
