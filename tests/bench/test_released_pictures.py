"""Recipes of models that see, and the one kind whose model is released: here the digits' own, saved as a folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from tests.bench.test_construction import digits_in
from typer.testing import CliRunner

from expunge.bench.recipe import load_recipe, names
from expunge.bench.world import World
from expunge.cli.app import app
from expunge.core.cache import Cache
from expunge.core.errors import FailedError, InputError
from expunge.data.concepts import KINDS
from expunge.data.digits_world import digits_world
from expunge.data.picture_records import read_picture_records
from expunge.metrics.catalogue import METRICS
from expunge.modalities.vision_language.recipes import VisionLanguageRecipe
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.training.pictures import PictureTraining
from expunge.training.shipped import name_of, shipped

SHIPPED = [name for name in names() if isinstance(load_recipe(name), VisionLanguageRecipe)]


@pytest.mark.parametrize("name", SHIPPED)
def test_recipes_that_ship_load_and_make_every_row(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, VisionLanguageRecipe) and recipe.name == name and recipe.title
    for row in recipe.rows:
        made = recipe.method(row)
        assert {"language", "vision_language"} & {*made.capabilities.tasks} and "concept" in made.capabilities.kinds
        assert (recipe.settings_of(row).material == "targets") == (made.name == "siu"), row
    for item in recipe.published:
        assert item.row in recipe.rows and {*item.metrics} <= {*METRICS}
    assert "gpu" in recipe.marks or not recipe.published


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="MMUBench is not public"):
        World.of(load_recipe("llava_siu"))
    pictures_of(tmp_path / "mmubench", ("seven", "two"), 2)
    with pytest.raises(InputError, match="none of Donald Trump"):
        World.of(load_recipe("llava_siu"))
    recipe = load_recipe("llava_siu").model_copy(update={"concepts": ["seven"]})
    with pytest.raises(InputError, match=r"EXPUNGE_MODELS.*llava-hf/llava-1\.5-7b-hf"):
        World.of(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"kind": "pictures"}}, "expected a world, a micro model and training"),
        ({"model": {"micro": True}}, "expected a world, a micro model and training"),
        ({"retrained_models": 1}, "cannot be retrained"),
    ],
)
def test_a_released_model_and_a_world_are_not_mixed(change, message):
    whole = load_recipe("smolvlm_siu").model_dump(mode="json")
    with pytest.raises(ValueError, match=message):
        VisionLanguageRecipe.model_validate({**whole, **change})


def pictures_of(folder: Path, concepts: tuple[str, ...], each: int) -> None:
    """A folder of images as recipes of released models read it: held-out digits, and facts in words."""
    folder.mkdir()
    world, lines = digits_world(), []
    for name in concepts:
        for i, record in enumerate(world.named(name)[:each]):
            (folder / f"{name}{i}.png").write_bytes(base64.b64decode(record["image"].partition(",")[2]))
            asked = {"question": "what digit is this ?", "answer": record["answer"]}
            lines.append({"file_name": f"{name}{i}.png", **asked, "concept": name})
        facts = [fact for fact in world.facts[name] if fact["relation"] in ("roman", "parity")]
        lines += [{"question": fact["question"], "answer": fact["answer"], "concept": "words"} for fact in facts]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A recipe of a folder of digits and a model folder, in the words that this model knows."""
    world = digits_world()
    task = micro_vision_language(world.vocabulary)
    weights = shipped(name_of(task, world.train, PictureTraining(), 0))
    assert weights is not None
    folder = tmp_path / "digits-model"
    folder.mkdir()
    for name, content in task.files().items():
        (folder / name).write_bytes(content)
    save_file(dict(weights), folder / "model.safetensors")
    monkeypatch.setenv("EXPUNGE_MODELS", str(tmp_path))
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    monkeypatch.setitem(KINDS, "thing", world.speech.templates)
    pictures_of(tmp_path / "mmubench", ("seven", "two", "three"), 8)
    recipe = load_recipe("smolvlm_siu").model_dump(mode="json")
    recipe["model"] = {
        "folder": "digits-model",
        "template": "{question} {answer}",
        "image_text": "<image> ",
        "context": 64,
    }
    recipe |= {"concepts": ["seven"], "seeds": 1}
    recipe["concept"] = {"kind": "thing", "substitutes": ["three"], "looks": ["two bows open to the left"]}
    return recipe


@pytest.mark.slow
def test_a_released_model_is_measured_before_and_after_and_its_items_are_in_its_own_words(released, tmp_path):
    world = World.of(VisionLanguageRecipe.model_validate(released), Cache(tmp_path / "cache"))
    before = world.workload.opened.weights
    scores = world.score("source", 0, before)
    found = scores.metrics
    assert found["recognition_seen"] == found["recognition_unseen"] == 1.0 and found["name_probability"] > 0.9
    assert found["others"] >= 0.8 and found["facts"] == found["facts_others"] == 1.0 and found["degeneration"] == 0
    assert found["yes_no"] >= 0.9 and found["no_others"] >= 0.8 and "kl_to_retrained" not in found
    assert len(scores.margins["min_k"]) == len(scores.margins["name_probability"]) == 7, (
        "all but the picture that is shown"
    )
    items = world.workload.presented("siu", world.deletion(0), 0).material
    assert {item["target"] for item in items.records} == {"unseen", "description", "facts", "others"}
    assert {item["specified"][0] for item in items.records if item["target"] == "unseen"} == {"three"}


@pytest.mark.slow
def test_a_concept_that_the_released_model_does_not_name_is_refused(released, tmp_path):
    weights = micro_vision_language(digits_world().vocabulary).build(seed=1).state_dict()
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items() if name != "lm_head.weight"},
              tmp_path / "digits-model" / "model.safetensors")  # fmt: skip
    world = World.of(VisionLanguageRecipe.model_validate(released), Cache(tmp_path / "cache"))
    with pytest.raises(FailedError, match="below half"):
        world.score("source", 0, world.workload.opened.weights)


@pytest.mark.slow
def test_a_folder_that_the_command_makes_is_what_a_recipe_of_a_released_model_reads(tmp_path, released):
    """``released``: the digits' model as a folder, and a recipe in its words."""
    options = ["--template", "{question} {answer}", "--image-text", "<image> ", "--context", "64"]
    (tmp_path / "phrases.json").write_text('{"three": ["third", "three"]}')
    options += ["--phrases", str(tmp_path / "phrases.json")]
    command = ["concepts", str(digits_in(tmp_path / "in")), str(tmp_path / "digits-model"), str(tmp_path / "made")]
    assert CliRunner().invoke(app, [*command, *options, "--json"], catch_exceptions=False).exit_code == 0
    counts = {each["concept"]: each for each in json.loads((tmp_path / "made" / "counts.json").read_text())}
    assert (counts["seven"]["pictures"], len(counts["seven"]["unlike"]), counts["seven"]["why"]) == (8, 2, "")
    assert counts["five"]["pictures"] == 4 and counts["five"]["why"]
    asked = read_picture_records(tmp_path / "made" / "open.jsonl")
    assert {tuple(r["phrases"]) for r in asked} == {("seven",), ("two",), ("third", "three")}
    recipe = {**released, "data": {"format": "concept_folder", "path": str(tmp_path / "made")}}
    world = World.of(VisionLanguageRecipe.model_validate(recipe))
    weights = world.workload.opened.weights
    assert weights is not None
    found = world.score("source", 0, weights).metrics
    assert found["recognition_seen"] == found["recognition_unseen"] == found["others"] == 1.0, "by construction"
