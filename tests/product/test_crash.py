"""SIGKILL at any moment: nothing is drawn twice, nothing is counted twice, and the same command finishes the request."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.product.conftest import ROOT


def kill(folder, count: int, *options: str) -> list[dict]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.product.crash", str(folder), str(count), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()][1:]


def test_a_killed_run_is_finished_by_the_same_command(tmp_path):
    trials = kill(tmp_path, 3, "--fork")
    assert len(trials) == 3
    assert all(trial["killed"] for trial in trials)
    assert any(trial["stages"] for trial in trials), "no kill hit the part that writes"


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    trials = kill(tmp_path, 20)
    assert len(trials) == 20
    assert all(trial["killed"] for trial in trials)
    assert any("release" in trial["stages"] for trial in trials)
