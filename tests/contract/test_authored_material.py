"""A concept is forgotten through sentences written for the purpose, in a job: a toy kind of model that the product lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.contract.packages import package
from tests.contract.toy_modalities import Toy, ToyJob
from tests.rehearsals.sequences import WORDS, Items, NextToken, sentences
from tests.rehearsals.test_authored_items import Counted, concept, material
from tests.rehearsals.test_authored_items import MaskedKL as Masked

from expunge.core.request import Kind
from expunge.jobs.run import run_job
from expunge.modalities.modality import Asked, Opened
from expunge.report.verify import verify_folder

ENTRY_POINTS = """
[expunge.modalities]
concepts = tests.contract.test_authored_material:CONCEPTS
known_concepts = tests.contract.test_authored_material:KNOWN
[expunge.methods]
masked_kl = tests.contract.test_authored_material:MaskedKL
"""
JOB = {
    "task": "concepts", "model": {"n": WORDS}, "data": {"n": 6}, "training": {"kind": "closed_form"},
    "request": {"subject": "a rights holder", "targets": [{"kind": "concept", "where": {"name": "the successor"}}]},
    "method": {"name": "masked_kl"}, "evidence": {"pdf": False},
}  # fmt: skip


class MaskedKL(Masked):
    """The rehearsal's method, where an entry point finds it."""


class Concepts(Toy):
    """Bigram models of sentences; what is to go is written down anew, no sentence of the data is."""

    name = "concepts"
    kinds = (Kind.CONCEPT,)

    def open(self, job: ToyJob) -> Opened:
        task = NextToken()
        weights = task.released(task.build(seed=job.seed))
        return Opened(task, sentences(), {"probe": sentences(4, seed=9)}, None, weights, "concepts", "sentences")

    def ask(self, job: ToyJob, opened: Opened) -> Asked:
        plain = sentences(job.data.n, seed=3)
        counts = torch.zeros(len(plain), plain.x.shape[1] - 1, dtype=torch.bool)
        pushed = torch.zeros(len(plain), WORDS, dtype=torch.bool)
        counts[:, 0] = True
        pushed[torch.arange(len(plain)), plain.x[:, 1].long()] = True
        items = Items(plain.x, plain.y, plain.ids, counts=counts, pushed=pushed)
        return Asked(job.request.asked(), probes=opened.probes, material=items)


class KnownConcepts(Concepts):
    """The same, trained here: which sentences hold the word is known, so that retraining can leave them out."""

    name = "known_concepts"

    def open(self, job: ToyJob) -> Opened:
        return Opened(
            NextToken(), sentences(), {"probe": sentences(4, seed=9)}, Counted(), None, "concepts", "sentences"
        )

    def ask(self, job: ToyJob, opened: Opened) -> Asked:
        word = job.request.targets[0].where["word"]
        return Asked(
            job.request.asked(), material=material(word), absent=concept(opened.data, word), probes=opened.probes
        )


CONCEPTS, KNOWN = Concepts(), KnownConcepts()


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """The toy as an installed package declares it; keys and cache of a fresh machine."""
    with package("concepts", ENTRY_POINTS, tmp_path, monkeypatch):
        yield


def written(folder: Path, **sections: Any) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, **sections}))
    return path


def test_authored_material_reaches_a_method_through_a_job(tmp_path):
    done = run_job(written(tmp_path), (), tmp_path / "out")
    full = json.loads((tmp_path / "out.private" / "review.json").read_text())
    assert full["data"]["member"] is False and full["data"]["forgotten"] == 6
    assert (
        full["data"]["rows"] == full["data"]["retained"] == len(sentences())
        and full["request"]["matched"]["count"] == 0
    )
    loss = {item["set"]: item for item in done["runs"][0]["measurements"] if item["metric"] == "loss"}
    assert loss.keys() == {"retain", "forget", "probe"}
    assert loss["forget"]["value"] > loss["forget"]["original"] + 0.2 and loss["forget"]["ideal"] is None
    assert not any(item["metric"].startswith("membership") for item in done["runs"][0]["measurements"])
    assert done["runs"][0]["measured"] == "undecidable"
    result = verify_folder(tmp_path / "out")
    assert result.consistent, [check for check in result.checks if not check.ok]
    assert run_job(written(tmp_path), (), tmp_path / "out") == done


def test_a_later_request_on_the_same_ledger_is_not_troubled_by_it(tmp_path, caplog):
    """No example was forgotten, so there is none to keep out of what is learnt later."""
    job = written(tmp_path, ledger="ledger.sqlite")
    run_job(job, (), tmp_path / "first")
    other = {"subject": "somebody else", "targets": [{"kind": "concept", "where": {"name": "another"}}]}
    caplog.clear()
    run_job(written(tmp_path, ledger="ledger.sqlite", request=other), (), tmp_path / "second")
    assert "earlier version" not in caplog.text
    second = json.loads((tmp_path / "second.private" / "review.json").read_text())
    assert second["data"]["retained"] == len(sentences()) and second["data"]["note"] == ""


def words(*names: int) -> dict[str, Any]:
    return {"subject": f"holder {names}", "targets": [{"kind": "concept", "where": {"word": word}} for word in names]}


def test_a_job_measures_a_concept_against_a_model_retrained_without_it(tmp_path):
    data, absent = sentences(), concept(sentences(), 2)
    done = run_job(written(tmp_path, task="known_concepts", request=words(2), ledger="ledger"), (), tmp_path / "out")
    full = json.loads((tmp_path / "out.private" / "review.json").read_text())["data"]
    assert (full["absent"], full["rows"], full["retained"]) == (len(absent), len(data), len(data) - len(absent))
    retrained = Counted().fit(NextToken(), data.without(absent)).artifact.tensors
    task = NextToken()
    ideal = float(task.losses(task.build(), retrained, task.batch(material(2))).mean())
    (loss,) = (m for m in done["runs"][0]["measurements"] if (m["metric"], m["set"]) == ("loss", "forget"))
    assert loss["ideal"] == pytest.approx(ideal, abs=5e-3) and loss["original"] < loss["ideal"] - 0.5
    assert done["runs"][0]["measured"] != "undecidable"
    assert f"{len(absent)} training rows" in (tmp_path / "out" / "report.html").read_text()
    result = verify_folder(tmp_path / "out")
    assert result.consistent, [check for check in result.checks if not check.ok]
    second = written(tmp_path, task="known_concepts", request=words(3), ledger="ledger")
    run_job(second, (), tmp_path / "second")
    later = json.loads((tmp_path / "second.private" / "review.json").read_text())["data"]
    assert later["rows"] == len(data) - len(absent), "the first concept is not learnt again for the second request"
