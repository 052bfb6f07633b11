"""SIGKILL at any moment: what was measured stays, what was not is run again, and the table is the same bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from expunge.bench.run import fingerprint
from expunge.descent import descend

from . import tiny

ROOT = Path(__file__).parents[2]


def kill(folder: Path, trials: int, kills: int) -> list[dict]:
    command = [sys.executable, "-m", "tests.bench.crash", str(folder), str(trials), str(kills)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_killed_benchmark_is_finished_by_the_same_command(tmp_path):
    (trial,) = kill(tmp_path / "bench", 1, 3)
    assert trial["killed"] >= 2, "a run ended before its kill"
    assert trial["cells"] == sorted(trial["cells"])
    assert trial["cells"][-1] > 0, "no kill came after the first cell"


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    trials = kill(tmp_path / "bench", 10, 2)
    assert sum(trial["killed"] for trial in trials) >= 15


@pytest.mark.slow
def test_a_method_killed_in_the_middle_goes_on_from_its_last_stage(tmp_path, monkeypatch):
    """A descent of 800 steps, stored every 100: killed after the third stage, it makes the remaining steps only."""
    steps, stage = 800, 100
    rows = {"fine_tune": {"epochs": 400}}  # of 2 batches
    recipe = tiny.write(tmp_path, methods=rows, seeds=1)
    alone = tiny.run(recipe, tmp_path / "alone", tmp_path / "cache")
    (folder,) = [tmp_path / "out" / "running" / key for key in keys(tmp_path / "alone")]
    command = [sys.executable, "-m", "tests.bench.crash", str(tmp_path), "350"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    stored = stages(folder)
    assert stored == [stage, 2 * stage, 3 * stage], "the kill was not in the middle"
    made = []
    real = descend._Run._step
    monkeypatch.setattr(descend._Run, "_step", lambda run, turn: (made.append(turn.step), real(run, turn))[1])
    resumed = tiny.run(recipe, tmp_path / "out", tmp_path / "cache")
    assert made == list(range(max(stored), steps))
    assert tiny.weights(tmp_path / "out") == tiny.weights(tmp_path / "alone")
    assert fingerprint(resumed) == fingerprint(alone)
    assert not folder.exists()


def keys(out: Path) -> list[str]:
    return [cell["key"] for cell in tiny.lines(out) if cell["row"] == "fine_tune"]


def stages(folder: Path) -> list[int]:
    """How many steps each stage on disk has behind it."""
    names = [path.name.split(".")[1] for path in folder.glob("stages/*.*.*") if not path.name.startswith(".")]
    return sorted(int(name.removeprefix("descended-")) for name in names if name.startswith("descended-"))
