"""Two processes under accelerate make the run of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.descent.together import run

ROOT = Path(__file__).parents[2]


def together(settings: dict[str, Any], folder: Path | None = None, count: int = 2, **more: str) -> list[dict[str, Any]]:
    """What each of ``count`` processes says at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        arguments = [sys.executable, "-m", "tests.descent.together", json.dumps(settings)]
        if rank == 0 and folder is not None:
            arguments.append(str(folder))
        env = {**os.environ, **own, **where, **more, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=env))
    answers = []
    for process in started:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-2000:]
        answers.append(json.loads(out.splitlines()[-1]))
    return answers


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "npo", "steps": 6, "su": 2.0, "dual": False},
        {"kind": "undial", "steps": 4, "su": 0.0, "dual": True, "retain": "kl"},
    ],
    ids=["npo+su", "undial+dual"],
)
def test_two_processes_have_the_losses_of_one(settings):
    first, second = together(settings)
    alone = run(**settings)
    assert len(alone["losses"]) >= 4 and len(set(alone["losses"])) > 1
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    assert first == second
    np.testing.assert_allclose(first["weights"], alone["weights"], atol=1e-5)


def test_the_first_process_keeps_the_journal_and_all_take_it_up(tmp_path):
    settings = {"kind": "wga", "steps": 6, "su": 0.0, "dual": False}
    whole = together(settings, tmp_path / "journal")
    again = together(settings, tmp_path / "journal")
    assert again == whole


def test_sharded_weights_are_refused_in_words():
    first, _ = together({"kind": "npo", "steps": 2, "su": 0.0, "dual": False}, ACCELERATE_USE_FSDP="true")
    assert "FSDP shares out weights" in first["error"]


def test_a_batch_smaller_than_the_processes_is_refused():
    answers = together({"kind": "npo", "steps": 2, "su": 0.0, "dual": False}, count=5)
    assert all("for 5 processes" in each["error"] for each in answers)
