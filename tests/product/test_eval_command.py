"""``expunge eval``: a saved model, measured on a folder of TOFU's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.llamas import TEMPLATE
from tests.product.tofu import WORDS, saved, small_tofu

ASK = ("--template", TEMPLATE, "--max-new-tokens", 3)


@pytest.fixture
def data(tmp_path) -> Path:
    return small_tofu(tmp_path / "tofu")


def test_a_model_is_measured_beside_a_retrained_one(cli, data, tmp_path):
    model, twin = saved(tmp_path / "model", 0), saved(tmp_path / "twin", 1)
    ask = ("eval", model, "--suite", "tofu", "--data", data, "--split", "forget50", *ASK)
    unseen = ("--unseen", tmp_path / "unseen.jsonl", "--limit", 6)
    done = cli(*ask, *unseen, "--retrained", twin, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    found = {item["name"]: item for item in result["measurements"]}
    assert result["missing"] == {} and {"model_utility", "forget_quality", "privleak"} <= found.keys()
    assert {name: counts["n"] for name, counts in result["sets"].items()} == {
        "forget": 6, "retain": 6, "real_authors": 2, "world_facts": 2, "unseen": 6, "forget_trigger": 6,
        "retain_trigger": 6, "retain_mixed": 6, "real_authors_trigger": 2, "world_facts_trigger": 2,
    }  # fmt: skip
    assert all((item["metric"], item["set"]) == (*name.split("/"), None)[:2] for name, item in found.items())
    assert found["probability/forget"]["ideal"] != found["probability/forget"]["value"]
    same = json.loads(cli(*ask, "--limit", 6, "--retrained", model, "--json").out)
    assert {item["name"]: item["value"] for item in same["measurements"]}["forget_quality"] == 1
    alone = json.loads(cli(*ask, "--no-templates", "--json").out)
    assert alone["missing"].keys() == {"forget_quality", "privleak", "membership"}
    assert len(alone["sets"]) == 4 and alone["sets"]["forget"]["n"] == 20 and alone["settings"]["max_new_tokens"] == 3


def test_a_model_in_a_folder_is_measured_on_named_sets_of_the_operators_own(cli, data, tmp_path):
    model, lines = saved(tmp_path / "model", 0), (data / "full.json").read_text().splitlines()
    for name, part in (("gone", lines[:5]), ("kept", lines[5:12])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    ask = ("eval", model, *ASK, "--suite", "custom")
    done = cli(*ask, "--on", "forget=gone.jsonl", "--on", "retain=kept.jsonl", "--on", "night=kept.jsonl", "--json")
    assert done.code == 0, done.err
    sizes = {name: counts["n"] for name, counts in done.json["sets"].items()}
    assert sizes == {"forget": 5, "retain": 7, "night": 7, "forget_trigger": 5, "retain_trigger": 7, "retain_mixed": 7}
    found = {item["name"]: item["value"] for item in done.json["measurements"]}
    assert found["probability/night"] == found["probability/retain"] and done.json["split"] is None
    single = cli(*ask, "--on", "night=kept.jsonl")
    assert single.code == 0 and "night (7)" in single.out and "custom;" in single.out, single.err
    for options, words in (
        ((), "named sets (--on NAME=FILE)"),
        (("--on", "a=gone.jsonl", "--split", "forget50"), "--split would"),
    ):
        refused = cli(*ask, *options)
        assert refused.code == 2 and words in refused.err


def test_people_see_tables_what_is_missing_and_what_was_dropped(cli, data, tmp_path):
    model = saved(tmp_path / "model", 0)
    done = cli("eval", model, "--data", data, "--split", "forget50", *ASK)
    assert done.code == 0, done.err
    for word in (
        "forget (20)",
        "retain mixed (20)",
        "Extraction strength",
        "Model utility",
        "PrivLeak: none; it compares",
    ):
        assert word in done.out
    assert max(map(len, done.out.splitlines()[1:])) <= 100


def test_what_cannot_be_measured_is_said(cli, data, tmp_path, monkeypatch):
    model = saved(tmp_path / "model", 0)

    def refusal(*options: object) -> str:
        done = cli("eval", model, *ASK, *options)
        assert done.code == 2 and not done.out
        return done.err

    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    assert "give --data, or set EXPUNGE_DATA" in refusal()
    assert "There is no folder" in refusal("--data", tmp_path / "nowhere")
    assert "one of forget50, forget50_perturbed, forget75 in" in refusal("--data", data, "--split", "retain50")
    assert "forget01" in refusal("--data", data, "--split", "forget01")
    assert "10 records are in forget75 and in retain_perturbed" in refusal("--data", data, "--split", "forget75")
    assert "a suite among tofu, custom" in refusal("--data", data, "--suite", "muse")
    assert "at least one record" in refusal("--data", data, "--limit", 0)
    other = saved(tmp_path / "other", 0, [*WORDS, "more"])
    assert "differs in tokenizer" in refusal("--data", data, "--split", "forget50", "--retrained", other)


def test_a_real_model_on_real_tofu(cli, real_data):
    folder = real_data("tofu")
    done = cli(
        "eval", folder / "stories260k", "--split", "forget01", "--limit", 2, "--max-new-tokens", 4, "--no-templates",
        "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = {item["name"]: item["value"] for item in json.loads(done.out)["measurements"]}
    assert 0 < found["probability/forget"] < 0.1 and found["exact_answer/retain"] == 0


def test_a_classifier_is_measured_on_the_sets_of_its_job(cli, job, tmp_path):
    """The numbers of a run, beside a retrained model where one is named; one metric has one number in both commands."""
    written = job(evidence={"shadow_models": 0, "replicates": 0, "trials": 0, "audit": False, "pdf": False})
    assert cli("publish", written, "--to", tmp_path / "model").code == 0
    run = cli("run", written, "--model", tmp_path / "model", "--out", tmp_path / "out", "--json")
    assert run.code == 0, run.err
    ran = {(item["metric"], item["set"]): item for item in run.json["runs"][0]["measurements"]}
    for model in (tmp_path / "model", next((tmp_path / "out" / "models").rglob("*.safetensors"))):
        done = cli("eval", written, "--model", model, "--json")
        assert done.code == 0, done.err
        found = {(item["metric"], item["set"]): item for item in done.json["measurements"]}
        assert found.keys() == ran.keys() - {("distance", None)}
        assert {"accuracy", "loss", "membership_loss", "membership_confidence"} == {metric for metric, _ in found}
        for place, item in found.items():
            wide = ran[place]["interval"]  # of a run, rounded outwards to the digits that it supports
            assert wide[0] <= item["interval"][0] <= item["value"] <= item["interval"][1] <= wide[1], place
            assert ran[place]["value"] == pytest.approx(item["value"], abs=(wide[1] - wide[0]) / 10), place
            assert item["n"] == ran[place]["n"] and item["ideal"] is None and item["reference"] is None
    beside = cli("eval", written, "--model", model, "--retrained", model, "--json").json
    assert all(item["ideal"] == item["value"] and item["reference"] == "retrained" for item in beside["measurements"])
    table = cli("eval", written, "--model", model, "--retrained", model)
    assert "forget (10)" in table.out and "Accuracy" in table.out and "retrained" in table.out


def test_options_that_would_say_nothing_are_refused(cli, job, data, tmp_path):
    written, model = job(), saved(tmp_path / "model", 0)
    for arguments, words in (
        ((written, "--split", "forget50"), "--split would say nothing with a job file"),
        ((written, "--unseen", tmp_path / "unseen.jsonl", "--limit", 3), "--unseen, --limit would say nothing"),
        ((model, "--data", data, "--model", model), "--model would say nothing with a suite"),
        ((written,), "eval trains nothing. Name the model"),
    ):
        done = cli("eval", *arguments)
        assert done.code == 2 and not done.out and words in done.err, done.err
