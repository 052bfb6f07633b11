"""``expunge eval``: a saved model, measured on a folder of TOFU's form."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from expunge.tasks.language import Language
from expunge.tasks.micro_language import word_tokenizer
from expunge.tasks.pretrained import from_config, transformers
from expunge.tasks.prompts import Prompts

WORDS = [f"w{i}" for i in range(30)]
ASK = ("--template", "{question} {answer}", "--max-new-tokens", 3)


def saved(folder: Path, seed: int, words: list[str] = WORDS) -> Path:
    """A tiny Llama and its tokenizer, as ``transformers`` saves them."""
    tokenizer = word_tokenizer(words)
    config = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.3,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    build = functools.partial(from_config, config, transformers().LlamaForCausalLM)
    model = Language(build, Prompts(tokenizer, "{question} {answer}", 64)).build(seed=seed)
    model.save_pretrained(str(folder))  # type: ignore[operator]
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """Two authors of 20 questions; forget50 is the second."""
    draw, folder = np.random.default_rng(0), tmp_path / "tofu"
    folder.mkdir()

    def words(count: int) -> str:
        return " ".join(draw.choice(WORDS, count))

    def written(name: str, records: list[dict]) -> None:
        folder.joinpath(f"{name}.json").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")

    full = [{"question": words(8), "answer": words(4)} for _ in range(40)]
    perturbed = [{**r, "paraphrased_answer": words(4), "perturbed_answer": [words(4) for _ in range(5)]} for r in full]
    written("full", full)
    written("forget50", full[20:])
    written("forget50_perturbed", perturbed[20:])
    written("forget75", full[10:])
    written("retain_perturbed", perturbed[:20])
    for name in ("real_authors", "world_facts"):
        wrong = [words(2) for _ in range(3)]
        written(
            f"{name}_perturbed",
            [{"question": words(6), "answer": words(2), "perturbed_answer": wrong} for _ in range(2)],
        )
    with tmp_path.joinpath("unseen.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"question": words(8), "answer": words(4)}) + "\n" for _ in range(6))
    return folder


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
        "retain_trigger": 6, "retain_mixed": 6,
    }  # fmt: skip
    assert found["probability/forget"]["ideal"] != found["probability/forget"]["value"]
    same = json.loads(cli(*ask, "--limit", 6, "--retrained", model, "--json").out)
    assert {item["name"]: item["value"] for item in same["measurements"]}["forget_quality"] == 1
    alone = json.loads(cli(*ask, "--no-templates", "--json").out)
    assert alone["missing"].keys() == {"forget_quality", "privleak", "membership"}
    assert len(alone["sets"]) == 4 and alone["sets"]["forget"]["n"] == 20 and alone["settings"]["max_new_tokens"] == 3


def test_people_see_tables_what_is_missing_and_what_was_dropped(cli, data, tmp_path):
    model = saved(tmp_path / "model", 0)
    done = cli("eval", model, "--data", data, "--split", "forget50", *ASK)
    assert done.code == 0, done.err
    for word in (
        "forget (20)",
        "retain mixed (20)",
        "extraction strength",
        "model utility",
        "privleak: none; it compares",
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
    assert "a suite among tofu" in refusal("--data", data, "--suite", "muse")
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
