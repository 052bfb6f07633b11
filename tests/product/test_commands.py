"""The commands and their contract with machines."""

from __future__ import annotations

import json

import pytest
import yaml
from tests.product.conftest import process

from expunge.ledger import Ledger

RUN_KEYS = {
    "method", "verdict", "epsilon", "nominal_epsilon", "delta", "sigma", "sensitivity", "accuracy", "membership_auc",
    "seconds",
}  # fmt: skip
THREE = {"original", "unlearned", "retrained"}
CALIBRATION = {
    "smoothness": 0.2065,
    "gradient-bound": 0.5946,
    "lr": 0.01,
    "samples": 94449,
    "forget": 1079,
    "steps": 3666,
}
SMALL_CALIBRATION = [text for name, value in CALIBRATION.items() for text in (f"--{name}", value)]


def holds_the_contract(summary):
    assert {"request", "runs", "report"} <= summary.keys()
    assert summary["request"].keys() == {"id", "kind"}
    for run in summary["runs"]:
        assert run.keys() >= RUN_KEYS
        assert run["accuracy"].keys() == {"retain", "forget", "test"}
        for three in [*run["accuracy"].values(), run["membership_auc"]]:
            assert three.keys() == THREE
        assert run["seconds"].keys() == {"unlearn", "retrain"}
        assert (run["epsilon"] is not None) == run["verdict"].startswith("certified")


def test_run_in_a_process_prints_one_object_and_verifies(job, tmp_path):
    done = process("run", job(), "--out", "evidence", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    holds_the_contract(summary)
    (run,) = summary["runs"]
    assert run["verdict"] == "certified-under-declared-constants" and run["publish_first"]
    assert run["epsilon"] == pytest.approx(8.0)
    assert (tmp_path / "evidence" / "report.html").is_file()
    assert "unlearn: 30 done" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout, "plain lines where there is no terminal"
    again = process("verify", "evidence", "--json", cwd=tmp_path)
    assert again.returncode == 5, again.stdout + again.stderr
    assert json.loads(again.stdout)["exit_code"] == 5


def test_what_user_code_prints_goes_to_stderr(cli, job, tmp_path, monkeypatch):
    (tmp_path / "talking.py").write_text(
        "from expunge.tasks.networks import SoftmaxHead\n"
        "def head():\n    print('hello from the model')\n    return SoftmaxHead(64, 10)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    done = cli("run", job(model="talking:head", model_settings={}), "--out", "evidence", "--json")
    assert done.code == 0, done.err
    holds_the_contract(done.json)
    assert "hello from the model" in done.err


def test_run_for_people_fits_a_hundred_columns(cli, job):
    done = cli("run", job(), "--out", "evidence")
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 100
    for word in (
        "certified",
        "Accuracy on forgotten rows",
        "Membership attack by",
        "undecidable",
        "accepted: certificate",
        "expunge verify evidence",
    ):
        assert word in done.out


def test_the_same_request_twice_is_one_request(cli, job, tmp_path, caplog):
    first = cli("run", job(), "--out", "evidence", "--json")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    second = cli("run", job(), "--out", "evidence", "--json")
    assert second.json == first.json
    assert "carried out already" in caplog.text
    assert "unlearn" not in second.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_fulfilled_request_points_to_its_evidence(cli, job):
    path = job(ledger="book.sqlite")
    assert cli("run", path, "--out", "evidence").code == 0
    done = cli("run", path, "--out", "elsewhere")
    assert (done.code, "Name the folder that holds it" in done.err) == (2, True)


def test_a_request_filed_before_is_the_one_that_is_run(cli, job):
    filed = cli(
        "requests", "add", "--ledger", "book.sqlite", "--subject", "person 17", "--where", "person=17", "--received",
        "2026-01-31", "--ground", "consent withdrawn", "--json",
    ).json  # fmt: skip
    assert (filed["status"], filed["due"]) == ("received", "2026-02-28")
    run = cli("run", job(ledger="book.sqlite"), "--out", "evidence", "--json")
    assert run.code == 0, run.err
    assert run.json["request"]["id"] == filed["id"]
    (row,) = cli("requests", "list", "--ledger", "book.sqlite", "--json").json
    assert (row["status"], row["received"], row["ground"]) == ("fulfilled", "2026-01-31", "consent withdrawn")
    shown = cli("requests", "show", filed["id"], "--ledger", "book.sqlite", "--json").json
    assert [entry["kind"] for entry in shown["entries"]] == [
        "request",
        "decision",
        "beginning",
        "release",
        "fulfilment",
    ]


def test_filing_twice_changes_nothing(cli, tmp_path):
    arguments = ("requests", "add", "--ledger", "book.sqlite", "--subject", "a", "--where", "person=3", "--json")
    assert cli(*arguments).json == cli(*arguments, "--ground", "another").json
    with Ledger(tmp_path / "book.sqlite") as ledger:
        assert len(ledger.entries()) == 1


def test_requests_for_people(cli):
    cli("requests", "add", "--ledger", "book.sqlite", "--subject", "a", "--where", "person=3")
    done = cli("requests", "list", "--ledger", "book.sqlite")
    assert "received" in done.out
    identity = done.out.split("req-")[1].split()[0]
    assert "entry 1" in cli("requests", "show", f"req-{identity}", "--ledger", "book.sqlite").out
    assert "a" not in done.out.split(), "the subject is nowhere"


def test_methods_in_a_process():
    done = process("methods", "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"r2d", "retrain", "fine_tune", "no_op"} <= {row["name"] for row in rows}
    for row in rows:
        assert row.keys() == {"name", "paper", "kinds", "tasks", "needs", "effect", "certified"}


def test_methods_for_people(cli):
    done = cli("methods")
    table, papers = done.out.split("  r2d: ")
    assert max(map(len, table.splitlines())) <= 100
    assert "arXiv 2409.09778" in papers


def test_calibrate_gives_the_published_numbers(cli):
    found = cli("calibrate", "r2d", *SMALL_CALIBRATION, "--rewind", 376, "--epsilon", 40, "--delta", 0.1, "--json").json
    assert found["sensitivity"] == pytest.approx({"published": 136.797, "tight": 126.478, "path": 23.509}, abs=1e-3)
    assert found["sigma"]["published"] == pytest.approx(17.41, abs=5e-3)
    assert "path" in cli("calibrate", "r2d", *SMALL_CALIBRATION, "--rewind", 376).out


def test_calibrate_search_chooses_and_writes_nothing(cli, job, tmp_path):
    path = job()
    before = sorted(tmp_path.rglob("*"))
    found = cli("calibrate", "search", path, "--guarantee", "epsilon=1", "--json", "--tolerance", "0.2").json
    assert found["epsilon"] == 1
    assert found["chosen"]["fits"]
    cheapest = min(c["gradient_evaluations"] for c in found["candidates"] if c["fits"])
    assert found["chosen"]["gradient_evaluations"] == cheapest
    assert "row gradients a request" in found["statement"]
    assert sorted(tmp_path.rglob("*")) == before
    people = cli(
        "plan", path, "--guarantee", "epsilon=1,delta=1e-6", "--set", "training.l2=0"
    )  # the name that it had before
    assert max(map(len, people.out.splitlines())) <= 100
    assert "expunge calibrate search" in people.err and "Reaching epsilon 1" in people.out


def test_key_is_the_same_twice(cli):
    first, second = cli("key", "--json").json, cli("key", "--json").json
    assert first == second
    assert "PUBLIC KEY" in first["public_key"]


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "run",
        "plan",
        "methods",
        "verify",
        "key",
        "requests",
        "requests add",
        "requests show",
        "calibrate r2d",
        "calibrate search",
    ],
)
def test_every_command_explains_itself(cli, command):
    done = cli(*command.split(), "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_settings_can_be_overridden(cli, job, tmp_path):
    done = cli(
        "run", job(), "--out", "evidence", "--json", "--set", "training.steps=40", "--set", "publish.epsilon=9",
        "--set", "request.targets.0.where.person=3",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["runs"][0]["epsilon"] == pytest.approx(9)
    (config,) = list((tmp_path / "evidence").glob("*.yaml"))
    content = yaml.safe_load(config.read_text())
    assert content["training"]["steps"] == 40
    assert "17" not in str(content["request"]), "who asks is kept out of the evidence"


def test_a_tampered_folder_fails_to_verify_with_exit_code_1(cli, job, tmp_path):
    assert cli("run", job(), "--out", "evidence").code == 0
    assert cli("verify", "evidence").code == 5, "without a key the signer is not checked"
    (tmp_path / "signer.pem").write_text(cli("key", "--json").json["public_key"])
    assert cli("verify", "evidence", "--key", "signer.pem").code == 0
    path = tmp_path / "evidence" / "evidence.json"
    path.write_bytes(path.read_bytes().replace(b'"certified-', b'"uncertain-', 1))
    done = cli("verify", "evidence", "--json")
    assert done.code == 1
    assert done.json is not None


def test_demo(cli, monkeypatch):
    from expunge import demo

    whole = demo.MeasureSettings
    monkeypatch.setattr(demo, "MeasureSettings", lambda **s: whole(**{**s, "shadow_models": 0, "replicates": 1}))
    done = cli("demo", "--out", "evidence", "--json")
    assert done.code == 0, done.err
    summary = done.json
    holds_the_contract(summary)
    assert [run["verdict"] for run in summary["runs"]] == ["certified", "heuristic-noise"]
    assert cli("verify", "evidence").code == 6, "the ledger lies elsewhere"
    ledger = "evidence.private/models/ledger.sqlite"
    assert cli("verify", "evidence", "--ledger", ledger).code == 5
