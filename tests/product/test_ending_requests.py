"""A request whose result cannot be used or finished is ended on record, and another method takes its place."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tests.product.language import write_job
from tests.product.test_gone_for_good import learnt, table_job

from expunge.core.errors import InputError
from expunge.jobs import carry_out
from expunge.ledger import Ledger
from expunge.model_folder import ModelFolder
from expunge.privacy.gaussian import epsilon_of
from expunge.report.outcome import is_accepted
from expunge.requests_book import NOT_ACCEPTED, RequestBook

# One step over all rows: its loss is finite, the weights are too, and what they compute is not.
__all__ = ["learnt"]  # a fixture
DIVERGING = {"name": "fine_tune", "epochs": 1, "batch_size": 1000, "lr": 1e30}


def rows_of(ledger: Path) -> list[dict[str, Any]]:
    with Ledger(ledger) as opened:
        return RequestBook(opened).requests()


def end(cli: Any, word: str, ledger: Path, request: str) -> Any:
    return cli("requests", word, request, "--ledger", ledger, "--by", "A. Clerk", "--why", "not usable", "--json")


def test_a_model_that_computes_nan_is_not_released_and_the_request_can_end_or_be_carried_out_otherwise(cli, tmp_path):
    ledger = tmp_path / "book.sqlite"
    first = cli("run", table_job(tmp_path, "P3", method=DIVERGING), "--out", "first")
    assert first.code == 1 and "cannot be used" in first.err and "Traceback" not in first.err
    (row,) = rows_of(ledger)
    assert (row["status"], row["released"]) == ("granted", None) and f"abandon {row['id']}" in first.err
    again = cli("run", tmp_path / "job.yaml", "--out", "first")
    assert (again.code, again.err.splitlines()[-1]) == (1, first.err.splitlines()[-1]), "the same command says the same"

    ended = end(cli, "abandon", ledger, row["id"])
    assert ended.code == 0 and (ended.json["status"], ended.json["by"]) == ("abandoned", "A. Clerk")
    refused = cli("run", tmp_path / "job.yaml", "--out", "first")
    assert refused.code == 2 and "was abandoned by A. Clerk" in refused.err
    planned = cli("plan", tmp_path / "job.yaml")
    assert planned.code == 2 and "was abandoned by A. Clerk" in planned.err

    assert end(cli, "supersede", ledger, row["id"]).json["status"] == "superseded"
    mild = table_job(tmp_path, "P3", method={"name": "fine_tune", "epochs": 1})
    done = cli("run", mild, "--out", "second", "--json")
    assert done.code in (0, 4), done.err
    old, new = rows_of(ledger)
    assert old["status"] == "superseded" and new["supersedes"] == old["id"] and new["released"]
    assert done.json["request"]["id"] == new["id"] != old["id"]
    checked = cli("verify", "second", "--ledger", ledger)
    assert checked.code in (0, 5), checked.out
    same = cli("run", mild, "--out", "second", "--json")
    assert same.code == done.code and same.json["request"]["id"] == new["id"] and len(rows_of(ledger)) == 2


def test_whoever_an_abandoned_request_was_granted_for_stays_out_of_later_runs(cli, tmp_path):
    assert cli("run", table_job(tmp_path, "P3", method=DIVERGING), "--out", "first").code == 1
    end(cli, "abandon", tmp_path / "book.sqlite", rows_of(tmp_path / "book.sqlite")[0]["id"])
    planned = cli("plan", table_job(tmp_path, "P4"), "--json")
    assert planned.code == 0 and planned.json["retained"] == 240 - 8, "four rows of each"


def published(cli: Any, tmp_path: Path) -> Path:
    head = {"model": "expunge.tasks.networks:SoftmaxHead", "model_settings": {"features": 2, "classes": 2}}
    training = {"kind": "gradient_descent", "steps": 20, "lr": "auto", "l2": 0.01}
    job = table_job(
        tmp_path, "P3", **head, dtype="float64", training=training, ledger=None,
        publish={"epsilon": 1.0, "capacity": 20}, method={"name": "r2d", "rewind": 0.5},
    )  # fmt: skip
    assert cli("publish", job, "--to", "model").code == 0
    return job


@pytest.mark.parametrize("word", ["abandon", "supersede"])
def test_a_release_whose_folder_is_lost_is_ended_stays_counted_and_the_model_serves_others(
    cli, tmp_path, monkeypatch, word
):
    job, ledger = published(cli, tmp_path), tmp_path / "model" / "ledger.sqlite"

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "the disk does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(carry_out, "write_evidence", broken)
        assert cli("run", job, "--model", "model", "--out", "first").code == 75
    (row,) = rows_of(ledger)
    assert row["status"] == "released"
    shutil.rmtree(tmp_path / "first.private")
    shutil.rmtree(tmp_path / "first", ignore_errors=True)
    lost = cli("run", job, "--model", "model", "--out", "first")
    assert lost.code == 2 and f"supersede {row['id']}" in lost.err
    job.write_text(job.read_text().replace("P3", "P4"))
    stuck = cli("run", job, "--model", "model", "--out", "other")
    assert stuck.code == 2 and f"abandon {row['id']}" in stuck.err

    assert end(cli, word, ledger, row["id"]).code == 0
    done = cli("run", job, "--model", "model", "--out", "other", "--json")
    assert done.code in (0, 4), done.err
    assert [item.request for item in ModelFolder(tmp_path / "model").book.spent()] == [
        row["id"],
        done.json["request"]["id"],
    ]
    checked = cli("verify", "other", "--ledger", ledger)
    assert checked.code in (0, 5), checked.out
    job.write_text(job.read_text().replace("P4", "P3"))
    own = cli("run", job, "--model", "model", "--out", "third")
    assert own.code == 2  # P3 went along with the second request; or the request was abandoned
    assert ("was abandoned" if word == "abandon" else "removed already") in own.err


def test_the_person_of_a_lost_release_is_served_by_the_request_in_its_place(cli, tmp_path, monkeypatch):
    job, ledger = published(cli, tmp_path), tmp_path / "model" / "ledger.sqlite"
    with monkeypatch.context() as patched:
        patched.setattr(carry_out, "write_evidence", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "no disk")))
        assert cli("run", job, "--model", "model", "--out", "first").code == 75
    shutil.rmtree(tmp_path / "first.private")
    shutil.rmtree(tmp_path / "first", ignore_errors=True)
    (row,) = rows_of(ledger)
    end(cli, "supersede", ledger, row["id"])
    done = cli("run", job, "--model", "model", "--out", "second", "--json")
    assert done.code in (0, 4), done.err
    old, new = rows_of(ledger)
    assert old["status"] == "superseded" and new["supersedes"] == old["id"] == row["id"] and new["fulfilled"]
    first, second = ModelFolder(tmp_path / "model").book.spent()
    assert (first.request, second.request) == (old["id"], new["id"]) and first.removed == second.removed == 4
    counted = done.json["runs"][0]["epsilon"]
    assert counted == pytest.approx(epsilon_of(math.hypot(first.mu, second.mu), 1e-5), rel=1e-3)
    assert counted > 1.2 * epsilon_of(first.mu, 1e-5), "both releases count"
    checked = cli("verify", "second", "--ledger", ledger)
    assert checked.code in (0, 5), checked.out


# --- a served request, once it is closed ----------------------------------------------------------------------------------


@pytest.fixture
def served(cli, tmp_path) -> dict[str, Any]:
    """A published model from which a request was served by a step that is too small to be seen: nobody can tell what came."""
    job = published(cli, tmp_path)
    gentle = {"name": "fine_tune", "epochs": 1, "lr": 1e-6}
    job.write_text(yaml.safe_dump(yaml.safe_load(job.read_text()) | {"method": gentle}))
    first = cli("run", job, "--model", "model", "--out", "first", "--json")
    assert first.code == 4 and first.json["runs"][0]["outcome"] == "undecidable", first.err
    ledger = tmp_path / "model" / "ledger.sqlite"
    (row,) = rows_of(ledger)
    assert row["status"] == NOT_ACCEPTED
    return {"job": job, "ledger": ledger, "first": first.json, "id": row["id"]}


def with_(job: Path, **sections: Any) -> Path:
    job.write_text(yaml.safe_dump(yaml.safe_load(job.read_text()) | sections))
    return job


def test_a_served_job_that_runs_again_says_what_its_evidence_is_and_exits_as_before(cli, tmp_path, served, caplog):
    again = cli("run", served["job"], "--model", "model", "--out", "first", "--json")
    assert again.code == 4 and again.json == served["first"] and "nothing was done again" in caplog.text
    other = cli("run", served["job"], "--model", "model", "--out", "other")
    assert other.code == 2 and "its evidence is not in other" in other.err and not (tmp_path / "other").exists()
    (tmp_path / "first" / "report.html").write_text("changed")
    damaged = cli("run", served["job"], "--model", "model", "--out", "first")
    assert damaged.code == 2 and "does not verify" in damaged.err


def test_an_undecidable_result_can_be_accepted_after_it_was_delivered_and_the_ledger_says_so(cli, tmp_path, served):
    accept = {"by": "A. Officer", "reason": "asked by hand"}
    told = cli("run", with_(served["job"], accept=accept), "--model", "model", "--out", "first", "--json")
    assert told.code == 0 and told.json["accepted"] and told.json["runs"][0]["accepted_by"] == "person"
    (row,) = rows_of(served["ledger"])
    assert (row["status"], row["by"], row["reason"]) == ("fulfilled", "A. Officer", "asked by hand")
    without = yaml.safe_load(served["job"].read_text())
    del without["accept"]
    served["job"].write_text(yaml.safe_dump(without))
    assert cli("run", served["job"], "--model", "model", "--out", "first").code == 0, "it stays accepted"
    with Ledger(served["ledger"]) as opened:
        assert [entry.kind for entry in opened.entries()].count("acceptance") == 1
    checked = cli("verify", "first", "--ledger", served["ledger"])
    assert checked.code in (0, 5) and "accepted after it was delivered by A. Officer" in " ".join(checked.out.split())
    assert end(cli, "supersede", served["ledger"], served["id"]).code == 2, "what was accepted needs no other"


def test_a_result_that_was_measured_not_to_forget_cannot_be_accepted_later(tmp_path):
    with Ledger(tmp_path / "book.sqlite", create=True) as opened:
        book = RequestBook(opened)
        book.file_request({"id": "req-1"})
        with pytest.raises(InputError, match="only what was delivered"):
            book.accept("req-1", "A. Officer", "why not")
    record = {"runs": [{"verdict": "no-certificate", "outcome": {"word": "under-forgets"}}], "accepted": {"by": "x"}}
    assert not is_accepted(record)


def test_a_result_of_a_published_model_that_was_not_accepted_is_superseded_by_another_method(cli, tmp_path, served):
    assert end(cli, "supersede", served["ledger"], served["id"]).code == 0
    done = cli("run", with_(served["job"], method={"name": "retrain"}), "--model", "model", "--out", "second", "--json")
    assert done.code == 0 and done.json["runs"][0]["accepted_by"] == "certificate", done.err
    old, new = rows_of(served["ledger"])
    assert (old["status"], new["status"], new["supersedes"]) == ("superseded", "fulfilled", old["id"])
    for folder in ("first", "second"):
        checked = cli("verify", folder, "--ledger", served["ledger"])
        assert checked.code in (0, 5), checked.out
    checked = cli("verify", "first", "--ledger", served["ledger"])
    assert "the request was superseded by A. Clerk: not usable" in " ".join(checked.out.split())
    # the model that is left never saw the four rows: the next request is served from it, and they are not retained
    job = served["job"].write_text(served["job"].read_text().replace("P3", "P4")) and served["job"]
    planned = cli("plan", job, "--model", "model", "--json")
    assert planned.code == 0 and planned.json["retained"] == 240 - 8


# --- models that cannot be used are refused before anything is written ---------------------------------------------------


def test_weights_that_are_not_finite_are_refused_before_anything_is_written(cli, tmp_path):
    from expunge.tasks.networks import perceptron

    weights = perceptron([2, 8, 2]).state_dict()
    weights["1.weight"][0, 0] = torch.nan
    save_file(weights, tmp_path / "broken.safetensors")
    job = table_job(tmp_path, "P3", training={"kind": "checkpoint", "path": "broken.safetensors"})
    result = cli("run", job, "--out", "first")
    assert result.code == 2 and "weights are not usable" in result.err
    assert not (tmp_path / "first").exists() and not (tmp_path / "book.sqlite").exists()


def test_a_language_model_that_diverged_is_refused_before_anything_is_written(cli, tmp_path):
    job = write_job(tmp_path, training={"lr": 1e30, "steps": 1, "warmup": 0.0}, ledger="book.sqlite")
    result = cli("run", job, "--out", "first")
    assert result.code == 2 and "weights are not usable" in result.err and "Traceback" not in result.err
    assert not (tmp_path / "first").exists() and not (tmp_path / "book.sqlite").exists()


# --- nothing unfinished is left -----------------------------------------------------------------------------------------


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob(".*.part"))


def test_files_that_a_killed_try_did_not_finish_are_swept_by_the_run_that_ends(cli, tmp_path, monkeypatch):
    """They can hold weights without noise, in the private folder and beside a published model."""
    job = published(cli, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(carry_out, "write_evidence", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "no disk")))
        assert cli("run", job, "--model", "model", "--out", "first").code == 75
    (after,) = [f"after-{row['id']}" for row in rows_of(tmp_path / "model" / "ledger.sqlite")]
    for folder in ("first.private", "first.private/next-SoftmaxHead", "model", f"model/{after}"):
        (tmp_path / folder).mkdir(exist_ok=True, mode=0o700)
        (tmp_path / folder / ".0123456789abcdef.part").write_bytes(b"half of some weights")
    assert cli("run", job, "--model", "model", "--out", "first").code in (0, 4)
    assert parts_of(tmp_path) == []


@pytest.mark.parametrize(
    "setting", [{"lr": -1}, {"lr": float("nan")}, {"lr": float("inf")}, {"epochs": 0}, {"batch_size": -3}], ids=str
)
def test_settings_that_no_method_can_use_are_refused_before_anything_is_trained(cli, tmp_path, learnt, setting):
    learnt["now"] = "refused"
    result = cli("run", table_job(tmp_path, "P3", method={"name": "fine_tune", **setting}), "--out", "first")
    assert result.code == 2 and f"method.{next(iter(setting))}: expected" in result.err
    assert not learnt["refused"] and not (tmp_path / "first").exists()


def test_who_stops_a_run_until_its_noise_pleases_gets_no_second_draw(cli, job, refused, tmp_path, monkeypatch):
    path = job()
    assert cli("publish", path, "--to", "model").code == 0
    path = job(publish=None, training={"kind": "stored", "folder": "model"})

    def stopped(*_: object, **__: object) -> None:
        raise OSError(5, "stopped")

    with monkeypatch.context() as patch:
        patch.setattr(carry_out, "measure", stopped)  # the noise is drawn and stored, nothing is released
        assert cli("run", path, "--out", "first").code == 75
    drawn = {file.name for file in (tmp_path / "first.private").rglob("*.release.*")}
    assert drawn
    said = refused("run", path, out="second")
    assert (
        "was begun by another run" in said and "still at work, wait" in said and "If it stopped, run it again" in said
    )
    assert {file.name for file in (tmp_path / "first.private").rglob("*.release.*")} == drawn
    assert cli("run", path, "--out", "first").code == 0


def stopped_at(cli: Any, monkeypatch: Any, step: str, *argv: object) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise OSError(5, "stopped")

    with monkeypatch.context() as patch:
        patch.setattr(carry_out, step, stopped)
        assert cli("run", *argv).code == 75


def test_a_job_that_publishes_its_own_model_gets_no_second_draw_by_losing_its_private_folder(
    cli, job, refused, monkeypatch
):
    path = job(ledger="book.sqlite")
    stopped_at(
        cli, monkeypatch, "measure", path, "--out", "first"
    )  # the noise is drawn and stored, nothing is released
    shutil.rmtree(path.parent / "first.private")
    assert "was begun by another run" in refused("run", path, out="second")


def test_a_run_does_not_go_on_with_another_ledger_than_the_one_it_wrote_to(cli, job, monkeypatch, tmp_path):
    ledger, path = tmp_path / "book.sqlite", job(ledger="book.sqlite")
    stopped_at(cli, monkeypatch, "save_trained", path, "--out", "first")  # released, and the evidence is written
    kept = ledger.read_bytes()
    with Ledger(ledger) as opened:
        filed, decided = opened.entries()[:2]
    for entries, said in (
        (None, "Restore that ledger"),
        ([], "Restore that ledger"),
        ([filed, decided], "is an old copy"),
    ):
        ledger.unlink()
        if entries is not None:
            with Ledger(ledger, create=True) as other:
                for entry in entries:
                    other.append(entry.kind, entry.key, entry.payload, entry.time)
        before = ledger.read_bytes() if ledger.exists() else None
        result = cli("run", path, "--out", "first")
        assert result.code == 2 and said in result.err
        assert (ledger.read_bytes() if ledger.exists() else None) == before
        ledger.write_bytes(kept)
    assert cli("run", path, "--out", "first").code in (0, 4)
    assert cli("verify", "first", "--ledger", ledger).code in (0, 5)
