"""``expunge plan`` shows what ``expunge.plan`` returns, and what ``expunge run`` then does."""

from __future__ import annotations

import numpy as np
from tests.product.language import write_job

import expunge
from expunge.core.keys import subject_key


def test_the_command_prints_what_the_function_returns(cli, job, home):
    """The job's model and request again, by hand, in Python."""
    training = {"kind": "gradient_descent", "steps": 60, "lr": 0.2, "l2": 0.01, "rewinds": [0.5, 1.0]}
    done = cli("plan", job(training=training), "--json")
    assert done.code == 0, done.err
    train, test = expunge.digits()
    task = expunge.Classification(lambda: expunge.SoftmaxHead(64, 10), dtype=train.x.double().dtype)
    recipe = expunge.GradientDescent(steps=60, lr=0.2, l2=0.01, rewinds=(0.5, 1.0))
    trained = expunge.train(task, train, recipe)
    method = expunge.methods.R2D(rewind=0.5)
    published = expunge.publish(trained, expunge.Budget(8.0, 1e-5, 10), method=method)
    request = expunge.Request("person 17", expunge.Target("user", {"person": 17}))
    planned = expunge.plan(published, request, method, probes={"test": test}, key=subject_key())
    expected = planned.to_json()
    assert {name: done.json[name] for name in expected} == expected


def test_a_plan_says_what_the_run_then_does_and_writes_nothing(cli, job, tmp_path, home):
    path = job()
    before = sorted(file for file in tmp_path.rglob("*") if home not in [file, *file.parents])
    planned = cli("plan", path, "--json").json
    assert sorted(file for file in tmp_path.rglob("*") if home not in [file, *file.parents]) == before
    assert planned["matched"] == {"count": 10, "ids": {"row": list(range(170, 180))}}
    assert (planned["forgotten"], planned["retained"], planned["touched"]) == (10, 1427, 0)
    assert planned["gradient_evaluations"] == 30 * 1427 and planned["retrain_gradient_evaluations"] == 60 * 1427
    ran = cli("run", path, "--out", "evidence", "--json").json
    assert ran["request"]["id"] == planned["request"]["id"]
    assert ran["runs"][0]["epsilon"] == planned["promises"]["epsilon"]


def test_a_plan_on_a_published_model_trains_nothing(cli, job):
    path = job()
    assert cli("publish", path, "--to", "model").code == 0
    done = cli("plan", path, "--model", "model")
    assert "train" not in done.err and "Guarantee: epsilon 8, delta 1e-05" in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_a_plan_of_a_language_model_does_not_wait_for_its_training(cli, tmp_path):
    done = cli("plan", write_job(tmp_path, method={"name": "grad_diff", "steps": 2}), "--json")
    assert done.code == 0, done.err
    assert done.json["trained"] is False and done.json["certified"] is False and done.json["promises"] == {}
    assert np.isfinite(done.json["cost"]["seconds"])


def test_what_run_refuses_plan_refuses(refused, job):
    assert "matches nothing" in refused(
        "plan", job(request={"subject": "a", "targets": [{"kind": "user", "where": {"person": 999}}]})
    )
    assert "lune runs on language" in refused("plan", job(method={"name": "lune"}, publish=None))


def test_a_request_that_screening_holds_back_is_planned_and_said_to_be(cli, job):
    most = {"subject": "many", "targets": [{"kind": "samples", "where": {"ids": list(range(800))}}]}
    done = cli("plan", job(request=most, method={"name": "fine_tune", "epochs": 1}, publish=None))
    assert done.code == 0 and "Screening holds the request back: the request covers 56% of all rows" in " ".join(
        done.out.split()
    )
