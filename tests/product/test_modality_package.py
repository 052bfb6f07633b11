"""A kind of model in a package of its own: installed, its job is planned, carried out and verified like any other."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "modality_package"
JOB = PACKAGE / "job.yaml"

# What a person would type, in one process: torch is imported once.
COMMANDS = """
import contextlib, io, json, sys
from expunge.cli import main

codes = []


def command(*arguments):
    sys.argv = ["expunge", *arguments]
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as end:
        assert end.code in (None, 0, 4), (arguments, end.code, out.getvalue())
        codes.append(end.code or 0)
    return json.loads(out.getvalue())

job = sys.argv[1]
done = {"plan": command("plan", job, "--json"), "run": command("run", job, "--out", "evidence", "--json")}
with open("signer.pem", "w") as stream:
    stream.write(command("key", "--json")["public_key"])
done["verify"] = command("verify", "evidence", "--key", "signer.pem", "--json")
fine_tuned = ("--set", "method={name: fine_tune, epochs: 2, lr: 1.0e-6}")
done["fine_tune"] = command("run", job, "--out", "tuned", *fine_tuned, "--json")
done["codes"] = codes
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[dict, Path]:
    """The package installed (nothing is downloaded), and what its commands print."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(PACKAGE, folder / "source")  # building leaves files beside the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(source)], check=True)
    path = os.pathsep.join([str(folder / "site"), str(ROOT / "src")])
    environment = os.environ | {"PYTHONPATH": path, "EXPUNGE_HOME": str(folder / "home")}
    command = [sys.executable, "-c", COMMANDS, str(JOB)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout), folder


def ridge(lines: list[dict[str, str]], l2: float) -> np.ndarray:
    """Weights and intercept by least squares on an enlarged system: another way to the same minimiser."""
    x = np.array([[float(line[name]) for name in ("age", "cholesterol", "heart_rate")] + [1.0] for line in lines])
    y = np.array([float(line["pressure"]) for line in lines])
    n, d = x.shape
    enlarged = np.vstack([x / np.sqrt(n), np.sqrt(l2) * np.eye(d)]), np.concatenate([y / np.sqrt(n), np.zeros(d)])
    return np.linalg.lstsq(*enlarged, rcond=None)[0]


@pytest.fixture(scope="module")
def visits() -> list[dict[str, str]]:
    with (ROOT / "examples" / "data" / "visits.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_its_job_is_planned_like_any_other(done, visits):
    plan = done[0]["plan"]
    theirs = [i for i, line in enumerate(visits) if line["patient"] == "P007"]
    assert plan["matched"] == {"count": len(theirs), "ids": {"row": theirs}}
    assert plan["retained"] == len(visits) - len(theirs) and plan["method"]["name"] == "retrain"


def test_the_released_model_is_the_minimiser_without_the_patient(done, visits):
    (path,) = (done[1] / "evidence" / "models").glob("*.safetensors")
    released = load_file(path)
    found = np.concatenate([released["weight"].ravel(), released["bias"]])
    without = ridge([line for line in visits if line["patient"] != "P007"], 0.01)
    assert np.allclose(found, without, rtol=1e-8)
    assert np.abs(found - ridge(visits, 0.01)).max() > 1e-3, "the negative control: the patient made a difference"


def test_its_evidence_says_what_is_its_author_s_word_and_verifies(done):
    (run,) = done[0]["run"]["runs"]
    assert run["verdict"] == "certified-under-declared-constants" and run["loss"]["retain"]["unlearned"] is not None
    assert all(check["ok"] for check in done[0]["verify"]["checks"])


def test_methods_of_expunge_run_on_it(done):
    (run,) = done[0]["fine_tune"]["runs"]
    assert done[0]["codes"][-1] == (0 if done[0]["fine_tune"]["accepted"] else 4)
    assert run["verdict"] == "no-certificate" and run["method"] == "fine_tune"
