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

from expunge.core.errors import InputError
from expunge.descent.processes import processes

ROOT = Path(__file__).parents[2]
RUNS: dict[str, dict[str, Any]] = {
    "npo+su": {"kind": "npo", "steps": 6, "su": 2.0, "dual": False},
    "undial+dual": {"kind": "undial", "steps": 4, "su": 0.0, "dual": True, "retain": "kl"},
    "kept": {"kind": "wga", "steps": 6, "su": 0.0, "dual": False, "folder": "journal"},
    "taken up": {"kind": "wga", "steps": 6, "su": 0.0, "dual": False, "folder": "journal"},
    "one row": {"kind": "npo", "steps": 2, "su": 0.0, "dual": False, "batch": 1},
}


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, list[dict[str, Any]]]:
    """Run → what each of two processes says at its end. They are started once, since a start takes seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started, answers = [], []
    try:
        for rank in ("0", "1"):
            own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
            env = {**os.environ, **own, **where, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
            folder = tmp_path_factory.mktemp(f"rank{rank}")
            arguments = [sys.executable, "-m", "tests.descent.together", json.dumps(list(RUNS.values())), str(folder)]
            # into files: one process waiting for a full pipe would make the other wait for it
            with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
                started.append((folder, subprocess.Popen(arguments, stdout=out, stderr=err, cwd=ROOT, env=env)))
        for folder, process in started:
            assert process.wait(timeout=120) == 0, (folder / "err").read_text()[-2000:]
            answers.append(
                [json.loads(line) for line in (folder / "out").read_text().splitlines() if line.startswith("{")]
            )
    finally:
        for _, process in started:
            process.kill()
            process.wait()
    assert [len(of) for of in answers] == [len(RUNS), len(RUNS)]
    return {name: list(each) for name, *each in zip(RUNS, *answers, strict=True)}


@pytest.mark.parametrize("name", ["npo+su", "undial+dual"])
def test_two_processes_have_the_losses_of_one(together, name):
    first, second = together[name]
    alone = run(**RUNS[name])
    assert len(alone["losses"]) >= 4 and len(set(alone["losses"])) > 1
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    assert {**first, "stages": 0} == {**second, "stages": 0}
    np.testing.assert_allclose(first["weights"], alone["weights"], atol=1e-5)


def test_the_first_process_keeps_the_journal_and_all_take_it_up(together):
    whole, again = together["kept"], together["taken up"]
    assert [each["weights"] for each in again] == [each["weights"] for each in whole]
    assert [each["losses"] for each in again] == [each["losses"] for each in whole]
    assert [each["stages"] for each in whole] == [3, 0] and [each["stages"] for each in again] == [0, 0]


def test_a_batch_smaller_than_the_processes_is_refused(together):
    assert all("has 1 row(s) for 2 processes" in each["error"] for each in together["one row"])


@pytest.mark.parametrize(("switch", "name"), [("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")])
def test_sharded_weights_are_refused_in_words(monkeypatch, switch, name):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(f"ACCELERATE_USE_{switch}", "true")
    with pytest.raises(InputError, match=f"{name} shares out weights"):
        processes()
