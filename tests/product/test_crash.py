"""SIGKILL at any moment: nothing is drawn twice, nothing is counted twice, and the same command finishes the request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.product.conftest import ROOT, SMALL
from tests.waiting import HANG, wait_until


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


HELD = """
import sys, time
from pathlib import Path
from expunge import measuring
from expunge.cli import main

there = Path(sys.argv.pop())

def held(*_, **__):
    there.touch()
    while True:
        time.sleep(1)

measuring.train_shadow_models = held
main()
"""


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path):
    """Interrupted while shadow models train, after the release is on disk; so that it is then, their training is held."""
    job = tmp_path / "job.yaml"
    job.write_text(SMALL.replace("shadow_models: 0", "shadow_models: 16"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "EXPUNGE_HOME": str(tmp_path / "home")}
    arguments = ["run", str(job), "--out", str(tmp_path / "out"), "--json"]
    there = tmp_path / "shadow models train"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it, children too
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *arguments, str(there)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    assert wait_until(there.exists, lambda: process.poll() is None), process.communicate()[1]
    assert list(tmp_path.glob("out.private/journal-*/stages/*release*"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG)
    assert (process.returncode, out) == (75, "")
    assert "run the same command again" in err
    command = [sys.executable, "-m", "expunge", *arguments]
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["runs"][0]["verdict"] == "certified-under-declared-constants"
