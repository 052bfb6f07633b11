"""Jobs on models that see: what a person is shown, what may be shown to others, and concepts that cannot be forgotten."""

from __future__ import annotations

import json

import pytest
from tests.product.stars import JOB, write_job

from expunge.core.errors import InputError, RefusedError
from expunge.jobs.run import run_job


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stars")
    return run_job(write_job(folder), (), folder / "out"), folder


def test_a_person_sees_what_each_model_said_of_each_picture_and_nobody_else_does(done):
    _, folder = done
    review = (folder / "out.private" / "review.html").read_text()
    whole = json.loads((folder / "out.private" / "review.json").read_text())["runs"][0]
    asked = [item for item in whole["answers"] if item["set"] == "forget"]
    assert len(asked) == 4 and all(item["image"].startswith("data:image/png;base64,") for item in asked)
    assert {item["right"] for item in asked} == {"star"} and {"before", "after", "retrained"} <= asked[0].keys()
    named = sum(item["before"] == "star" for item in asked)
    assert review.count("<img src=") == sum(item["image"] is not None for item in whole["answers"])
    assert "What each model answers, forgotten rows" in review
    for name in ("report.html", "evidence.json"):
        shown = (folder / "out" / name).read_text()
        assert "data:image/png" not in shown and "what is this ?" not in shown, name
    counts = {item["name"]: item for item in whole["evidence"]["measurements"]}
    assert counts["accuracy/forget"]["n"] == 4 and counts["accuracy/forget"]["original"] == pytest.approx(named / 4)
    assert counts["accuracy/forget"]["ideal"] is not None and "accuracy/retain" in counts


def test_the_retrained_model_lacks_the_pictures_of_the_concept_and_the_tokens_of_its_name_are_told(done):
    _, folder = done
    whole = json.loads((folder / "out.private" / "review.json").read_text())
    assert (whole["data"]["absent"], whole["data"]["rows"], whole["data"]["retained"]) == (4, 20, 16)
    assert whole["runs"][0]["details"]["concept_tokens"][0]["kept"] == ["star"]


def test_the_report_says_whether_the_concept_is_recognised_beside_controls_and_the_shown_picture_stays_private(done):
    """Four pictures go: fewer than the 20 from which values on them may be shown."""
    _, folder = done
    whole = json.loads((folder / "out.private" / "review.json").read_text())["runs"][0]["evidence"]
    counts = {item["name"]: item for item in whole["measurements"]}
    for name in ("recognition/forget", "recognition/shown", "c_dis/forget", "min_k_alike/forget", "relearning_steps/forget",
                 "name_probability/forget", "fluency/forget", "degeneration/forget", "diversity/forget"):  # fmt: skip
        assert counts[name]["value"] is not None and counts[name]["ideal"] is not None, name
    assert counts["c_dis/forget"]["original"] == 0 and counts["min_k_alike/forget"]["original"] == 1
    assert counts["recognition/shown"]["n"] == 1 and counts["relearning_steps/forget"]["n"] == 2
    shown = json.loads((folder / "out" / "evidence.json").read_text())["runs"][0]["evidence"]
    assert {item["value"] for item in shown["measurements"] if item["set"] in ("shown", "forget")} == {None}
    (told,) = (check for check in shown["checks"] if check["name"] == "controls")
    assert "always says no would score named 0 %" in told["statement"] and "says nothing" in told["statement"]
    assert (
        "Controls" in (folder / "out" / "report.html").read_text()
        or "controls" in (folder / "out" / "report.html").read_text()
    )


def test_a_concept_that_the_model_does_not_recognise_is_refused(tmp_path):
    training = {**JOB["training"], "seeing": 0, "steps": 1}
    with pytest.raises(RefusedError, match="does not recognise the concept"):
        run_job(write_job(tmp_path, training=training), (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"targets": [{"kind": "concept", "where": {"shape": "moon"}}]}, "nowhere in these data"),
        ({"concept": {"material": "targets"}}, "substitute that answers use already"),
        ({"concept": {"material": "targets", "substitutes": ["cross"]}}, "concept.looks"),
        ({"concept": {"picture": 9}}, "picture from 0 to 3"),
        ({"concept": {"names": ["moon"], "material": "recognition"}}, "No picture of the concept is answered by moon"),
        ({"wording": "stars.jsonl"}, "concepts alone"),
    ],
)
def test_requests_for_concepts_that_come_to_nothing_are_refused_before_anything_is_trained(request_, message, tmp_path):
    concept = {**JOB["request"], "concept": {"material": "recognition"}}
    with pytest.raises(InputError, match=message):
        run_job(write_job(tmp_path, request={**concept, **request_}), (), tmp_path / "out")
