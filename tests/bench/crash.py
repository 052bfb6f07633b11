"""Kill a benchmark at many moments, start the same one again, and compare what came of it with one that was left alone.

``python -m tests.bench.crash FOLDER TRIALS KILLS`` prints a line of JSON for each trial of KILLS kills. The benchmark runs
in copies of this process, which has imported everything already.
``python -m tests.bench.crash FOLDER`` runs the recipe in FOLDER once, to be killed from outside.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from expunge.bench.run import fingerprint

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


def trial(recipe: Path, place: Path, delays: list[float], alone: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Kills one after another in one folder, and the run that finishes."""
    place.mkdir(parents=True)
    killed, cells = 0, []
    for delay in delays:
        before = whole_lines(place)
        process = start(recipe, place)
        time.sleep(delay * (1 - before.count(b"\n") / (len(alone[1]) + 2)))  # less is left to do after each kill
        os.kill(process, signal.SIGKILL)
        killed += wait(process) == -signal.SIGKILL
        assert whole_lines(place).startswith(before), "the past was rewritten"
        cells.append(max(0, whole_lines(place).count(b"\n") - 1))
    before = whole_lines(place)
    code = wait(start(recipe, place))
    assert code == 0, (place / "stderr").read_text()
    assert whole_lines(place).startswith(before), "the past was rewritten"
    assert outcome(place) == alone, "a killed run came to another result"
    return {"delays": [round(delay, 3) for delay in delays], "killed": killed, "cells": cells}


def main(folder: Path, trials: int, kills: int) -> None:
    """Moments spread evenly over a whole run, in a random order."""
    recipe = tiny.write(folder, methods=ROWS)
    tiny.run(recipe, folder / "warm" / "out", folder / "warm" / "cache")  # copies have nothing left to import
    alone = folder / "alone"
    alone.mkdir()
    began = time.monotonic()
    code = wait(start(recipe, alone))
    assert code == 0, (alone / "stderr").read_text()
    seconds = time.monotonic() - began
    generator = random.Random(SEED)
    shares = [(i + generator.random()) / (trials * kills) for i in range(trials * kills)]
    generator.shuffle(shares)
    for i in range(trials):
        delays = [seconds * share for share in shares[i * kills : (i + 1) * kills]]
        print(json.dumps(trial(recipe, folder / f"trial {i}", delays, outcome(alone))), flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        tiny.run(Path(sys.argv[1]) / "recipe.yaml", Path(sys.argv[1]) / "out", Path(sys.argv[1]) / "cache")
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
