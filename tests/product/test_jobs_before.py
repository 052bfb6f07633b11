"""Files that somebody wrote for the version before still mean what they meant: all are read, the small ones are carried out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.product.conftest import ROOT

from expunge.bench.recipe import load_recipe
from expunge.jobs.run import run_job
from expunge.jobs.schema import load_job

BEFORE = ROOT / "tests" / "inputs" / "jobs_before"
JOBS = sorted((BEFORE / "jobs").glob("*.yaml"))
RECIPES = sorted((BEFORE / "recipes").glob("*.yaml"))
DATA = ROOT / "examples" / "data"

# What is made smaller, in the words of then: an override is part of what somebody wrote.
SMALLER = {
    "small": ["evidence.references=4", "evidence.twins=1", "evidence.audit=false"],
    "heart": [
        f"data.path={DATA / 'visits.csv'}", f"data.test_path={DATA / 'visits_test.csv'}", "training.epochs=2",
        "method.steps=5", "method.epsilon=50", "method.recovery_epochs=1", "evidence.twins=1", "evidence.audit=false",
        "evidence.pdf=false",
    ],
    "people": [
        f"data.path={DATA / 'people.jsonl'}", f"data.benign={DATA / 'everyday.jsonl'}",
        f"request.records={DATA / 'people_request.jsonl'}", "training.epochs=2", "method.epochs=1", "evidence.twins=1",
        "evidence.pdf=false",
    ],
}  # fmt: skip


def test_every_file_of_then_is_here():
    assert len(JOBS) == 13 and len(RECIPES) == 10
    assert SMALLER.keys() <= {path.stem for path in JOBS}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_of_then_is_read(path: Path):
    job = load_job(path)
    assert job.request.targets or job.request.records


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_then_is_read(path: Path):
    assert load_recipe(str(path)).name == path.stem


@pytest.mark.parametrize("name", SMALLER)
def test_a_small_job_of_then_is_carried_out(name: str, tmp_path: Path):
    job = tmp_path / "job.yaml"
    job.write_bytes((BEFORE / "jobs" / f"{name}.yaml").read_bytes())
    (run,) = run_job(job, SMALLER[name], tmp_path / "out")["runs"]
    record = json.loads((tmp_path / "out.private" / "review.json").read_text())
    measured = {item["name"]: item for item in record["runs"][0]["evidence"]["measurements"]}
    if any("references=4" in override for override in SMALLER[name]):
        assert run["membership_attack"] == "lira", "shadow models were asked for"
    assert measured["loss/retain"]["ideal"] is not None, "a model was retrained"
    assert measured["loss/retain"]["null"] is not None, "and another one, to see what two retrainings differ by"
