"""Jobs on models that see: what a person is shown, what may be shown to others, and concepts that cannot be forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.product.stars import JOB, write_job

from expunge.core.errors import InputError, RefusedError
from expunge.data.digits_world import digits_world
from expunge.data.pictures import picture_of
from expunge.jobs.run import run_job
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.training.pictures import PictureTraining
from expunge.training.shipped import name_of, shipped

EXAMPLE = Path(__file__).parents[2] / "examples" / "jobs" / "digit_concept.yaml"


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


def test_what_is_released_is_a_folder_of_transformers(done):
    import transformers

    _, folder = done
    released = folder / "out" / "models" / "micro"
    stored = load_file(released / "model.safetensors")
    model = transformers.AutoModelForImageTextToText.from_pretrained(released)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters() if name in stored)
    assert isinstance(transformers.AutoProcessor.from_pretrained(released), transformers.LlavaProcessor)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers for it
def test_the_adapter_of_the_example_reloads_in_peft_and_the_merged_folder_in_transformers(tmp_path):
    """On the original weights the adapter says what the merged folder says, and not what the original says."""
    import peft
    import transformers

    run_job(EXAMPLE, ("evidence.relearning=0", "evidence.pdf=false"), tmp_path / "out")
    released, task = tmp_path / "out" / "models" / "micro", micro_vision_language(digits_world().vocabulary)
    weights = shipped(name_of(task, digits_world().train, PictureTraining(), 0))
    assert weights is not None
    merged = transformers.AutoModelForImageTextToText.from_pretrained(released).eval()
    adapted = peft.PeftModel.from_pretrained(task.build(weights).eval(), released.with_suffix(".adapter")).eval()
    processor = transformers.AutoProcessor.from_pretrained(released)
    records = [*digits_world().named("seven")[:4], *digits_world().named("two")[:4]]
    with torch.no_grad():
        for record in records:
            inputs = processor(
                text=[f"<image> {record['question']}"], images=[[picture_of(record)]], return_tensors="pt"
            )
            one, other, before = (model(**inputs).logits for model in (merged, adapted, task.build(weights).eval()))
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
            assert float((one - before).abs().max()) > 0.1


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
