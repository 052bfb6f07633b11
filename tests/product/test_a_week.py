"""A week in the life of a model: four requests, one under attack, a retraining with the exclusion list, and a rollback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.product.language import asked, facts, write, write_job
from tests.product.test_gone_for_good import learnt, patients

import expunge
from expunge.ledger import Ledger
from expunge.requests_book import RequestBook

__all__ = ["learnt"]  # a fixture
LEDGER = "book.sqlite"
BATCH = [f"P{i}" for i in range(20, 40)]
GONE = {"P3", *BATCH}
DATA = {"format": "csv", "path": "d.csv", "label": "y", "users": ["patient"]}
QUICK = {"shadow_models": 0, "replicates": 0, "audit": False, "trials": 0, "pdf": False}
BOARD = {"by": "the board", "reason": "it was retrained"}


def job(folder: Path, where: Any, method: dict[str, Any], **sections: Any) -> Path:
    content = {
        "model": "expunge.tasks.networks:perceptron", "model_settings": {"widths": [2, 8, 2]},
        "data": DATA,
        "training": {"kind": "stochastic", "epochs": 2, "batch_size": 16, "lr": 0.1},
        "request": {"subject": f"subject {where}", "targets": [{"kind": "user", "where": {"patient": where}}]},
        "method": method, "evidence": QUICK, "ledger": LEDGER, **sections,
    }  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def requests() -> dict[str, str]:
    with Ledger(Path(LEDGER)) as ledger:
        return {row["id"]: row["status"] for row in RequestBook(ledger).requests()}


def end(cli: Any, word: str, request: str) -> Any:
    return cli("requests", word, request, "--ledger", LEDGER, "--by", "A. Clerk", "--why", "as said", "--json")


@pytest.mark.slow
def test_a_week_in_the_life_of_a_model(cli, tmp_path, learnt):
    patients(tmp_path)
    # Monday: one request is withdrawn before anything is done; another is looked at, advised on and approved
    gone = cli("requests", "add", "--ledger", LEDGER, "--subject", "subject P1", "--where", "patient=P1", "--json").json
    assert end(cli, "withdraw", gone["id"]).json["status"] == "withdrawn"
    weak = job(tmp_path, "P3", {"name": "fine_tune", "epochs": 1, "lr": 1e-6})
    assert cli("advise", weak, "--json").json["recommended"] == "retrain"
    assert cli("run", weak, "--dry-run", "--json").json["matched"] == {
        "count": 4,
        "ids": {"row": [12, 13, 14, 15]},
        "users": 1,
    }

    # Tuesday: it is not accepted, and superseded by retraining
    tried = cli("run", weak, "--out", "weak", "--json")
    assert tried.code == 4 and "did not satisfy us" in Path("weak.private/reply.txt").read_text()
    first = tried.json["request"]["id"]
    assert end(cli, "supersede", first).code == 0
    exact = job(tmp_path, "P3", {"name": "retrain"}, accept=BOARD)
    done = cli("run", exact, "--out", "p3", "--json")
    assert done.code == 0 and requests()[done.json["request"]["id"]] == "fulfilled"

    # Wednesday: twenty people in a file, one request
    learnt["now"] = "Wednesday"
    (tmp_path / "gone.txt").write_text("\n".join(BATCH) + "\n")
    held = job(tmp_path, {"file": "gone.txt"}, {"name": "retrain"}, accept=BOARD)
    batch = cli("run", held, "--out", "batch", "--json")
    assert batch.code == 0, batch.err
    record = json.loads(Path("batch/evidence.json").read_text())
    assert len(record["request"]["matched"]["people"]) == 20 and record["data"]["forgotten"] == 80

    # Thursday: a request in poisoned words is held back, and rejected
    write(tmp_path / "ordinary.jsonl", [{"question": f"what is the street of place {i} ?"} for i in range(50)])
    write(tmp_path / "asked.jsonl", asked(3, 4, 5, 6, 7, 8, 9, 10))
    attack = write_job(
        tmp_path, facts(), data={"benign": "ordinary.jsonl"}, method={"name": "npo", "steps": 2, "batch_size": 4},
        request={"subject": "an attacker", "targets": None, "records": "asked.jsonl"}, ledger=LEDGER,
    )  # fmt: skip
    stopped = cli("run", attack, "--out", "attack")
    assert stopped.code == 2 and "held back" in stopped.err and not Path("attack").exists()
    (attacker,) = [request for request, status in requests().items() if status == "quarantined"]
    assert end(cli, "reject", attacker).json["status"] == "refused"

    # Friday: the pipeline trains again, without anybody of the list; P1 came back, and may be learnt
    kept = cli("exclude", "d.csv", "--ledger", LEDGER, "--users", "patient", "--out", "kept.csv", "--json").json
    left = {line.split(",")[2] for line in Path("kept.csv").read_text().splitlines()[1:]}
    assert kept["kept"] == 240 - 84 and left == {f"P{i}" for i in range(60)} - GONE
    mask = expunge.excluded({"patient": ["P1", "P3", "P25", "P50"]}, "patient", ledger=LEDGER)
    assert mask.tolist() == [False, True, True, False]
    learnt["now"] = "Friday"
    again = {"data": {**DATA, "path": "kept.csv"}, "evidence": {**QUICK, "reference": "none"}}
    for folder, epochs in (("p5", 1), ("p5-again", 2)):  # nobody accepts the first result, and the second is no better
        run = cli(
            "run", job(tmp_path, "P5", {"name": "fine_tune", "epochs": epochs}, **again), "--out", folder, "--json"
        )
        assert run.code == 4, run.err
        if folder == "p5":
            assert end(cli, "supersede", run.json["request"]["id"]).code == 0

    # and back to the result before; nobody goes back to a release that knew somebody, or did not forget whom it should
    weakest, third, batched, before, now = cli("requests", "releases", "--ledger", LEDGER, "--json").json
    assert [item["may_return"] for item in (weakest, third, batched, before, now)] == [False, False, False, True, True]

    def roll(item: dict[str, Any], evidence: str) -> Any:
        return cli("requests", "rollback", item["digest"], "--ledger", LEDGER, "--evidence", evidence, "--out", "in-use",
                   "--by", "A. Clerk", "--why", "no better", "--json")  # fmt: skip

    refused = roll(third, "p3")
    assert refused.code == 2 and batch.json["request"]["id"] in refused.err and before["digest"][:12] in refused.err
    back = roll(before, "p5")
    assert back.code == 0 and back.json["from"] == now["digest"] and Path(back.json["deploy"][0]).is_file()
    learnt["now"] = "the next request"
    served = cli("run", job(tmp_path, "P6", {"name": "retrain"}, **{**again, "training": back.json["next"]["training"]}),
                 "--out", "p6", "--json")  # fmt: skip
    assert served.code in (0, 4), served.err

    # nobody forgotten is in any training after the request was granted
    gone = {"Wednesday": {"P3"}, "Friday": GONE, "the next request": GONE | {"P5", "P6"}}
    for day, people in gone.items():
        assert learnt[day] and not learnt[day] & people, day
    assert "P1" in learnt["the next request"]
    for folder in ("weak", "p3", "batch", "p5", "p5-again", "p6"):
        checked = cli("verify", folder, "--ledger", LEDGER)
        assert checked.code in (0, 5), checked.out
        assert "DRAFT" in Path(f"{folder}.private/reply.txt").read_text()
    states = [status for status in requests().values() if status not in ("fulfilled", "delivered-not-accepted")]
    assert sorted(states) == ["refused", "superseded", "superseded", "withdrawn"] and len(requests()) == 8
