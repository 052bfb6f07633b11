"""People decide, deadlines are kept, twenty people are one request, and an earlier release comes back only if it may."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.product.test_gone_for_good import table_job as full_job

from expunge.jobs.due import days
from expunge.ledger import Ledger
from expunge.requests_book import RequestBook

LEDGER = "book.sqlite"
BY = ("--ledger", LEDGER, "--by", "A. Clerk", "--why", "looked at it", "--json")
MOST = {"subject": "many", "targets": [{"kind": "user", "where": {"patient": [f"P{i}" for i in range(40)]}}]}


QUICK = {"shadow_models": 0, "replicates": 0, "audit": False, "trials": 0, "pdf": False, "reference": "none"}


def table_job(folder: Path, who: Any, **sections: Any) -> Path:
    return full_job(folder, who, **{"evidence": QUICK, **sections})


def rows() -> dict[str, dict[str, Any]]:
    with Ledger(Path(LEDGER)) as opened:
        return {row["id"]: row for row in RequestBook(opened).requests()}


def test_a_request_that_screening_holds_back_is_carried_out_once_a_person_approved_it(cli, tmp_path):
    job = table_job(tmp_path, "x", request=MOST)
    held = cli("run", job, "--out", "evidence")
    assert held.code == 2 and "requests approve" in held.err
    (request,) = rows()
    assert rows()[request]["status"] == "quarantined"
    approved = cli("requests", "approve", request, *BY)
    assert approved.code == 0 and (approved.json["status"], approved.json["by"]) == ("granted", "A. Clerk")
    assert cli("requests", "approve", request, *BY).code == 0  # again: nothing changes
    assert cli("run", job, "--out", "evidence").code in (0, 4)
    decision = json.loads(Path("evidence/evidence.json").read_text())["request"]["decision"]
    assert decision["by"] == "A. Clerk" and "overruled" in decision["reason"]
    assert "only one that is received" in cli("requests", "approve", request, *BY).err


def test_an_approval_before_anybody_knew_why_it_would_be_held_overrules_nothing(cli, tmp_path):
    added = cli("requests", "add", "--ledger", LEDGER, "--subject", "many", "--json",
                "--where", f"patient=[{', '.join(f'P{i}' for i in range(40))}]").json  # fmt: skip
    assert cli("requests", "approve", added["id"], *BY).code == 0
    held = cli("run", table_job(tmp_path, "x", request=MOST), "--out", "evidence")
    assert held.code == 2 and rows()[added["id"]]["status"] == "quarantined"


def test_a_request_that_was_rejected_is_not_carried_out_and_keeps_nothing_out(cli, tmp_path):
    added = cli(
        "requests", "add", "--ledger", LEDGER, "--subject", "subject P3", "--where", "patient=P3", "--json"
    ).json
    assert cli("requests", "reject", added["id"], *BY).json["status"] == "refused"
    refused = cli("run", table_job(tmp_path, "P3"), "--out", "evidence")
    assert refused.code == 2 and "refused" in refused.err
    assert cli("plan", table_job(tmp_path, "P4"), "--json").json["retained"] == 240 - 4


def test_a_void_result_is_not_released_by_an_approval(tmp_path):
    with Ledger(tmp_path / LEDGER, create=True) as ledger:
        book = RequestBook(ledger)
        book.file_request({"id": "q1", "targets": []})
        book.decide("q1", {"decision": "quarantine", "reason": "void", "by": "expunge", "of": "result"})
        with pytest.raises(Exception, match="put accept"):
            book.approve("q1", "x", "why not")


# --- deadlines ----------------------------------------------------------------------------------------------------------


def test_what_is_due_is_listed_and_what_is_granted_is_carried_out(cli, tmp_path):
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    today = date.today()
    for who, left in (("P3", 2), ("P4", 5), ("P5", 20)):
        request = {"subject": f"subject {who}", "targets": [{"kind": "user", "where": {"patient": who}}]}
        table_job(jobs, who, request=request, ledger=str(tmp_path / LEDGER)).rename(jobs / f"{who}.yaml")
        added = cli("requests", "add", "--ledger", LEDGER, "--subject", f"subject {who}", "--where", f"patient={who}",
                    "--due", today + timedelta(days=left), "--json").json  # fmt: skip
        if who != "P4":
            assert cli("requests", "approve", added["id"], *BY).code == 0
    due = cli("requests", "list", "--ledger", LEDGER, "--due-within", "7d", "--json").json
    assert [row["due"] for row in due] == [str(today + timedelta(days=left)) for left in (2, 5)]
    done = cli("due", jobs, "--out", "evidence", "--json")
    by_job = {item["job"]: item for item in done.json["requests"]}
    assert by_job.keys() == {"P3.yaml", "P4.yaml"} and by_job["P4.yaml"]["code"] == 3 == done.code == done.json["code"]
    assert by_job["P3.yaml"]["code"] in (0, 4) and (tmp_path / "evidence" / by_job["P3.yaml"]["request"]).is_dir()
    waits = cli("due", jobs, "--out", "evidence", "--within", "1w", "--json")
    assert waits.code == 3 and [item["job"] for item in waits.json["requests"]] == ["P4.yaml"]  # P3 is done
    assert cli("due", jobs, "--out", "evidence", "--within", "0d").out == "Nothing is due.\n"


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 days", "1.5d", "99999d"])
def test_a_time_that_cannot_be_read_is_refused(cli, tmp_path, text):
    with pytest.raises(Exception, match="such as 7d"):
        days(text)


def test_a_folder_without_jobs_is_refused_and_a_job_that_cannot_be_used_stops_no_other(cli, tmp_path):
    assert cli("due", tmp_path, "--out", "evidence").code == 2
    (tmp_path / "a.yaml").write_text("nonsense: 1\n")
    table_job(tmp_path, "P3", ledger=None)
    done = cli("due", tmp_path, "--out", "evidence", "--json")
    assert done.code == 2 and len(done.json["requests"]) == 2
    assert "names no ledger" in done.json["requests"][1]["said"]


# --- batches ------------------------------------------------------------------------------------------------------------


def test_twenty_people_of_a_file_are_one_request_with_a_record_of_each(cli, tmp_path):
    people = [f"P{i}" for i in range(20)]
    (tmp_path / "gone.csv").write_text("\n".join(["patient,reason", *(f"{who},left" for who in people)]) + "\n")
    request = {"subject": "a batch", "targets": [{"kind": "user", "where": {"patient": {"file": "gone.csv"}}}]}
    done = cli("run", table_job(tmp_path, "x", request=request), "--out", "evidence", "--json")
    assert done.code in (0, 4), done.err
    matched = json.loads(Path("evidence/evidence.json").read_text())["request"]["matched"]
    assert matched["count"] == 80 and [item["examples"] for item in matched["people"]] == [4] * 20
    assert len({item["person"] for item in matched["people"]}) == 20
    everything = "".join(path.read_text() for path in Path("evidence").glob("*.json"))
    assert not any(f'"{who}"' in everything for who in people)
    about = cli("requests", "list", "--ledger", LEDGER, "--about", "patient=P7", "--json").json
    assert [row["id"] for row in about] == [done.json["request"]["id"]]
    assert cli("requests", "list", "--ledger", LEDGER, "--about", "patient=P30", "--json").json == []
    assert cli("requests", "list", "--ledger", LEDGER, "--about", "patient=007", "--json").json == [], (
        "a text as written"
    )
    filed = cli(
        "requests",
        "add",
        "--ledger",
        "other.sqlite",
        "--subject",
        "a batch",
        "--where-file",
        "patient=gone.csv",
        "--json",
    )
    assert (
        filed.json["id"] == done.json["request"]["id"].split("-", 2)[0] + "-" + done.json["request"]["id"].split("-")[1]
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.csv", "who\nP1\n", "a column 'patient'"),
        ("gone.csv", "patient,x\nP1\n", "another number of fields"),
        ("gone.txt", "\n\n", "at least one value"),
        ("gone.json", "[1, 2]", "list of texts"),
        ("gone.yaml", "- P1", "ends in .txt, .csv or .json"),
        ("gone.txt", "P1\nP999\n", "P999"),
    ],
)
def test_a_file_of_people_that_cannot_be_used_is_refused(refused, tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    request = {"subject": "a batch", "targets": [{"kind": "user", "where": {"patient": {"file": name}}}]}
    assert said in refused("run", table_job(tmp_path, "x", request=request))


@pytest.mark.parametrize("where", [{"file": "gone.csv"}, {"path": "x"}, {"file": 3}])
def test_a_file_that_is_not_there_or_a_mapping_that_is_none_is_refused(refused, tmp_path, where):
    request = {"subject": "a batch", "targets": [{"kind": "user", "where": {"patient": where}}]}
    message = refused("run", table_job(tmp_path, "x", request=request))
    assert "There is no file" in message or "{file: people.csv}" in message
