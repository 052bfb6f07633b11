"""Whoever a request was granted for is in nothing that a later run on the ledger learns from."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file
from tests.product.language import facts, write_job

from expunge import measuring
from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.keys import subject_key
from expunge.core.request import Request, Target
from expunge.data.marks import marks_of
from expunge.jobs.run import publish_job, run_job
from expunge.jobs.schema import load_job
from expunge.ledger import Ledger
from expunge.modalities.classification import opening as build
from expunge.requests_book import NOT_ACCEPTED, RequestBook
from expunge.tasks.networks import perceptron
from expunge.training import shadow_models
from expunge.training.language import LanguageTraining
from expunge.training.recipes import GradientDescent, Stochastic


@pytest.fixture
def learnt(monkeypatch) -> dict[str, set[str]]:
    """Who was in the rows of every training, by the run that is under way (``learnt["now"]`` is its name)."""
    seen: dict[str, Any] = defaultdict(set)
    seen["now"] = "none"

    def note(rows: Any) -> None:
        for name in ("patient", "subject", "who"):
            if name in rows.columns:
                seen[seen["now"]] |= {str(value) for value in rows.columns[name]}

    def spy(owner: Any, name: str, place: int) -> None:
        plain = getattr(owner, name)

        def wrapped(*args: Any, **keywords: Any) -> Any:
            given = args[place] if len(args) > place else keywords["rows"]
            for rows in given if isinstance(given, list | tuple) else [given]:
                note(rows)
            return plain(*args, **keywords)

        monkeypatch.setattr(owner, name, wrapped)

    for recipe in (Stochastic, GradientDescent, LanguageTraining):
        spy(recipe, "fit", 2)  # self, task, data
    return seen


PUBLISHED = {  # a softmax head with a promise, served from its own ledger
    "model": "expunge.tasks.networks:SoftmaxHead",
    "model_settings": {"features": 2, "classes": 2},
    "dtype": "float64",
    "training": {"kind": "gradient_descent", "steps": 20, "lr": "auto", "l2": 0.01},
    "publish": {"epsilon": 1.0, "capacity": 8},
    "method": {"name": "r2d", "rewind": 0.5},
    "ledger": None,
}


def patients(folder: Path, count: int = 60, each: int = 4) -> str:
    """A table of patients, ``each`` rows one; two classes that a line divides."""
    draw = np.random.default_rng(0)
    lines = ["a,b,patient,y"]
    for i in range(count * each):
        y = i % 2
        a, b = draw.normal([y - 0.5, 0.5 - y], 0.3)
        lines.append(f"{a:.3f},{b:.3f},P{i // each},{y}")
    (folder / "d.csv").write_text("\n".join(lines) + "\n")
    return "d.csv"


def table_job(folder: Path, who: Any, **sections: Any) -> Path:
    content = {
        "model": "expunge.tasks.networks:perceptron",
        "model_settings": {"widths": [2, 8, 2]},
        "data": {"format": "csv", "path": patients(folder), "label": "y", "users": ["patient"]},
        "training": {"kind": "stochastic", "epochs": 2, "batch_size": 16, "lr": 0.1},
        "request": {"subject": f"subject {who}", "targets": [{"kind": "user", "where": {"patient": who}}]},
        "method": {"name": "fine_tune", "epochs": 1},
        "evidence": {"shadow_models": 0, "replicates": 1, "audit": False, "trials": 0, "pdf": False},
        "ledger": "book.sqlite",
        **sections,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(learnt: dict[str, Any], job: Path, name: str, **how: Any) -> dict[str, Any]:
    learnt["now"] = name
    return run_job(job, (), job.parent / f"out-{name}", **how)


def statuses(ledger: Path) -> list[str]:
    with Ledger(ledger) as book:
        return [item["status"] for item in RequestBook(book).requests()]


# --- a week of requests -----------------------------------------------------------------------------------------------


def test_a_week_of_requests_on_tables(learnt, tmp_path, cli):
    run(learnt, table_job(tmp_path, "P3"), "monday")
    run(learnt, table_job(tmp_path, "P4"), "tuesday")
    with pytest.raises(InputError, match="'P99'"):  # typed wrongly
        run(learnt, table_job(tmp_path, "P99"), "wednesday")
    added = cli(
        "requests", "add", "--ledger", tmp_path / "book.sqlite", "--subject", "P7", "--where", "patient=P7", "--json"
    )
    withdrawn = cli(
        "requests",
        "withdraw",
        added.json["id"],
        "--ledger",
        tmp_path / "book.sqlite",
        "--by",
        "x",
        "--why",
        "asked",
        "--json",
    )
    assert withdrawn.json["status"] == "withdrawn"
    batch = [f"P{i}" for i in range(10, 30)]
    run(learnt, table_job(tmp_path, batch, method={"name": "retrain"}), "thursday")
    run(learnt, table_job(tmp_path, "P5"), "friday")

    everyone = {f"P{i}" for i in range(60)}
    assert learnt["monday"] == everyone
    assert learnt["tuesday"] == everyone - {"P3"}
    assert learnt["thursday"] == everyone - {"P3", "P4"}
    assert learnt["friday"] == everyone - {"P3", "P4", *batch}  # P7 withdrew and P99 is nobody
    assert statuses(tmp_path / "book.sqlite") == [NOT_ACCEPTED, NOT_ACCEPTED, "withdrawn", "fulfilled", NOT_ACCEPTED]


def test_a_week_of_requests_on_images(learnt, tmp_path):
    for i in range(48):
        place = tmp_path / "images" / f"c{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 100 * (i % 2) + i).save(place / f"u{i // 4}_{i}.png")
    data = {"format": "images", "path": "images", "channels": 1, "users": r"(?P<who>u\d+)_"}
    model = {"model": "expunge.tasks.networks:perceptron", "model_settings": {"widths": [16, 8, 2]}}

    def job(who: str) -> Path:
        request = {"subject": who, "targets": [{"kind": "user", "where": {"who": who}}]}
        return table_job(tmp_path, who, data=data, request=request, **model)

    for name, who in (("monday", "u1"), ("tuesday", "u2"), ("wednesday", "u3")):
        run(learnt, job(who), name)
    everyone = {f"u{i}" for i in range(12)}
    assert learnt["monday"] == everyone
    assert learnt["wednesday"] == everyone - {"u1", "u2"}


def test_a_week_of_requests_on_language(learnt, tmp_path):
    def job(*people: int) -> Path:
        targets = [{"kind": "user", "where": {"subject": f"person{i}"}} for i in people]
        request = {"subject": f"people {people}", "targets": targets}
        return write_job(tmp_path, request=request, ledger="book.sqlite", method={"name": "grad_diff", "steps": 2})

    run(learnt, job(3), "monday")
    run(learnt, job(4, 5), "tuesday")
    run(learnt, job(6), "wednesday")
    everyone = {record["subject"] for record in facts()}
    assert learnt["monday"] == everyone
    assert learnt["wednesday"] == everyone - {"person3", "person4", "person5"}


# --- one by one -------------------------------------------------------------------------------------------------------


def test_shadow_and_retrained_models_leave_earlier_people_out(learnt, tmp_path, monkeypatch):
    run(learnt, table_job(tmp_path, "P3"), "first")
    seen = []

    def spy(task: Any, rows: Any, *others: Any, **how: Any) -> Any:
        seen.append({tuple(x) for x in rows.x.tolist()})
        return shadow_models.train_shadow_models(task, rows, *others, **how)

    monkeypatch.setattr(measuring, "train_shadow_models", spy)
    evidence = {"shadow_models": 4, "replicates": 1, "audit": False, "trials": 0, "pdf": False}
    (tmp_path / "new.csv").write_text(
        "a,b,patient,y\n" + "".join(f"{i / 20},{-i / 20},T{i},{i % 2}\n" for i in range(40))
    )
    data = {"format": "csv", "path": "d.csv", "label": "y", "users": ["patient"], "test_path": "new.csv"}
    training = {"kind": "gradient_descent", "steps": 20, "lr": 0.1}
    job = table_job(tmp_path, "P4", evidence=evidence, data=data, training=training)
    run(learnt, job, "second")
    data, _ = build.data_of(load_job(job))
    forgotten, retained = ({tuple(x) for x in data.x[at].tolist()} for at in (slice(12, 16), slice(20, 24)))
    assert len(seen) == 1 and not forgotten & seen[0] and retained < seen[0]
    assert "P3" not in learnt["second"]


def test_single_examples_are_recognised_in_a_file_whose_lines_moved(learnt, tmp_path):
    request = {"subject": "x", "targets": [{"kind": "samples", "where": {"ids": [0, 1, 2, 3]}}]}  # all of P0
    run(learnt, table_job(tmp_path, "x", request=request), "first")
    job = table_job(tmp_path, "P4")
    lines = (tmp_path / "d.csv").read_text().splitlines()
    (tmp_path / "d.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    run(learnt, job, "second")
    assert learnt["first"] - learnt["second"] == {"P0"}


def test_a_second_model_on_one_ledger_forgets_the_same_person(learnt, tmp_path):
    one = run(learnt, table_job(tmp_path, "P3"), "one")
    other = table_job(tmp_path, "P3", model_settings={"widths": [2, 4, 2]})
    two = run(learnt, other, "two")
    assert two["request"]["id"].startswith(one["request"]["id"] + "-")
    assert "P3" in learnt["two"]  # this model knew the person
    assert statuses(tmp_path / "book.sqlite") == [NOT_ACCEPTED, NOT_ACCEPTED]
    again = run(learnt, other, "two")
    assert again["request"] == two["request"]
    with pytest.raises(InputError, match="delivered-not-accepted already for this model"):
        run_job(other, (), tmp_path / "elsewhere")


def test_what_an_adopted_model_is_made_of_leaves_earlier_people_out(learnt, tmp_path):
    save_file(perceptron((2, 8, 2)).state_dict(), tmp_path / "w.safetensors")
    training = {"kind": "checkpoint", "path": "w.safetensors"}
    evidence = {"reference": "none", "shadow_models": 0, "replicates": 0, "audit": False, "trials": 0, "pdf": False}
    for who in ("P3", "P4"):
        run(learnt, table_job(tmp_path, who, training=training, evidence=evidence), who)
    kept = json.loads((tmp_path / "out-P4.private" / "next-perceptron" / "trained.json").read_text())
    assert kept["ids"] == [[0, 11], [20, 239]]  # P3 has rows 12 to 15, P4 16 to 19


def test_a_new_model_is_published_without_the_people_of_another_ledger(learnt, tmp_path):
    run(learnt, table_job(tmp_path, "P3"), "first")
    job = table_job(tmp_path, "P4", **PUBLISHED, excluded_by=["book.sqlite"])
    learnt["now"] = "published"
    publish_job(job, (), tmp_path / "MODEL")
    assert "P3" not in learnt["published"] and "P4" in learnt["published"]
    done = run(learnt, job, "second", model=tmp_path / "MODEL")
    assert done["runs"][0]["verdict"] == "certified"
    assert not {"P3"} & learnt["second"]


def test_a_granted_request_that_was_not_served_goes_along_with_the_next(learnt, tmp_path):
    """A published model that was granted a request but never released for it: the next release forgets both."""
    job = table_job(tmp_path, "P4", **PUBLISHED)
    publish_job(job, (), tmp_path / "MODEL")
    request = Request("earlier", (Target("user", {"patient": "P3"}),))
    data, _ = build.data_of(load_job(job))
    with Ledger(tmp_path / "MODEL" / "ledger.sqlite") as ledger:
        book = RequestBook(ledger)
        book.file_request(request.record(subject_key()))
        marks = marks_of(Deletion.of(data, request), request.targets, subject_key())
        matched = {"count": 4, "ids": [], "marks": marks}
        book.decide(request.id(subject_key()), {"decision": "grant", "reason": "-", "by": "x", "matched": matched})
    done = run(learnt, job, "next", model=tmp_path / "MODEL")
    assert done["runs"][0]["verdict"] == "certified"
    record = json.loads((tmp_path / "out-next" / "evidence.json").read_text())
    assert record["request"]["matched"]["count"] == 4 and record["request"]["matched"]["along"] == 4
    assert record["data"]["forgotten"] == 8
    with pytest.raises(InputError, match="removed already"):
        run_job(table_job(tmp_path, "P3", **PUBLISHED), (), tmp_path / "late", model=tmp_path / "MODEL")


def test_the_next_language_model_starts_from_what_was_kept(learnt, tmp_path):
    job = write_job(tmp_path, method={"name": "grad_diff", "steps": 2})
    run(learnt, job, "first")
    folder = tmp_path / "out-first.private" / "next-micro"
    later = write_job(
        tmp_path,
        training={"kind": "stored", "folder": str(folder), "steps": None, "lr": None, "batch_size": None},
        request={"subject": "person 4", "targets": [{"kind": "user", "where": {"subject": "person4"}}]},
        method={"name": "grad_diff", "steps": 2},
    )
    done = run(learnt, later, "second")
    assert done["runs"][0]["loss"]["forget"]["retrained"] is not None  # its recipe came with it
    assert "person3" not in learnt["second"] and "person5" in learnt["second"]
    with pytest.raises(InputError, match="removed already"):
        run_job(write_job(tmp_path, training={"kind": "stored", "folder": str(folder), "steps": None, "lr": None,
                                              "batch_size": None}), (), tmp_path / "again")  # fmt: skip


# --- what the request says --------------------------------------------------------------------------------------------


def test_a_record_of_the_request_that_the_context_cuts_stops_the_run(learnt, tmp_path):
    records = facts()
    records[9]["question"] = "what is the " + "very " * 40 + "colour of person3 ?"  # the first record of person 3
    job = write_job(tmp_path, records, data={"too_long": "cut"}, method={"name": "grad_diff", "steps": 2})
    with pytest.raises(InputError, match="of the forget set, 1 of 3 records leave no room"):
        run(learnt, job, "refused")
    job = write_job(
        tmp_path, records, data={"too_long": "cut"}, method={"name": "grad_diff", "steps": 2},
        request={"too_long": "cut"},
    )  # fmt: skip
    run(learnt, job, "cut")
    record = json.loads((tmp_path / "out-cut" / "evidence.json").read_text())
    assert "Of the forget set, 1 of 3 records leave no room" in record["data"]["note"]
    assert record["request"]["matched"]["count"] == 2


def test_values_that_look_alike_and_stay_are_named_and_recorded(learnt, tmp_path, caplog):
    job = table_job(tmp_path, "P3")
    text = (tmp_path / "d.csv").read_text().replace(",P5,", ",p3 ,")
    copied = next(line for line in text.splitlines() if ",P3," in line).replace(",P3,", ",P6,")
    (tmp_path / "d.csv").write_text(f"{text.rstrip()}\n{copied}\n")
    run(learnt, job, "alike")
    assert "'p3 ' looks like 'P3' and stays (4 row(s))" in caplog.text
    assert "1 row(s) that stay are equal to a forgotten one" in caplog.text
    private = json.loads((tmp_path / "out-alike.private" / "review.json").read_text())
    assert private["data"]["copies_that_stay"] == 1
    record = (tmp_path / "out-alike" / "evidence.json").read_text()
    [alike] = json.loads(record)["request"]["decision"]["look_alikes"]
    assert alike["rows"] == 4 and "p3 " not in record
    assert "copies_that_stay" not in record  # whoever holds the retained rows would learn which guess is right
    assert "Look-alikes that stay" in (tmp_path / "out-alike" / "report.html").read_text()


def test_a_name_in_a_title_a_file_or_a_column_stays_out_of_the_folder(learnt, tmp_path, caplog):
    job = table_job(tmp_path, "P3", name="Forget Maria Gonzalez", request={
        "subject": "Maria Gonzalez", "targets": [{"kind": "user", "where": {"patient": "P3"}}]})  # fmt: skip
    (tmp_path / "d.csv").rename(tmp_path / "maria_gonzalez.csv")
    content = yaml.safe_load(job.read_text())
    content["data"]["path"] = "maria_gonzalez.csv"
    job.write_text(yaml.safe_dump(content))
    run(learnt, job, "named")
    assert "A name of the request stands in the job's name, the data's name, the job's settings" in caplog.text
    for path in (tmp_path / "out-named").rglob("*"):
        content = path.read_bytes().lower() if path.is_file() else b""
        assert b"maria" not in content and b"gonzalez" not in content and "maria" not in path.name, path
