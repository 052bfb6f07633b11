"""Several concepts in one job, forgotten together or one after another, with evidence for each."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.product.stars import JOB, write_job

from expunge.core.errors import InputError, RefusedError
from expunge.core.measurement import PART
from expunge.jobs.run import run_job
from expunge.modalities import knowledge

BOTH = {
    "subject": "a", "targets": [{"kind": "concept", "where": {"shape": ["star", "circle"]}}],
    "concept": {"material": "recognition"},
}  # fmt: skip
GA = {"name": "ga", "steps": 1, "lr": 1e-4, "batch_size": 8, "lora": {}, "warmup": 0.0}
LONGER = {"training": {**JOB["training"], "seeing": 60, "steps": 120}}


def whole(folder: Path) -> dict:
    record = json.loads((folder / "review.json").read_text())
    return {**record["runs"][0], "data": record["data"]}


def measured(folder: Path) -> dict:
    return {item["name"]: item for item in whole(folder)["evidence"]["measurements"]}


def evidence(folder: Path) -> dict:
    return {
        item["name"]: item
        for item in json.loads((folder / "evidence.json").read_text())["runs"][0]["evidence"]["measurements"]
    }


def test_two_concepts_go_together_and_each_is_measured_beside_a_model_that_never_saw_either(tmp_path):
    run_job(write_job(tmp_path, request=BOTH, method=GA, **LONGER), (), tmp_path / "out")
    run, found = whole(tmp_path / "out.private"), measured(tmp_path / "out.private")
    assert (run["data"]["absent"], run["data"]["retained"]) == (8, 12), "four pictures of each are absent, facts stay"
    sets = ["forget", f"forget{PART}1", f"forget{PART}2"]
    numbers = [found[f"accuracy/{name}"] for name in sets]
    assert [item["n"] for item in numbers] == [8, 4, 4] and all(item["ideal"] is not None for item in numbers)
    for field in ("value", "original", "ideal"):
        both, first, second = (item[field] for item in numbers)
        assert both == pytest.approx((first + second) / 2)
    assert numbers[0]["original"] >= 0.5
    shown = evidence(tmp_path / "out")
    for name in sets:  # eight pictures are few: what a part of them scores is kept at home as what all of them score
        assert shown[f"accuracy/{name}"]["withheld"] and shown[f"accuracy/{name}"]["value"] is None
    questions = {item["set"]: item["right"] for item in run["answers"] if PART in item["set"]}
    assert questions == {sets[1]: "star", sets[2]: "circle"}, "numbered as the request has them"


@pytest.mark.slow
def test_two_concepts_one_after_another(tmp_path):
    """The second run starts from what the first left; its retrained model lacks both."""
    ledger = {"ledger": str(tmp_path / "ledger.jsonl")}
    one = {**BOTH, "targets": [{"kind": "concept", "where": {"shape": "star"}}]}
    run_job(write_job(tmp_path, request=one, method=GA, **ledger, **LONGER), (), tmp_path / "first")
    (left,) = (tmp_path / "first.private").glob("next-*")
    two = {**BOTH, "targets": [{"kind": "concept", "where": {"shape": "circle"}}]}
    stored = {"training": {"kind": "stored", "folder": str(left)}}
    run_job(write_job(tmp_path, request=two, method=GA, **ledger, **stored), (), tmp_path / "second")
    run, found = whole(tmp_path / "second.private"), measured(tmp_path / "second.private")
    assert (run["data"]["absent"], run["data"]["retained"]) == (4, 12)
    first = measured(tmp_path / "first.private")
    assert found["accuracy/retain"]["n"] == 12 and first["accuracy/retain"]["n"] == 16
    assert found["accuracy/forget"]["ideal"] is not None, (
        "the recipe was stored: the model is trained again without both"
    )
    with pytest.raises(InputError, match="No training record of the concept has a picture"):
        again = {**one, "subject": "b"}
        run_job(write_job(tmp_path, request=again, method=GA, **ledger, **stored), (), tmp_path / "third")


def test_a_concept_that_is_not_recognised_is_not_hidden_by_another_that_is(tmp_path, monkeypatch):
    """Together 5 of 8 are named, of the circle 1 of 4."""
    share = {"forget": 5 / 8, f"forget{PART}1": 1.0, f"forget{PART}2": 0.25}
    kind = knowledge_of(share)
    with pytest.raises(RefusedError, match=r"0\.250 on what is to be forgotten \(2 in its order\)"):
        knowledge.must_know(kind, None, {}, None, dict.fromkeys(share), concept=True)  # type: ignore[arg-type]
    share[f"forget{PART}2"] = 0.5
    knowledge.must_know(knowledge_of(share), None, {}, None, dict.fromkeys(share), concept=True)  # type: ignore[arg-type]


def knowledge_of(share: dict[str, float]):
    """A kind of model that scores ``share``, and judges it as models that see are judged."""
    from expunge.evidence.comparison import Score
    from expunge.modalities.vision_language import MODALITY

    return SimpleNamespace(
        right=MODALITY.right, known_on=MODALITY.known_on, knowledge=MODALITY.knowledge, attacks=None,
        read=lambda task, tensors, sets: list(sets),
        score=lambda readings: [Score("accuracy", name, share[name], None, 4) for name in readings],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"concept": {"names": ["star"], "material": "recognition"}}, "one concept where request.concept.names"),
        ({"targets": [{"kind": "concept", "where": {"shape": ["star", "moon"]}}]}, "nowhere in these data.*moon"),
        (
            {"targets": [{"kind": "concept", "where": {"shape": ["star", "circle"], "kind": "x"}}]},
            "one target for each",
        ),
        ({"concept": {"substitutes": ["star", "circle"], "looks": ["red"]}}, "none given"),
        ({"concept": {"kind": "world"}}, "data that are a world"),
        (
            {"targets": [{"kind": "concept", "where": {"shape": ["star", "circle", "square", "cross"]}}]},
            "80% of all rows",
        ),
    ],
)
def test_several_concepts_that_come_to_nothing_are_refused(request_, message, tmp_path):
    with pytest.raises((InputError, RefusedError), match=message):
        run_job(write_job(tmp_path, request={**BOTH, **request_}, method=GA), (), tmp_path / "out")


def test_names_of_sets_that_parts_have_are_taken(tmp_path):
    path = write_job(tmp_path, data={**JOB["data"], "sets": {f"mine{PART}1": "stars.jsonl"}})
    assert yaml.safe_load(path.read_text())["data"]["sets"]
    with pytest.raises(InputError, match="a set of its own"):
        run_job(path, (), tmp_path / "out")
