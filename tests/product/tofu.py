"""TOFU in miniature, and a model of its words in a folder as ``transformers`` saves it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.llamas import tiny_llama

from expunge.tasks.micro_language import word_tokenizer

WORDS = [f"w{i}" for i in range(30)]


def saved(folder: Path, seed: int, words: list[str] = WORDS) -> Path:
    """A tiny Llama and its tokenizer, as ``transformers`` saves them."""
    tokenizer = word_tokenizer(words)
    model = tiny_llama(tokenizer, layers=1, positions=64).build(seed=seed)
    model.save_pretrained(str(folder))  # type: ignore[operator]
    tokenizer.save_pretrained(str(folder))
    return folder


def small_tofu(folder: Path) -> Path:
    """Two authors of 20 questions; forget50 is the second. Beside the folder ``unseen.jsonl``, of nobody."""
    draw = np.random.default_rng(0)
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
    with folder.with_name("unseen.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"question": words(8), "answer": words(4)}) + "\n" for _ in range(6))
    return folder
