"""Before a request is carried out: what a run would come to, which method to take, and what each of them costs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.product.language import write_job

import expunge
from expunge import modalities
from expunge.cli.advice_commands import show_advice
from expunge.jobs.advice import MEASURED, WAIT, _cheapest
from expunge.jobs.schema import load_job
from expunge.training.pilot import pilot

QUICK = {"kind": "stochastic", "epochs": 4, "lr": 0.1}
NETWORK = {"model": "expunge.tasks.networks:mlp", "model_settings": {"features": 64, "classes": 10, "hidden": [8]}}


def names_of(result) -> dict[str, dict]:
    return {item["method"]: item for item in result["candidates"]}


def files(folder: Path, home: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if home not in [path, *path.parents])


def table(folder: Path) -> dict:
    """A table of people, one of whom is written in two ways."""
    draw = np.random.default_rng(0)
    people = ["Ann"] * 3 + ["Ann "] * 2 + [f"P{i}" for i in range(35)]
    lines = [
        f"{a:.3f},{b:.3f},{int(a > b)},{who}" for (a, b), who in zip(draw.normal(size=(40, 2)), people, strict=True)
    ]
    (folder / "people.csv").write_text("\n".join(["a,b,label,patient", *lines]) + "\n")
    return {
        "data": {"format": "csv", "path": "people.csv", "label": "label", "users": ["patient"]},
        "model": "torch.nn:Linear", "model_settings": {"in_features": 2, "out_features": 2}, "dtype": "float32",
        "training": QUICK, "publish": None, "method": {"name": "fine_tune", "epochs": 2, "batch_size": 8},
    }  # fmt: skip


def test_a_dry_run_says_everything_and_writes_nothing(cli, job, tmp_path, home):
    request = {"subject": "a", "targets": [{"kind": "user", "where": {"patient": ["Ann", "P3", "P4"]}}]}
    path = job(**table(tmp_path), request=request)
    before = files(tmp_path, home)
    done = cli("run", path, "--dry-run", "--json")
    assert done.code == 0 and files(tmp_path, home) == before
    found = done.json
    assert found["matched"] == {"count": 5, "ids": {"row": [0, 1, 2, 8, 9]}, "users": 3}
    assert found["retained"] == 35 and found["promises"] == {} and found["screening"]["held"] == []
    assert found["lookalikes"] == [{"column": "patient", "named": "Ann", "stays": "Ann ", "examples": 2}]
    assert found["copies"] == 0
    estimate = found["estimate"]
    assert estimate["gradient_evaluations"] == 2 * 5 * 8 and estimate["known"] == "pilot"
    assert 0 < estimate["seconds"] < 10 and 0 < estimate["retrain_seconds"] < 10
    shown = " ".join(cli("run", path, "--dry-run").out.split())
    assert "matches 5 examples of 3 users" in shown and "'Ann ' looks like 'Ann' and stays (2 examples)" in shown


def test_a_dry_run_of_a_language_model_does_not_wait_for_its_training(cli, tmp_path, home):
    path = write_job(tmp_path, method={"name": "grad_diff", "steps": 2})
    before = files(tmp_path, home)
    found = cli("run", path, "--dry-run", "--json").json
    assert found["matched"]["count"] == 3 and found["matched"]["users"] == 1 and found["trained"] is False
    assert found["estimate"]["known"] == "formula" and found["estimate"]["memory_bytes"] > 0
    assert found["estimate"]["retrain_seconds"] > 0  # by a pilot: thirty steps of sixteen records
    advice = names_of(cli("advise", path, "--json").json)
    assert {"npo", "retrain", WAIT} <= advice.keys() and "scrub" not in advice  # classifiers' methods are left out
    assert files(tmp_path, home) == before


def test_what_run_refuses_a_dry_run_refuses(refused, job):
    nobody = {"subject": "a", "targets": [{"kind": "user", "where": {"person": 999}}]}
    assert "matches nothing" in refused("run", job(request=nobody), "--dry-run")
    assert "lune runs on language" in refused("run", job(method={"name": "lune"}, publish=None), "--dry-run")


def test_retraining_is_recommended_unless_there_is_no_time_for_it(cli, job):
    path = job()
    found = cli("advise", path, "--json").json
    assert set(found) >= {"recommended", "candidates"} and found["recommended"] == "retrain"
    for item in found["candidates"]:
        assert set(item) == {"method", "can", "reason", "promises", "seconds"} and item["reason"]
    by = names_of(found)
    assert by["retrain"]["promises"]["epsilon"] == 0 and by["retrain"]["seconds"] > 0
    assert by["r2d"]["promises"]["epsilon"] == pytest.approx(8, rel=1e-6)
    assert not by["langevin"]["can"] and "NoisyGradientDescent" in by["langevin"]["reason"]
    assert by[WAIT]["can"] and "no other open request" in by[WAIT]["reason"]
    assert found["evidence_seconds"] == pytest.approx(by["retrain"]["seconds"])  # no replicates in this job
    hurried = cli("advise", path, "--within", "1e-9", "--json").json
    assert hurried["recommended"] == WAIT


def test_near_equal_prices_do_not_decide_which_method_is_recommended():
    def chosen(*prices: tuple[str, float | None, int | None]) -> str:
        found, said = _cheapest([{"method": m, "seconds": s, "gradients": g} for m, s, g in prices])
        assert said == "this is the cheapest" or "are cheapest, within" in said or "price that is known" in said
        return found["method"]

    # whatever a pilot times: fewer gradients first, then the registry's order
    for noise in (0.7, 1.0, 1.4):
        assert chosen(("a", 60 * noise, 500), ("b", 60, 400), ("c", 65, 400)) == "b"
    for noise in (0.2, 1.0, 5.0):  # where all are done at once, no factor between them matters
        assert chosen(("a", 0.01 * noise, 500), ("b", 0.02, 400)) == "b"
    assert chosen(("a", 66, None), ("b", 60, None)) == "a" and chosen(("a", 66, None), ("b", 60, 9)) == "b"
    assert chosen(("a", 100, 10), ("b", 60, 400)) == "b"  # what costs more than that is no equal
    assert chosen(("a", math.inf, None), ("b", math.inf, None)) == "a"


def test_what_is_said_of_many_candidates_is_said_once(capsys):
    said = {"name": "x", "matched": 1, "retained": 2, "evidence_seconds": None, "screening": {"held": []},
            "recommended": "a", "why": "Cheap."}  # fmt: skip
    row = {"promises": {}, "seconds": 1.0, "can": True}
    able = [{**row, "method": name, "reason": MEASURED} for name in "abc"]
    able.append({**row, "method": "d", "reason": f"{MEASURED} Its memory is large."})
    lacking = [{**row, "method": name, "can": False, "reason": "It needs a graph."} for name in "ef"]
    show_advice({**said, "candidates": [*able, *lacking]}, False)
    text = " ".join(capsys.readouterr().out.split())
    assert text.count(MEASURED) == 1 and f"* {MEASURED}" in text and "* Its memory is large." in text
    assert text.count("It needs a graph.") == 1 and "e, f cannot: It needs a graph." in text


def test_without_a_recipe_only_what_can_promise_is_recommended_under_a_guarantee(cli, job, tmp_path):
    weights = expunge.mlp(features=64, classes=10, hidden=[8])
    save_file(weights.state_dict(), tmp_path / "weights.safetensors")
    training = {"kind": "checkpoint", "path": "weights.safetensors"}
    path = job(**NETWORK, dtype="float32", training=training, publish=None, method={"name": "fine_tune", "epochs": 1})
    found = cli("advise", path, "--guarantee", "epsilon=1", "--json").json
    assert not names_of(found)["retrain"]["can"] and found["evidence_seconds"] is None
    assert found["recommended"] == "noisy_fine_tune"
    # without a guarantee nobody's accuracy is spent on one
    free = cli("advise", path, "--json").json
    assert names_of(free)[free["recommended"]]["promises"] == {} and "no retrained model to compare with" in free["why"]
    assert free["recommended"] != "fine_tune", (
        "that the job names a method is no reason: this one sees nothing of who leaves"
    )
    strict = cli("advise", path, "--guarantee", "epsilon=1,delta=1e-9", "--json").json
    assert strict["recommended"] is None and "promises what is asked" in strict["why"]
    shown = " ".join(cli("advise", path, "--within", "1e-9").out.split())
    assert "Recommended: none" in shown


def test_where_nothing_else_is_left_advice_says_what_no_run_can_measure(cli, tmp_path):
    task = modalities.load("language").open(load_job(write_job(tmp_path))).task
    save_file(task.released(task.build()), tmp_path / "weights.safetensors")
    training = {"kind": "checkpoint", "path": "weights.safetensors", "steps": None, "lr": None, "batch_size": None}
    path = write_job(tmp_path, training=training, method={"name": "grad_diff", "steps": 2})
    assert cli("run", path, "--dry-run", "--json").json["estimate"]["retrain_seconds"] is None
    found = cli("advise", path, "--json").json
    assert names_of(found)[found["recommended"]]["can"]
    assert "a run cannot measure it either" in found["why"].lower() and "job's own" not in found["why"]


def test_a_bound_on_sampled_constants_is_no_promise(cli, job):
    training = {"kind": "gradient_descent", "steps": 4, "lr": 0.01, "estimate": True, "rewinds": [0.5, 1.0]}
    path = job(**NETWORK, training=training)
    found = names_of(cli("advise", path, "--json").json)
    assert found["r2d"]["can"] and "heuristic-noise" in found["r2d"]["reason"]
    under = cli("advise", path, "--guarantee", "epsilon=1", "--within", "1e-9", "--json").json
    assert under["recommended"] == WAIT
    assert cli("run", path, "--dry-run", "--json").json["sampled"] == ["smoothness", "gradient_bound"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--guarantee", "eps=1", "such as epsilon=1"),
        ("--guarantee", "delta=1e-5", "needs an epsilon"),
        ("--guarantee", "epsilon=inf", "epsilon above 0 that is finite"),
        ("--within", "0", "seconds above 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(refused, job, option, value, said):
    assert said in refused("advise", job(), option, value)


def test_open_requests_on_the_ledger_share_the_price_of_waiting(cli, job):
    path = job(ledger="book.sqlite")
    for person in (3, 4):
        assert (
            cli("requests", "add", "--ledger", "book.sqlite", "--subject", person, "--where", f"person={person}").code
            == 0
        )
    found = names_of(cli("advise", path, "--json").json)[WAIT]
    assert "2 other open requests" in found["reason"]
    late = {"subject": "a", "targets": [{"kind": "user", "where": {"person": 17}}], "received": "2026-01-02"}
    due = names_of(cli("advise", job(request=late), "--json").json)[WAIT]
    assert due["can"] is False and "leaves no time" in due["reason"] and due["seconds"] is None


@pytest.mark.parametrize("batch_size", [5, None])
def test_a_pilot_leaves_the_weights_and_every_random_number_alone(batch_size):
    task = expunge.Classification(lambda: torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(3, 2)))
    rows = expunge.Rows(torch.randn(8, 3), torch.tensor([0, 1] * 4), np.arange(8))
    tensors = task.released(task.build())
    before, state = {name: tensor.clone() for name, tensor in tensors.items()}, torch.get_rng_state()
    found = pilot(task, tensors, rows, batch_size)
    assert found.examples == (batch_size or 8) and found.seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors.items())
    # three float32 numbers a weight (itself, gradient, moment) and at least the inputs that the linear layer keeps
    assert found.memory_bytes >= 3 * 4 * 8 + 4 * 3 * found.examples
    with pytest.raises(expunge.InputError, match="at least 1"):
        pilot(task, tensors, rows.only(expunge.Ids.none()), batch_size)
