"""Two processes as ``accelerate launch`` starts them, but without its own start-up time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import HANG

ROOT = Path(__file__).parents[2]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # what an accelerate configuration becomes


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str


def two(module: str, *arguments: str, folder: Path, cwd: Path = ROOT, **environment: str) -> list[Ended]:
    """``python -m module arguments`` in two processes that know of each other; what they say goes through ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started, ended = [], []
    try:
        for rank in ("0", "1"):
            own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
            paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src", ROOT / "tests")))}
            env = {**os.environ, **own, **where, **paths, **environment}
            # into files: one process waiting for a full pipe would make the other wait for it
            with (folder / f"out{rank}").open("w") as out, (folder / f"err{rank}").open("w") as err:
                command = [sys.executable, "-m", module, *arguments]
                started.append(subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd, env=env))
        for rank, process in enumerate(started):
            code = process.wait(timeout=HANG)
            ended.append(Ended(code, (folder / f"out{rank}").read_text(), (folder / f"err{rank}").read_text()))
    finally:
        for process in started:
            process.kill()
            process.wait()
    return ended
