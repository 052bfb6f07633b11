from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

# A certified deletion that takes tenths of a second.
SMALL = """
model: expunge.tasks.networks:SoftmaxHead
model_settings: {features: 64, classes: 10}
dtype: float64
data: {format: digits}
training: {kind: gradient_descent, steps: 60, lr: auto, l2: 0.01, rewinds: [0.5, 1.0]}
publish: {epsilon: 8.0, delta: 1e-5, capacity: 10}  # at 1 the noise ends one run in eight in utility-collapse
request: {subject: person 17, targets: [{kind: user, where: {person: 17}}]}
method: {name: r2d, rewind: 0.5}
evidence: {shadow_models: 0, replicates: 0, trials: 40, pdf: false}
"""


@dataclass(frozen=True)
class Result:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout; fails where there is anything else."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Keys, cache and working directory of a fresh machine."""
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def cli(capsys, monkeypatch) -> Callable[..., Result]:
    """Run a command in this process, as ``expunge`` would."""
    from expunge.cli import main

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["expunge", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def job(tmp_path) -> Callable[..., Path]:
    """Write a job: the small one with sections replaced (``None`` removes one)."""

    def write(name: str = "job.yaml", **sections: Any) -> Path:
        content = yaml.safe_load(SMALL)
        for section, value in sections.items():
            content[section] = value
            if value is None:
                del content[section]
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def refused(cli, tmp_path):
    """Run a command that must be refused; return its message."""

    def run(*arguments: object, out: str = "evidence") -> str:
        def files() -> dict[Path, bytes | None]:
            return {
                path: path.read_bytes() if path.is_file() else None
                for path in tmp_path.rglob("*")
                if tmp_path / "home" not in [path, *path.parents]
            }

        before = files()
        done = cli(*arguments, "--out", out) if arguments[0] in ("run", "demo") else cli(*arguments)
        assert done.code == 2, (done.code, done.err)
        assert done.out == ""
        assert "Traceback" not in done.err
        assert files() == before, "something was written"
        return done.err

    return run


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "expunge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)
