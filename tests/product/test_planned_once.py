"""A job is planned once, also where it publishes between planning and running."""

from __future__ import annotations

import json
import sys

from expunge.jobs.run import run_job
from expunge.planning.checks import check


def test_a_job_that_publishes_matches_and_checks_once(job, tmp_path, monkeypatch):
    checked = []

    def counted(method, context, kinds):
        checked.append(method.name)
        return check(method, context, kinds)

    monkeypatch.setattr(
        sys.modules["expunge.planning.plan"], "check", counted
    )  # the package has a function of that name
    evidence = {"shadow_models": 0, "replicates": 0, "trials": 0, "audit": False, "pdf": False}
    done = run_job(job(evidence=evidence), (), tmp_path / "out")
    assert checked == ["r2d"]
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["runs"][0]["budget"]["sigma"] > 0 and done["runs"][0]["epsilon"] is not None
    assert done["runs"][0]["sigma"] == record["runs"][0]["budget"]["sigma"]
