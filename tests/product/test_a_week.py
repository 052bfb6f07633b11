"""A week in the life of a model: four requests, one under attack, a retraining with the exclusion list, and a rollback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from tests.product.language import asked, facts, write, write_job
from tests.product.test_gone_for_good import patients

import expunge
from expunge.ledger import Ledger
from expunge.requests_book import RequestBook

LEDGER = "book.sqlite"
BATCH = [f"P{i}" for i in range(20, 40)]
QUICK = {"shadow_models": 0, "replicates": 0, "audit": False, "trials": 0, "pdf": False}
BOARD = {"by": "the board", "reason": "it was retrained"}


def job(folder: Path, where: Any, method: dict[str, Any], **sections: Any) -> Path:
    content = {
        "model": "expunge.tasks.networks:perceptron", "model_settings": {"widths": [2, 8, 2]},
        "data": {"format": "csv", "path": "d.csv", "label": "y", "users": ["patient"]},
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


def test_a_week_in_the_life_of_a_model(cli, tmp_path):
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
    assert kept["kept"] == 240 - 84 and left == {f"P{i}" for i in range(60)} - {"P3", *BATCH}
    mask = expunge.excluded({"patient": ["P1", "P3", "P25", "P50"]}, "patient", ledger=LEDGER)
    assert mask.tolist() == [False, True, True, False]
    assert cli("plan", job(tmp_path, "P5", {"name": "retrain"}), "--json").json["retained"] == 240 - 84 - 4

    # and nobody goes back to a release that knew somebody of the batch
    with Ledger(Path(LEDGER)) as ledger:
        digests = [item["digest"] for entry in ledger.entries("release") for item in entry.payload["releases"]]
    back = cli("requests", "rollback", digests[1], "--ledger", LEDGER, "--by", "x", "--why", "y")
    assert back.code == 2 and batch.json["request"]["id"] in back.err and digests[2][:12] in back.err
    for folder in ("weak", "p3", "batch"):
        checked = cli("verify", folder, "--ledger", LEDGER)
        assert checked.code in (0, 5), checked.out
        assert "DRAFT" in Path(f"{folder}.private/reply.txt").read_text()
    assert sorted(requests().values()) == ["fulfilled", "fulfilled", "refused", "superseded", "withdrawn"]
