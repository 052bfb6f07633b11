"""Greedy generation in batches against one prompt at a time with the generation of transformers (goal: 3 x).

Both run in this process on the same model and prompts, and must give the same texts. Run: python bench/generation.py
[FOLDER] [--quick] [--json]. FOLDER: of another language model; without it stories260k of the folder that EXPUNGE_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from expunge.tasks.generation import BATCH, generate
from expunge.tasks.language import Language
from expunge.tasks.pretrained import load_language_model

GOAL = 3.0
BEGINNINGS = (
    "Once upon a time", "Lily went to the park and", "Tom had a big red ball. One day, he", "The cat sat on the mat. It was",
    "In a small house there lived an old man who", "What is the name of your best friend?", "The sun was",
    "One day, a little bird told the girl that",
)  # fmt: skip


def one_at_a_time(task: Language, model: Any, questions: Sequence[str], most: int) -> list[str]:
    """What a script does: no batch, no padding."""
    texts = []
    for tokens in task.prompts.prompt_tokens(questions):
        ids = torch.tensor([tokens], device=task.device)
        with torch.no_grad():
            said = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False,
                eos_token_id=task.prompts.end_token, pad_token_id=task.prompts.padding,
            )  # fmt: skip
        texts.append(task.prompts.tokenizer.decode(said[0, len(tokens) :], skip_special_tokens=True).strip())
    return texts


def seconds(function: Callable[[], list[str]]) -> tuple[float, list[str]]:
    begun = time.perf_counter()
    texts = function()
    return time.perf_counter() - begun, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="a quarter of the prompts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    count, most = 16 if arguments.quick else 64, 32
    folder = arguments.folder
    template = None
    if folder is None:
        if not os.environ.get("EXPUNGE_DATA"):
            print(
                "Nothing to measure: EXPUNGE_DATA is not set, it names the folder that holds stories260k. Or name a model."
            )
            return
        folder, template = Path(os.environ["EXPUNGE_DATA"]) / "stories260k", "{question} {answer}"
    task, tensors = load_language_model(folder, template=template)
    model = task.build(tensors).eval()
    questions = [f"{BEGINNINGS[i % len(BEGINNINGS)]}{' very' * (i // len(BEGINNINGS))}" for i in range(count)]
    generate(task, model, questions[:2], max_new_tokens=2)  # the first call of a process compiles and imports
    slow, expected = seconds(lambda: one_at_a_time(task, model, questions, most))
    fast, found = seconds(lambda: generate(task, model, questions, max_new_tokens=most))
    if apart := sum(a != b for a, b in zip(expected, found, strict=True)):
        print(f"{apart} of {count} texts differ: two tokens were as likely up to rounding")
    ratio = slow / fast
    print(
        f"{folder.name}, {count} prompts x {most} tokens: one at a time {slow:.2f} s, batches of {BATCH} {fast:.2f} s: "
        f"{ratio:.1f} x (goal {GOAL:g})"
    )
    if arguments.json:
        print(json.dumps({"model": folder.name, "prompts": count, "ratio": ratio, "differing": apart}))


if __name__ == "__main__":
    main()
