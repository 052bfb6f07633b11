"""Kill a run at many moments, look at what it left, run the same command again, and check what came of it.

``python -m tests.product.crash FOLDER KILLS [--fork]`` prints a line for each kill. With ``--fork`` the command runs in a
copy of this process, which has imported everything already: the same code without the seconds that imports take.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import load
from tests.product.conftest import SMALL
from tests.waiting import runs, wait_until

from expunge.core.trained import Artifact
from expunge.ledger import Ledger
from expunge.privacy.witness import _parted
from expunge.report.verify import verify_folder

SEED = 20261121  # of the moments
PERSON = "person 17"
ATTEMPTS = 30  # at a kill before the end; the first one does it where the machine is as busy as it was


@dataclass(frozen=True)
class Place:
    """Where one trial works."""

    root: Path

    @property
    def out(self) -> Path:
        return self.root / "evidence"

    @property
    def private(self) -> Path:
        return self.root / "evidence.private"

    @property
    def arguments(self) -> list[str]:
        return ["run", str(self.root / "job.yaml"), "--out", str(self.out), "--json"]

    def prepare(self) -> Place:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        content = yaml.safe_load(SMALL)
        content["training"]["steps"], content["evidence"]["trials"] = 400, 200
        (self.root / "job.yaml").write_text(yaml.safe_dump({**content, "ledger": "book.sqlite"}))
        return self


def start(place: Place, fork: bool) -> int:
    """Start the command; returns the process id."""
    if not fork:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": (place.root / "stderr").open("a")}
        return subprocess.Popen([sys.executable, "-m", "expunge", *place.arguments], **quiet).pid
    if child := os.fork():
        return child
    with (place.root / "stderr").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        code = 1
        try:
            from expunge.cli import main

            sys.argv = ["expunge", *place.arguments]
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os._exit(code)


def wait(process: int) -> int:
    """Exit code; minus the signal where one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def stages(place: Place) -> dict[str, bytes]:
    """Noisy stages that are on disk, whether or not the index has reached them."""
    found = {}
    for path in place.private.glob("journal-*/stages/*"):
        name, digest = path.name.split(".")[-2:]
        if name in ("published", "release") and len(digest) == 64:
            assert name not in found, f"two contents of stage {name}"
            found[name] = path.read_bytes()
    return found


def entries(place: Place) -> list:
    """The ledger's entries, read from a copy so that looking heals nothing; opening it checks the whole chain."""
    if not (place.root / "book.sqlite").exists():
        return []
    copy = place.root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for path in place.root.glob("book.sqlite*"):
        shutil.copy(path, copy)
    with Ledger(copy / "book.sqlite", create=True) as ledger:
        return ledger.entries()


def noisy(stored: bytes) -> bytes:
    """The tensors of a stage, without what the planner wrote down of the draw."""
    return _parted("stage", stored)[1]


def check_finished(place: Place, drawn: dict[str, bytes], before: list) -> None:
    """One request, one release, and the noise that was on disk when the process died is the noise that was released."""
    record = json.loads((place.out / "evidence.json").read_text())
    (run,) = record["runs"]
    after = entries(place)
    assert [entry.hash for entry in after[: len(before)]] == [entry.hash for entry in before], "the past was rewritten"
    assert [entry.kind for entry in after] == ["request", "decision", "beginning", "release", "fulfilment"]
    (release,) = after[3].payload["releases"]
    certificate = run["certificate"]
    assert release["digest"] == run["model"]["digest"] == certificate["binds"]["release"]
    model = load((place.out / run["model"]["file"]).read_bytes())
    assert Artifact(model).digest == release["digest"]
    assert len(list((place.out / "models").iterdir())) == 1
    if "release" in drawn:
        assert Artifact(load(noisy(drawn["release"]))).digest == release["digest"], "the release was drawn twice"
    if "published" in drawn:
        review = json.loads((place.private / "review.json").read_text())  # keyed in what may be shown
        before = review["runs"][0]["certificate"]["binds"]["before"]
        assert Artifact(load(noisy(drawn["published"]))).digest == before, "published was drawn twice"
    assert run["verdict"] == "certified-under-declared-constants"  # trained, published and served in one command
    assert run["budget"]["used"] == release["removed"] == 10
    following = json.loads((place.private / "next-softmaxhead" / "trained.json").read_text())
    assert len(following["spent"]) == 1, "counted twice"
    assert not stages(place), "secrets of the run are left"
    assert not list(place.private.glob("journal-*/stages/*")), "secrets of the run are left"
    assert PERSON.encode() not in (place.root / "book.sqlite").read_bytes()
    verified = verify_folder(place.out)
    assert verified.consistent, verified.to_json()


def finish(place: Place, fork: bool) -> None:
    code = wait(start(place, fork))
    assert code == 0, (code, (place.root / "stderr").read_text()[-2000:])


def reached(place: Place, event: str) -> bool:
    """Whether a run has come so far: a noisy stage is on disk, its first byte is written, or it was started at all."""
    if event in ("published", "release"):
        return any(place.private.glob(f"journal-*/stages/*{event}.{'?' * 64}"))
    return event == "start" or place.private.exists()


def trial(place: Place, fork: bool, delay: float, event: str) -> dict:
    """One kill, ``delay`` seconds after ``event``, and the run after it."""
    place.prepare()
    process = start(place, fork)
    wait_until(lambda: reached(place, event), lambda: runs(process), every=0.0005)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    code = wait(process)
    drawn, before = stages(place), entries(place)
    left = sorted(path.name.split(".")[-2] for path in place.private.glob("journal-*/stages/*.*"))
    finish(place, fork)
    check_finished(place, drawn, before)
    return {
        "delay": round(delay, 3), "killed": code == -signal.SIGKILL, "stages": left,
        "entries": [entry.kind for entry in before], "files": len([p for p in place.out.rglob("*") if p.is_file()]),
    }  # fmt: skip


def measure(place: Place, fork: bool) -> tuple[float, float]:
    """Seconds until the first byte is written, and seconds from there to the end."""
    place.prepare()
    began = time.monotonic()
    process = start(place, fork)
    wait_until(place.private.exists, lambda: runs(process), every=0.0005)
    first = time.monotonic()
    assert wait(process) == 0, (place.root / "stderr").read_text()[-2000:]
    ended = time.monotonic()
    check_finished(place, {}, [])
    return first - began, ended - first


def warm_up(place: Place) -> None:
    """One run in this process, so that its copies have nothing left to import."""
    from expunge.cli import main as command

    place.prepare()
    sys.argv = ["expunge", *place.arguments]
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        suppress(SystemExit),
    ):
        command()


def main(folder: Path, kills: int, fork: bool) -> None:
    """Kills spread over the whole run; four in five after the first byte was written, where a kill can hurt.

    The last kill comes when the release is on disk, whatever the clock says: on a machine that was less busy while the run
    was measured, all others may come before anything was drawn.
    """
    place = Place(folder / "trial")
    if fork:
        warm_up(place)
    else:
        measure(place, fork)
    before, after = measure(place, fork)
    print(json.dumps({"seconds before the first write": round(before, 2), "after": round(after, 2)}), flush=True)
    generator = random.Random(SEED)
    for i in range(kills):
        event = "release" if i == kills - 1 else "start" if i % 5 == 0 else "first write"
        share = (i + generator.random()) / kills
        delay = share * {"start": before, "first write": after, "release": 0.0}[event]
        # a machine that was busy while the run was measured makes late moments come after the end: try earlier ones
        for _ in range(ATTEMPTS):
            found = trial(place, fork, delay, event)
            if found["killed"] and (found["stages"] or event != "release"):
                break
            delay *= 0.7
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a copy of a process with several threads waits for those that were not copied
    main(Path(sys.argv[1]), int(sys.argv[2]), "--fork" in sys.argv)
