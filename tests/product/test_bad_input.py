"""Bad input: exit code 2, a message that says what was expected, what came and what to do, and nothing written."""

from __future__ import annotations

import math
import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.product.conftest import process

from expunge.ledger import Ledger
from expunge.tasks.networks import SoftmaxHead


def stored(tmp_path: Path, **tensors: torch.Tensor) -> str:
    save_file(tensors, tmp_path / "weights.safetensors")
    return "weights.safetensors"


def arrays(path: Path, x: np.ndarray, users: bool = True) -> str:
    extra = {"person": np.arange(len(x)) // 5} if users else {}
    np.savez(path, x=x, y=np.arange(len(x)) % 10, **extra)
    return path.name


GOOD = np.random.default_rng(0).random((100, 64)).astype(np.float32)
ADOPTED = {"name": "fine_tune", "epochs": 1}


def test_unknown_key(refused, job):
    message = refused("run", job(trainning={}))
    assert "trainning: unknown key; did you mean training?" in message


def test_unknown_key_inside_a_section(refused, job):
    message = refused("run", job(training={"kind": "gradient_descent", "steps": 5, "rewindings": [1.0]}))
    assert "training.rewindings: unknown key; did you mean rewinds?" in message
    assert "publish.capacity: missing" in refused("run", job(publish={"epsilon": 1}))


def test_unknown_method_setting(refused, job):
    assert "no setting rewinding; its settings are rewind" in refused(
        "run", job(method={"name": "r2d", "rewinding": 1})
    )
    assert "method.rewind" in refused("run", job(method={"name": "r2d", "rewind": "half"}))
    assert "Expected a method among" in refused("run", job(method={"name": "r2e"}))


def test_a_key_that_comes_twice(refused, job):
    path = job()
    path.write_text(path.read_text() + "\nname: a\nname: b\n")
    assert "the key 'name' comes twice" in refused("run", path)


def test_broken_yaml_and_overrides(refused, job, tmp_path):
    (tmp_path / "broken.yaml").write_text("name: [")
    assert "not readable YAML" in refused("run", tmp_path / "broken.yaml")
    assert "key.sub=value" in refused("run", job(), "--set", "name")
    assert "not a section" in refused("run", job(), "--set", "seed=1", "--set", "seed.sub=1")
    assert "not readable YAML" in refused("run", job(), "--set", "name=[")


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 3000, "{a: " * 20_000, "- " * 50_000], ids=["lists", "mappings", "lines"]
)
def test_yaml_that_nests_without_end_is_refused_before_it_is_composed(refused, tmp_path, text):
    (tmp_path / "job.yaml").write_text(text)
    assert "job.yaml is nested too deeply" in refused("run", tmp_path / "job.yaml")


def test_a_request_that_matches_nothing(refused, job):
    message = refused("run", job(), "--set", "request.targets.0.where.person=4711")
    assert "matches nothing" in message
    assert "Check the column" in message


def test_a_user_column_that_is_not_there(refused, job):
    assert "Columns: person" in refused("run", job(), "--set", "request.targets.0.where={patient: 3}")


def test_a_request_that_matches_everything(refused, job):
    everyone = [{"kind": "class", "where": {"label": label}} for label in range(10)]
    assert "matches everything" in refused("run", job(request={"subject": "all", "targets": everyone}))


@pytest.mark.parametrize(
    "target", [{"kind": "class", "where": {"label": "three"}}, {"kind": "samples", "where": {"ids": ["x"]}}]
)
def test_a_target_that_is_no_number(refused, job, target):
    assert "whole numbers" in refused("run", job(request={"subject": "a", "targets": [target]}))


def test_nan_in_arrays(refused, job, tmp_path):
    x = GOOD.copy()
    x[7, 3] = np.nan
    message = refused("run", job(data={"format": "arrays", "path": arrays(tmp_path / "rows.npz", x)}))
    assert "NaN or infinity, the first at position 7" in message


def test_nan_in_a_table(refused, job, tmp_path):
    (tmp_path / "rows.csv").write_text("who,a,b,label\n1,0.5,,0\n2,0.1,0.2,1\n")
    data = {"format": "csv", "path": "rows.csv", "label": "label", "users": ["who"]}
    assert "'b' of rows.csv has 1 missing value(s) (NaN)" in refused("run", job(data=data))


@pytest.mark.parametrize("epsilon", [0, -1, float("nan")])
def test_epsilon_not_above_zero(refused, job, epsilon):
    message = refused("run", job(), "--set", f"publish.epsilon={epsilon}".replace("nan", ".nan"))
    assert ("Input should be a finite number" if math.isnan(epsilon) else "Expected epsilon > 0") in message
    assert "epsilon" in refused("calibrate", "search", job(), "--guarantee", f"epsilon={epsilon}")


@pytest.mark.parametrize("delta", [0, 1, -0.1, 2])
def test_delta_outside_its_range(refused, job, delta):
    assert "delta strictly between 0 and 1" in refused("run", job(), "--set", f"publish.delta={delta}")


def test_calibrate_out_of_range(refused):
    values = {"smoothness": 1, "gradient-bound": 1, "lr": 0.1, "samples": 10, "forget": 1, "steps": 5, "rewind": 2}
    arguments = [text for name, value in values.items() for text in (f"--{name}", value)]
    assert "epsilon" in refused("calibrate", "r2d", *arguments, "--epsilon", 0)
    assert "delta" in refused("calibrate", "r2d", *arguments, "--delta", 1)


def test_a_guarantee_that_is_none(refused, job):
    assert "Expected a guarantee such as" in refused("calibrate", "search", job(), "--guarantee", "strong")
    assert "needs an epsilon" in refused("calibrate", "search", job(), "--guarantee", "delta=1e-5")


def test_a_checkpoint_of_another_architecture(refused, job, tmp_path):
    path = stored(tmp_path, **{"linear.weight": torch.zeros(3, 64, dtype=torch.float64)})
    message = refused("run", job(training={"kind": "checkpoint", "path": path}, publish=None, method=ADOPTED))
    assert "another architecture" in message
    assert "(10, 64) expected, (3, 64) given" in message


def test_rows_that_the_model_does_not_accept(refused, job):
    message = refused("run", job(), "--set", "model_settings={features: 32, classes: 10}")
    assert "does not accept rows of shape (64,)" in message


@pytest.mark.parametrize(
    "training",
    [{"kind": "checkpoint", "path": "no.safetensors"}, {"kind": "stored", "folder": "no"}],
    ids=["checkpoint", "stored"],
)
def test_a_missing_model(refused, job, training):
    assert "There is no" in refused("run", job(training=training, publish=None, method=ADOPTED))


def test_missing_files(refused, job):
    assert "There is no job file" in refused("run", "no.yaml")
    data = {"format": "csv", "path": "no.csv", "label": "label"}
    assert "There is no file" in refused("run", job(data=data))
    assert "There is no file" in refused("run", job(data={"format": "arrays", "path": "no.npz"}))
    assert "no ledger" in refused("requests", "list", "--ledger", "no.sqlite")
    assert "Cannot import 'no_such_module'" in refused("run", job(model="no_such_module:head"))
    assert "There is no device" in refused("run", job(), "--set", "device=cuda:99")


class Bomb:
    """A pickle that leaves a trace if anybody executes it."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("how", ["pickle", "torch", "state_dict"])
def test_a_malicious_pickle_is_not_executed(refused, job, tmp_path, how):
    path = tmp_path / "model.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"state_dict": Bomb()} if how == "state_dict" else Bomb(), path)
    message = refused("run", job(training={"kind": "checkpoint", "path": "model.pt"}, publish=None, method=ADOPTED))
    assert "nothing in it was executed" in message
    assert not (tmp_path / "executed").exists()


def test_pickled_arrays_are_not_read(refused, job, tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.array([Bomb()], dtype=object), y=np.zeros(1))
    message = refused("run", job(data={"format": "arrays", "path": "rows.npz"}))
    assert "Save plain arrays" in message
    assert not (tmp_path / "executed").exists()


def test_a_tampered_ledger(refused, cli, job, tmp_path):
    cli("requests", "add", "--ledger", "book.sqlite", "--subject", "a", "--where", "person=3")
    with closing(sqlite3.connect(tmp_path / "book.sqlite")) as database:
        database.execute("DROP TRIGGER no_update")
        database.execute("UPDATE entries SET payload = replace(payload, 'user', 'none')")
        database.commit()
    for arguments in (
        ("run", job(ledger="book.sqlite")),
        ("requests", "list", "--ledger", "book.sqlite"),
        ("requests", "add", "--ledger", "book.sqlite", "--subject", "b", "--where", "person=4"),
    ):
        assert "tampered with" in refused(*arguments)


def test_a_ledger_that_is_none(refused, job, tmp_path):
    (tmp_path / "book.sqlite").write_text("no database")
    assert "not a ledger" in refused("run", job(ledger="book.sqlite"))


def test_a_request_beyond_the_published_capacity(refused, job):
    message = refused("run", job(), "--set", "publish.capacity=9")
    assert "brings the records removed to 10; the published capacity is 9" in message
    assert "retrain" in message


@pytest.mark.parametrize("kind", ["node", "concept", "client"])
def test_a_method_that_cannot_serve_the_kind(refused, job, kind):
    path = job(request={"subject": "a", "targets": [{"kind": kind, "where": {"id": 1}}]})
    assert f"{kind}" in refused("run", path)


def test_a_method_without_what_it_needs_names_those_that_would_work(refused, job, tmp_path):
    path = stored(tmp_path, **SoftmaxHead(64, 10).double().state_dict())
    message = refused("run", job(training={"kind": "checkpoint", "path": path}, publish=None))
    assert "no trail" in message
    assert "Eligible here: " in message
    assert "fine_tune" in message


def test_a_folder_that_holds_something_else(refused, cli, job, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "holds something already" in refused("run", job(), out="mine")
    assert "holds something already" in refused("demo", out="mine")
    assert "is a file" in refused("run", job(), out="mine/thesis.txt")


def test_another_request_does_not_overwrite_evidence(refused, cli, job):
    assert cli("run", job(), "--out", "evidence").code == 0
    assert "another request" in refused("run", job(), "--set", "request.targets.0.where.person=3")


def test_screening_holds_a_broad_request_back(refused, cli, job):
    broad = {"subject": "a", "targets": [{"kind": "class", "where": {"label": label}} for label in range(6)]}
    settings = {"request": broad, "publish": None, "method": ADOPTED}
    message = refused("run", job(**settings))
    assert "held back: the request covers 6" in message
    assert "request.approved_by" in message
    done = cli(
        "run", job(**settings, ledger="book.sqlite"), "--out", "evidence", "--set", "request.approved_by=the officer"
    )
    assert done.code == 4, done.err  # an adopted model: whether it forgets is undecidable
    (row,) = cli("requests", "list", "--ledger", "book.sqlite", "--json").json
    assert (row["decision"], row["by"]) == ("grant", "the officer")
    assert "overruled" in row["reason"]


def test_a_request_that_is_held_back_is_on_record_where_the_job_names_a_ledger(cli, job, tmp_path):
    broad = {"subject": "a", "targets": [{"kind": "class", "where": {"label": label}} for label in range(6)]}
    settings = {"request": broad, "publish": None, "method": ADOPTED, "ledger": "book.sqlite"}
    for _ in range(2):  # asked again, it is still one entry
        assert cli("run", job(**settings), "--out", "evidence").code == 2
    (row,) = cli("requests", "list", "--ledger", "book.sqlite", "--json").json
    assert (row["status"], row["by"]) == ("quarantined", "screening")
    assert not (tmp_path / "evidence").exists() and not (tmp_path / "evidence.private").exists()


def test_a_refusal_on_record_is_not_overruled_by_running(refused, cli, job, tmp_path):
    from expunge.requests_book import RequestBook

    filed = cli(
        "requests", "add", "--ledger", "book.sqlite", "--subject", "person 17", "--where", "person=17", "--json"
    ).json
    with Ledger(tmp_path / "book.sqlite") as ledger:
        RequestBook(ledger).decide(filed["id"], {"decision": "refuse", "reason": "not the person", "by": "the officer"})
    assert "the ledger says that it is refused" in refused("run", job(ledger="book.sqlite"))


def test_a_release_is_not_drawn_again_in_another_folder(refused, cli, job, tmp_path):
    """A run that was killed after its release goes on in its own folder or not at all."""
    from expunge.requests_book import RequestBook

    filed = cli(
        "requests", "add", "--ledger", "book.sqlite", "--subject", "person 17", "--where", "person=17", "--json"
    ).json
    with Ledger(tmp_path / "book.sqlite") as ledger:
        RequestBook(ledger).decide(filed["id"], {"decision": "grant"})
        RequestBook(ledger).release(filed["id"], {"releases": []})
    assert "draw noise a second time" in refused("run", job(ledger="book.sqlite"))


def test_an_empty_ledger_file_is_what_a_crash_leaves(cli, job, tmp_path):
    (tmp_path / "book.sqlite").touch()
    assert cli("run", job(ledger="book.sqlite"), "--out", "evidence").code == 0


def test_bad_requests(refused):
    add = ("requests", "add", "--ledger", "book.sqlite", "--subject", "a")
    assert "Expected a target kind" in refused(*add, "--kind", "person", "--where", "a=1")
    assert "column=value" in refused(*add, "--where", "person")
    assert "needs to say where" in refused(*add)
    assert "YYYY-MM-DD" in refused(*add, "--where", "person=1", "--received", "yesterday")
    assert "due date" in refused(*add, "--where", "person=1", "--received", "2026-02-01", "--due", "2026-01-01")


def test_usage_errors(refused):
    assert "No such command" in refused("forget")
    assert "Missing" in refused("calibrate", "search", "x.yaml")


def test_bad_input_in_a_process(job, tmp_path):
    done = process("run", job(), "--out", "evidence", "--json", "--set", "publish.epsilon=-1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().splitlines()[-1].startswith("error: Expected epsilon > 0; got -1")
    assert not list(tmp_path.glob("evidence*"))
