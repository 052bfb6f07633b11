"""Every kind of model × a job × its evidence, two toy kinds included that live here and not in the product."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.contract.toy_modalities import ENTRY_POINTS
from tests.product.conftest import ROOT, SMALL
from tests.product.language import write_job

from expunge import modalities
from expunge.core.request import Kind
from expunge.jobs.run import run_job, shown
from expunge.jobs.schema import load_job
from expunge.methods import registry
from expunge.modalities.readings import MeanLosses, reads
from expunge.report.folder import models_of
from expunge.report.verify import verify_folder

TOYS = {
    "ring": {
        "task": "ring", "model": {"n": 3}, "data": {"n": 12}, "training": {"kind": "closed_form"},
        "request": {"subject": "a", "targets": [{"kind": "edge", "where": {"ids": [13, 15]}}]},
        "method": {"name": "retrain"}, "evidence": {"replicates": 0, "pdf": False},
    },
    "peers": {
        "task": "peers", "model": {"n": 3}, "data": {"n": 20}, "training": {"kind": "closed_form"},
        "request": {"subject": "a", "targets": [{"kind": "client", "where": {"owner": 2}}]},
        "method": {"name": "gossip_correction"}, "evidence": {"replicates": 0, "pdf": False},
    },
}  # fmt: skip
KINDS = ["classification", "language", *TOYS]


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """The toys as an installed package declares them; keys and cache of a fresh machine."""
    place = tmp_path / "site" / "toys-0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 0\n")
    (place / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(place.parent))
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    registry.targets.cache_clear()  # a process looks for packages once
    yield
    registry.targets.cache_clear()


def job_of(kind: str, folder: Path) -> Path:
    if kind == "language":
        return write_job(folder, method={"name": "grad_diff", "steps": 2})
    path = folder / "job.yaml"
    content = (
        TOYS[kind]
        if kind in TOYS
        else yaml.safe_load(SMALL) | {"publish": None, "method": {"name": "fine_tune", "epochs": 1}}
    )
    path.write_text(yaml.safe_dump(content))
    return path


def test_every_kind_of_model_is_tried_here():
    assert sorted(KINDS) == modalities.names()


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_every_kind_leaves_evidence_that_verifies(kind, tmp_path):
    done = run_job(job_of(kind, tmp_path), (), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["request"]["matched"]["count"] > 0 and record["runs"][0]["evidence"]["measurements"]
    assert done["runs"][0]["verdict"] == record["runs"][0]["verdict"]
    result = verify_folder(tmp_path / "out")
    assert result.consistent, [check for check in result.checks if not check.ok]
    again = run_job(job_of(kind, tmp_path), (), tmp_path / "out")
    assert again == done


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_model_says_everything_that_jobs_ask_of_it(kind, tmp_path):
    modality = modalities.load(kind)
    assert modality.name == kind and {*modality.kinds} <= {*Kind} and isinstance(modality.in_processes, bool)
    job = load_job(job_of(kind, tmp_path))
    assert isinstance(job, modality.job) and {target.kind for target in job.request.targets} <= {*modality.kinds}
    assert str(tmp_path) not in shown(job) and job.request.subject not in yaml.safe_load(shown(job))["request"].values()


def test_retained_examples_that_change_are_measured(tmp_path):
    """Two edges of the ring go, four nodes that stay see other neighbours."""
    run_job(job_of("ring", tmp_path), (), tmp_path / "out")
    full = json.loads((tmp_path / "out.private" / "review.json").read_text())
    names = {item["name"]: item for item in full["runs"][0]["evidence"]["measurements"]}
    assert names["loss/touched"]["n"] == 4 and names["distance to retrained"]["value"] == 0
    assert full["runs"][0]["verdict"] == "certified-under-declared-constants"


def test_every_peer_has_its_release_in_the_folder(tmp_path):
    run_job(job_of("peers", tmp_path), (), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert len({model["digest"] for model in models_of(record)}) == 2
    assert len(list((tmp_path / "out" / "models").rglob("*.safetensors"))) == 2


def test_nothing_above_the_modalities_asks_which_kind_of_model_it_has():
    """No comparison with a task's name and no look-up by one, in jobs, planning, measuring and the modules beside them."""
    names, source = {"classification", "language"}, ROOT / "src" / "expunge"
    modules = [
        path for folder in ("jobs", "planning", "evidence", "report") for path in (source / folder).rglob("*.py")
    ]
    modules += [source / f"{name}.py" for name in ("measuring", "auditing", "checking")]
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare | ast.Dict):
                within = [node, *(node.keys if isinstance(node, ast.Dict) else [])]
                constants = {c.value for each in within if each for c in ast.walk(each) if isinstance(c, ast.Constant)}
                assert not names & constants, f"{path.name}:{node.lineno}"


def test_no_kind_of_model_needs_to_say_how_it_is_measured(tmp_path):
    """One that does is found by the task's name; the mean loss of each set stands in for one that does not."""
    run_job(job_of("ring", tmp_path), (), tmp_path / "out")
    full = json.loads((tmp_path / "out.private" / "review.json").read_text())
    metrics = {item["metric"] for item in full["runs"][0]["evidence"]["measurements"]}
    assert metrics == {"loss", "distance"}
    assert isinstance(reads(SimpleNamespace(name="nobody's")), MeanLosses)  # type: ignore[arg-type]
    for kind in ("classification", "language"):
        assert reads(SimpleNamespace(name=kind)) is modalities.load(kind)  # type: ignore[arg-type]
