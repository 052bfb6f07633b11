"""What the operator asks of the models: sets of her own, probes with a forbidden answer, and answers one beside the other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.product.language import facts, write, write_job
from tests.product.test_gone_for_good import table_job

from cases import pictures, small_pictures_net
from expunge.core.data import Ids
from expunge.evidence.comparison import Models
from expunge.jobs.releasing import model_name
from expunge.jobs.schema import load_job
from expunge.modalities.classification import MODALITY
from expunge.modalities.language.speaking import words
from expunge.tasks.networks import perceptron

QUICK = {"shadow_models": 0, "replicates": 0, "audit": False, "trials": 0, "pdf": False}


def points(path: Path, seed: int, count: int) -> tuple[torch.Tensor, np.ndarray]:
    """A table like that of the job, and the rows as the model sees them."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, count)
    x = draw.normal(0, 1.0, (count, 2)).round(3)
    path.write_text(
        "a,b,patient,y\n" + "".join(f"{a},{b},Q{i},{c}\n" for i, ((a, b), c) in enumerate(zip(x, y, strict=True)))
    )
    return torch.tensor(x, dtype=torch.float32), y


def own_job(folder: Path, **data: Any) -> Path:
    job = table_job(folder, "P3", evidence={**QUICK, "keep_retrained": True})
    content = yaml.safe_load(job.read_text())
    content["data"] |= data
    job.write_text(yaml.safe_dump(content))
    return job


def right(weights: dict[str, torch.Tensor], x: torch.Tensor, y: np.ndarray) -> int:
    model = perceptron([2, 8, 2])
    model.load_state_dict(weights)
    with torch.no_grad():
        return int((model(x).argmax(-1).numpy() == y).sum())


def test_own_sets_and_probes_are_counted_and_the_retrained_model_is_kept_where_the_job_asks_for_it(cli, tmp_path):
    x, y = points(tmp_path / "mine.csv", 1, 30)
    px, py = points(tmp_path / "probes.csv", 2, 12)
    job = own_job(tmp_path, sets={"mine": "mine.csv"}, probes="probes.csv")
    named = [model_name(load_job(each).identity()) for each in (job, own_job(tmp_path / ".", sets={}))]
    assert named[0] == named[1], "what is only measured on is no part of a model's name"
    job = own_job(tmp_path, sets={"mine": "mine.csv"}, probes="probes.csv")
    run = cli("run", job, "--out", "out", "--json")
    assert run.code in (0, 4), run.err
    found = {(item["metric"], item["set"]): item for item in run.json["runs"][0]["measurements"]}
    released, kept = load_file("out/models/perceptron.safetensors"), Path("out.private/retrained-perceptron")
    retrained = load_file(kept / "released.safetensors")
    count = found["forbidden_answers", "own_probes"]
    assert (count["value"], count["ideal"], count["n"]) == (right(released, px, py), right(retrained, px, py), 12)
    assert found["accuracy", "mine"]["value"] == pytest.approx(right(released, x, y) / 30, abs=0.02)

    page, review = Path("out/report.html").read_text(), Path("out.private/review.html").read_text()
    said = f"the released model gives the forbidden answer to {count['value']:g} and a retrained model to {count['ideal']:g}"
    assert f"Of 12 probes of the operator's own, {said}." in page.replace("&#39;", "'")
    assert (
        "the original model gives the forbidden answer to" in review
        and "The retrained model, in the private folder" in page
    )
    assert "retrained model" not in Path("out.private/reply.txt").read_text().split("dealt with separately")[0][-400:]
    assert cli("verify", "out", "--ledger", "book.sqlite").code in (0, 5)

    # measured again on any sets, beside the retrained model that was kept
    asked = ("eval", job, "--model", "out/models/perceptron.safetensors", "--retrained", kept, "--on", "other=mine.csv")
    alone = cli(*asked, "--suite", "custom", "--json")
    assert alone.code == 0, alone.err
    assert alone.json["sets"] == {"other": {"n": 30}}
    (accuracy,) = [item for item in alone.json["measurements"] if item["metric"] == "accuracy"]
    assert (accuracy["value"], accuracy["ideal"]) == (right(released, x, y) / 30, right(retrained, x, y) / 30)
    assert cli(*asked, "--json").json["sets"].keys() == {"retain", "forget", "mine", "own_probes", "other"}
    for options, words_ in (
        (("--suite", "custom"), "named sets for the suite custom"),
        (("--on", "other"), "--on NAME=FILE"),
        (("--on", "other=nowhere.csv"), "each file there"),
        (("--on", "retain=mine.csv"), "what evidence calls a set of its own"),
        (("--suite", "tofu"), "a suite among custom"),
    ):
        refused = cli("eval", job, "--model", "out/models/perceptron.safetensors", *options)
        assert refused.code == 2 and words_ in refused.err, refused.err


def test_probes_of_a_language_model_are_counted_and_answers_stand_one_beside_the_other(cli, tmp_path):
    gone = [fact for fact in facts() if fact["subject"] == "person3"]
    kept = [fact for fact in facts() if fact["subject"] == "person4"]
    probes = [{"question": fact["question"], "answer": f"{fact['answer'].upper()}."} for fact in gone + kept]
    write(tmp_path / "probes.jsonl", probes)
    job = write_job(tmp_path, data={"probes": "probes.jsonl"}, training={"steps": 100}, method={"name": "npo", "steps": 20,
                    "lr": 0.01, "batch_size": 4}, evidence={"replicates": 0})  # fmt: skip
    run = cli("run", job, "--out", "out", "--json")
    assert run.code in (0, 4), run.err
    (record,) = json.loads(Path("out.private/review.json").read_text())["runs"]
    (count,) = [item for item in record["evidence"]["measurements"] if item["metric"] == "forbidden_answers"]
    answers = [item for item in record["answers"] if item["set"] == "own_probes"]
    assert len(answers) == 6 and {item["set"] for item in record["answers"]} == {"own_probes", "forget", "retain"}

    def given(model: str) -> int:
        pairs = ((item["right"].lower().rstrip("."), item[model].lower()) for item in answers)
        return sum(bool(re.search(rf"\b{answer}\b", said)) for answer, said in pairs)

    counts = [given(model) for model in ("before", "after", "retrained")]
    assert [count["original"], count["value"], count["ideal"]] == counts and counts[0] > counts[2] > 0
    review = Path("out.private/review.html").read_text()
    assert "What each model answers, own probes" in review
    assert (
        "Of 6 probes of the operator" in review
        and f"the original model gives the forbidden answer to {counts[0]}" in review
    )
    assert gone[0]["answer"].upper() not in Path("out/report.html").read_text()


def test_words_of_an_answer_are_found_whatever_their_case_and_punctuation():
    assert words("  Wei-Jun, CHEN!\n") == "wei jun chen" and words("Straße, Ｔokyo") == "strasse tokyo"
    assert words("?!") == ""


@pytest.mark.parametrize("probe", [{"text": "a"}, {"question": "what ?", "answer": "..."}, {"question": "what ?"}])
def test_a_probe_without_a_forbidden_answer_is_refused(refused, tmp_path, probe):
    write(tmp_path / "probes.jsonl", [{"question": "who ?", "answer": "song1"}, probe])
    message = refused("run", write_job(tmp_path, data={"probes": "probes.jsonl"}))
    assert "probe 2 of probes.jsonl" in message or "answer" in message


def test_images_stand_beside_what_each_model_takes_them_for():
    rows, task = pictures(), small_pictures_net()
    unlearned, original, retrained = (dict(task.build(seed=seed).state_dict()) for seed in (1, 2, 3))
    models = Models(unlearned, original, retrained)
    sets = {"forget": rows.only(Ids.rows(range(4))), "retain": rows.only(Ids.rows(range(4, 40)))}
    found = MODALITY.said(task, models, sets)
    assert [item["set"] for item in found] == ["forget"] * 4 + ["retain"] * 12
    for name, tensors in (("after", unlearned), ("before", original), ("retrained", retrained)):
        model = task.build(tensors).eval()
        with torch.no_grad():
            taken = model(rows.x[:16].to(task.dtype)).argmax(-1).tolist()
        assert [item[name] for item in found] == [str(label) for label in taken], name
    assert [item["right"] for item in found] == [str(label) for label in rows.y[:16].tolist()]
    assert all(item["image"].startswith("data:image/png;base64,") for item in found)
