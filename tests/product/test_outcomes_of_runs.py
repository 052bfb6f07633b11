"""``expunge run`` judges as ``bench`` does: a job for each outcome, its exit code, and what ledger, report and record say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.product.language import write_job

from expunge.core.digest import digest_file
from expunge.metrics.outcomes import Word
from expunge.report.folder import as_json
from expunge.report.verify import record as records
from expunge.report.verify import verify_folder
from expunge.requests_book import NOT_ACCEPTED

CLASSIFIER = """
model: expunge.tasks.networks:perceptron
model_settings: {widths: [16, 64, 4]}
data: {format: csv, path: train.csv, test_path: test.csv, label: label, classes: [0, 1, 2, 3], users: [who]}
training: {kind: stochastic, epochs: 40, batch_size: 32, lr: 0.1, momentum: 0.9}
request: {subject: somebody, targets: [{kind: user, where: {who: p3}}]}
method: {name: no_op}
evidence: {shadow_models: 0, replicates: 2, pdf: false}
ledger: book.sqlite
"""
OVERFITS = (
    0.15  # of the labels are drawn anew: a model that was trained on them knows them by heart, a retrained one does not
)
ACCEPT = {"by": "A. Officer", "reason": "no recipe to compare with"}


def table(path: Path, count: int, seed: int, person: int = 80, anew: float = OVERFITS) -> None:
    """Rows whose class is the largest of four sums of features, ``person`` of them each person's; those of p3 are marked."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 16))
    y = (x[:, :4] @ np.random.default_rng(7).normal(size=(4, 4))).argmax(1)
    y = np.where(draw.random(count) < anew, draw.integers(4, size=count), y)
    if count > 3 * person:
        x[3 * person : 4 * person, 15] += 3
    lines = [",".join([*(f"f{i}" for i in range(16)), "who", "label"])]
    lines += [",".join([*(f"{value:.4f}" for value in x[i]), f"p{i // person}", str(y[i])]) for i in range(count)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def classifier(tmp_path):
    """Write a job on a classifier that overfits, with sections replaced."""

    def write(person: int = 80, anew: float = OVERFITS, **sections: Any) -> Path:
        table(tmp_path / "train.csv", 400, 1, person, anew)
        table(tmp_path / "test.csv", 200, 2, 10**6)
        content = yaml.safe_load(CLASSIFIER)
        for section, value in sections.items():
            old = content.get(section)
            content[section] = {**old, **value} if isinstance(old, dict) and section != "method" else value
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def ends(cli, job: Path, code: int, word: str, by: str | None) -> dict[str, Any]:
    """Run the job: exit code, JSON, ledger, record and verification agree on the outcome. Returns the run of the summary."""
    done = cli("run", job, "--out", "evidence", "--json")
    assert done.code == code, done.out + done.err
    (run,) = done.json["runs"]
    assert (run["outcome"], run["accepted_by"], done.json["accepted"]) == (word, by, by is not None), run[
        "outcome_reason"
    ]
    (row,) = cli("requests", "list", "--ledger", "book.sqlite", "--json").json
    assert row["status"] == ("fulfilled" if by else NOT_ACCEPTED)
    checked = verify_folder("evidence", ledger=Path("book.sqlite"))
    assert checked.consistent, [item for item in checked.checks if not item.ok]
    whole = json.loads(Path("evidence.private/review.json").read_text())
    assert whole["runs"][0]["outcome"]["word"] == word and not records.outcome_problems(whole, whole["runs"][0])
    assert cli("run", job, "--out", "evidence", "--json").code == code, "the same command says the same again"
    return run


RANDOM = {"name": "random_labels", "epochs": 6, "lr": 0.05}
ADOPTED = {"evidence": {"reference": "none"}}
# Word, exit code and who accepts; and the job that earns it. Retraining gets some two of three forgotten examples right, and
# with 5 % of labels drawn anew nine of ten, far above what labels of the other classes alone leave.
EARNED = [
    ("forgets", 0, "outcome", {"method": RANDOM}),
    ("under-forgets", 4, None, {"method": {"name": "fine_tune", "epochs": 1, "lr": 0.001}}),
    ("over-forgets", 4, None, {"method": {**RANDOM, "epochs": 12, "exclude_true": True}, "anew": 0.05}),
    ("utility-collapse", 4, None, {"method": {"name": "gradient_ascent", "epochs": 10, "lr": 0.5}}),
    ("undecidable", 4, None, {"method": RANDOM, **ADOPTED}),
    ("undecidable", 0, "person", {"method": RANDOM, **ADOPTED, "accept": ACCEPT}),
]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("word", "code", "by", "job"), EARNED)
def test_each_outcome_is_earned_by_a_job_and_has_its_exit_code(cli, classifier, word, code, by, job, seed):
    run = ends(cli, classifier(seed=seed, **job), code, word, by)
    shown = json.loads(Path("evidence/evidence.json").read_text())["runs"][0]
    assert shown["outcome"]["word"] == word and shown["outcome"]["reason"], "80 rows are many enough to be shown"
    page = re.sub(r"<[^>]+>|\s+", " ", Path("evidence/report.html").read_text())
    measured = page.partition("What is measured")[2].partition("What is not known")[0]
    assert ("not accepted" in measured) is (by is None) and "forgotten" in measured[:120].lower() + word
    if word == "over-forgets":
        assert run["accuracy"]["forget"]["unlearned"] < 0.6 < 0.75 < run["accuracy"]["forget"]["retrained"]
    if by == "person":
        assert ACCEPT["by"] in page and ACCEPT["reason"] in page


def test_no_outcome_lacks_a_job_that_earns_it():
    assert {word for word, *_ in EARNED} == {word.value for word in Word}


def test_the_five_words_of_a_control(cli, classifier):
    run = ends(cli, classifier(), 4, "under-forgets", None)
    assert run["verdict"] == "unchanged"


def test_a_person_does_not_accept_what_was_measured_not_to_forget(cli, classifier):
    ends(cli, classifier(accept=ACCEPT), 4, "under-forgets", None)


def test_who_accepts_a_result_after_it_was_delivered_is_in_report_and_reply_and_all_of_it_verifies(cli, classifier):
    method = {"method": {"name": "random_labels", "epochs": 1, "lr": 0.01}, **ADOPTED}
    assert cli("run", classifier(**method), "--out", "evidence").code == 4
    assert "did not satisfy us" in Path("evidence.private/reply.txt").read_text()
    before, handed_out = Path("evidence/evidence.json").read_bytes(), Path("copy")
    shutil.copytree("evidence", handed_out)
    assert cli("run", classifier(**method, accept=ACCEPT), "--out", "evidence", "--json").code == 0
    page = " ".join(Path("evidence/report.html").read_text().split())
    assert (
        "Accepted as it is.</b> By A. Officer: no recipe" in page
        and "hip it" not in page
        and "not accepted" not in page
    )
    letter = Path("evidence.private/reply.txt").read_text()
    assert "could not decide" in letter and "did not satisfy us" not in letter
    assert "Accepted as it is." in Path("evidence.private/review.html").read_text()
    for folder in ("evidence", handed_out):
        checked = verify_folder(folder, ledger=Path("book.sqlite"))
        assert checked.consistent, [item for item in checked.checks if not item.ok]
    after = Path("evidence/evidence.json").read_bytes()
    assert after != before
    for name in ("evidence.json", "statement.json"):  # as a crash after the ledger's entry would leave them
        shutil.copy(handed_out / name, Path("evidence") / name)
    assert cli("run", classifier(**method), "--out", "evidence").code == 0
    assert Path("evidence/evidence.json").read_bytes() == after
    assert verify_folder("evidence", ledger=Path("book.sqlite")).consistent
    forged = json.loads(after)
    forged["accepted_since"]["by"] = "Somebody Else"
    Path("evidence/evidence.json").write_bytes(as_json(forged))
    found = {check.name: check for check in verify_folder("evidence", ledger=Path("book.sqlite")).checks}
    assert "does not say that the person" in found["ledger"].problem


PEOPLE = [{"kind": "user", "where": {"subject": [f"person{i}" for i in range(3, 7)]}}]


@pytest.mark.parametrize(
    ("method", "code", "word", "by"),
    [
        ({"name": "npo", "steps": 60, "lr": 3e-3, "batch_size": 12, "alpha": 3.0}, 0, "forgets", "outcome"),
        pytest.param(
            {"name": "npo", "steps": 2, "lr": 1e-6, "batch_size": 12}, 4, "under-forgets", None, marks=pytest.mark.slow
        ),
        pytest.param(
            {"name": "ga", "steps": 30, "lr": 3e-2, "batch_size": 12},
            4,
            "utility-collapse",
            None,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_language_models(cli, tmp_path, method, code, word, by):
    training, request = (
        {"steps": 400, "lr": 0.01},
        {"targets": PEOPLE},
    )  # no fewer, and its retained answers are half known
    job = write_job(
        tmp_path, training=training, request=request, method=method, evidence={"replicates": 0}, ledger="book.sqlite"
    )
    ends(cli, job, code, word, by)
    page = re.sub(r"<[^>]+>|\s+", " ", Path("evidence.private/review.html").read_text())
    measured = page.partition("What is measured")[2]
    assert measured.index("forgotten answers") < measured.index("retained rows"), "forgotten examples first"


def test_a_certificate_accepts_whatever_is_measured_and_the_folder_keeps_the_word(cli, job):
    path = job(publish={"epsilon": 1.0, "delta": 1e-5, "capacity": 10})
    assert cli("publish", path, "--to", "model").code == 0
    done = cli("run", path, "--model", "model", "--out", "evidence", "--json")
    assert done.code == 0, done.err
    (run,) = done.json["runs"]
    assert (run["verdict"], run["accepted_by"]) == ("certified", "certificate")
    (row,) = cli("requests", "list", "--ledger", "model/ledger.sqlite", "--json").json
    assert row["status"] == "fulfilled"
    shown = json.loads(Path("evidence/evidence.json").read_text())
    assert shown["runs"][0]["outcome"] == {"word": "private", "reason": None}
    assert run["outcome_reason"] not in Path("evidence/report.html").read_text()
    assert verify_folder("evidence", ledger=Path("model/ledger.sqlite")).consistent


def test_who_was_not_forgotten_stays_out_of_later_training(cli, classifier):
    first = cli("run", classifier(), "--out", "first")
    assert first.code == 4 and "expunge requests supersede req-" in first.out
    elsewhere = cli("run", classifier(), "--out", "second")
    assert elsewhere.code == 2 and "expunge requests supersede req-" in " ".join(elsewhere.err.split())
    again = classifier(request={"targets": [{"kind": "user", "where": {"who": "p1"}}]})
    done = cli("plan", again, "--json")
    assert done.code == 0 and done.json["retained"] == 400 - 80 - 80, "p3 is neither trained on nor retained"


def test_a_forged_outcome_does_not_verify(cli, classifier):
    assert cli("run", classifier(), "--out", "evidence").code == 4
    whole = json.loads(Path("evidence/evidence.json").read_text())
    run = whole["runs"][0]
    assert not records.outcome_problems(whole, run)
    for change in (
        {"word": "forgets"},
        {"reason": "Everything is forgotten."},
        {"word": "private", "reason": None},
        {"word": "fine"},
    ):
        assert records.outcome_problems(whole, {**run, "outcome": {**run["outcome"], **change}})
    whole["runs"][0] = {name: value for name, value in run.items() if name != "outcome"}
    before = digest_file(Path("evidence/evidence.json"))
    Path("evidence/evidence.json").write_bytes(as_json(whole))
    assert digest_file(Path("evidence/evidence.json")) != before
    found = {check.name: check for check in verify_folder("evidence", ledger=Path("book.sqlite")).checks}
    assert not found["ledger"].ok and "another outcome" in found["ledger"].problem


def test_a_weak_original_model_is_refused_before_anything_else_is_trained(cli, classifier, caplog):
    done = cli("run", classifier(expected_accuracy=0.95), "--out", "evidence")
    assert done.code == 2 and "the job expects 0.950" in done.err and "retrain" not in done.err.partition("error")[0]
    assert not Path("evidence").exists() and not Path("book.sqlite").exists()
    untrained = classifier(
        training={"epochs": 1, "lr": 1e-6}, request={"targets": [{"kind": "user", "where": {"who": "p2"}}]}
    )
    assert cli("plan", untrained).code == 0 and "may have nothing to forget" in caplog.text
