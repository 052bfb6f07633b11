"""Kill a benchmark at many moments, start the same one again, and compare what came of it with one that was left alone.

``python -m tests.bench.crash FOLDER TRIALS KILLS`` prints a line of JSON for each trial of KILLS kills. The benchmark runs
in copies of this process, which has imported everything already.
``python -m tests.bench.crash FOLDER STEP`` runs the recipe in FOLDER once, and kills itself at a step of its first method.
Moments are counted in finished cells and in steps: a clock would know nothing of how busy a machine is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tests.waiting import runs, wait_until

from expunge.bench.run import fingerprint
from expunge.descent import descend

from . import tiny

SEED = 20261121  # of the moments
ROWS = {"fine_tune": {"epochs": 2}, "random_labels": {"epochs": 2}, "scrub_r": {"method": "scrub", "rewind": True}}


def start(recipe: Path, place: Path) -> int:
    """Start the benchmark in a copy of this process; returns the process id."""
    if child := os.fork():
        return child
    code = 1
    try:
        record = tiny.run(recipe, place / "out", place / "cache")
        (place / "fingerprint").write_text(fingerprint(record))
        code = 0
    except BaseException:
        (place / "stderr").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """Exit code; minus the signal where one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def whole_lines(place: Path) -> bytes:
    """What of the results file was finished."""
    path = place / "out" / "results.jsonl"
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def outcome(place: Path) -> tuple[str, dict[str, Any]]:
    """The table's fingerprint and every weights digest, of a folder in which nothing unfinished is left."""
    out = place / "out"
    assert not [path for path in (out / "running").rglob("*") if path.is_file() and path.parent.name == "stages"]
    keys = [cell["key"] for cell in tiny.lines(out)]
    assert len(set(keys)) == len(keys), "a finished cell was run again"
    return (place / "fingerprint").read_text(), tiny.weights(out)


def finished(place: Path) -> int:
    """How many cells; the first line is none."""
    return max(0, whole_lines(place).count(b"\n") - 1)


def trial(
    recipe: Path, place: Path, moments: list[tuple[int, float]], alone: tuple[str, dict[str, Any]]
) -> dict[str, Any]:
    """Kills one after another in one folder, and the run that finishes.

    Args:
        moments: finished cells after which a kill comes, in rising order, and seconds from there.
    """
    place.mkdir(parents=True)
    killed, cells = 0, []
    for count, delay in moments:
        before = whole_lines(place)
        process = start(recipe, place)
        wait_until(lambda: finished(place) >= count, lambda: runs(process), every=0.0005)  # noqa: B023
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
        killed += wait(process) == -signal.SIGKILL
        assert whole_lines(place).startswith(before), "the past was rewritten"
        cells.append(finished(place))
    before = whole_lines(place)
    code = wait(start(recipe, place))
    assert code == 0, (place / "stderr").read_text()
    assert whole_lines(place).startswith(before), "the past was rewritten"
    assert outcome(place) == alone, "a killed run came to another result"
    return {"moments": [[count, round(delay, 3)] for count, delay in moments], "killed": killed, "cells": cells}


def moments_of(cells: int, seconds: float, trials: int, kills: int) -> Iterator[list[tuple[int, float]]]:
    """For each trial its kills: after no cell and up to the last but two, and within a cell of that length."""
    generator = random.Random(SEED)
    for _ in range(trials):
        counts = sorted(generator.sample(range(1, cells - 1), kills - 1))
        yield [(count, generator.random() * seconds) for count in (0, *counts)]


def main(folder: Path, trials: int, kills: int) -> None:
    """Kills spread over a whole run; the first of each trial comes before any cell was finished, or soon after."""
    recipe = tiny.write(folder, methods=ROWS)
    tiny.run(recipe, folder / "warm" / "out", folder / "warm" / "cache")  # copies have nothing left to import
    alone = folder / "alone"
    alone.mkdir()
    began = time.monotonic()
    code = wait(start(recipe, alone))
    assert code == 0, (alone / "stderr").read_text()
    seconds = time.monotonic() - began
    cells = finished(alone)
    for i, moments in enumerate(moments_of(cells, seconds / cells, trials, kills)):
        print(json.dumps(trial(recipe, folder / f"trial {i}", moments, outcome(alone))), flush=True)


def killed_at(recipe: Path, step: int) -> None:
    """Run once, until the first method that descends so far is at ``step``."""
    real = descend._Run._step

    def stepping(self: Any, turn: Any) -> None:
        if turn.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, turn)

    descend._Run._step = stepping
    tiny.run(recipe, recipe.parent / "out", recipe.parent / "cache")


if __name__ == "__main__":
    torch.set_num_threads(1)  # a copy of a process with several threads waits for those that were not copied
    if len(sys.argv) == 3:
        killed_at(Path(sys.argv[1]) / "recipe.yaml", int(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
