"""Greedy generation in batches against the generation of transformers (goal: 3 x one prompt at a time).

All ways run on the same model and prompts and must give the same texts, but for tokens that are as likely up to rounding.
``transformers, in batches`` is padded to its longest prompt, as its documentation says. Model: stories260k of the folder that
EXPUNGE_DATA names. Run from the repository root: ``python bench/generation.py [--smoke] [--json]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from comparison import Case, Growth, main
from expunge.tasks.generation import generate
from expunge.tasks.language import Language
from expunge.tasks.passes import ANSWERS as BATCH
from expunge.tasks.pretrained import load_language_model

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


def in_batches(task: Language, model: Any, questions: Sequence[str], most: int) -> list[str]:
    """``generate`` of transformers on batches of the same size as ours, filled up on the left to the longest of each."""
    texts, prompts = [], task.prompts.prompt_tokens(questions)
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        width = max(map(len, part))
        ids = torch.tensor([[task.prompts.padding] * (width - len(tokens)) + list(tokens) for tokens in part])
        mask = torch.tensor([[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in part])
        with torch.no_grad():
            said = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False,
                eos_token_id=task.prompts.end_token, pad_token_id=task.prompts.padding,
            )  # fmt: skip
        texts += [task.prompts.tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in said]
    return texts


def agree(expected: list[str], found: list[str]) -> None:
    if sum(a != b for a, b in zip(expected, found, strict=True)) > len(expected) / 8:
        raise SystemExit("More than an eighth of the texts differ: the ways do not do the same work.")


def cases(smoke: bool) -> Iterable[Case]:
    if not os.environ.get("EXPUNGE_DATA"):
        print("Nothing to measure: EXPUNGE_DATA is not set, it names the folder that holds stories260k.")
        return
    count, most = (4, 2) if smoke else (64, 32)
    task, tensors = load_language_model(
        Path(os.environ["EXPUNGE_DATA"]) / "stories260k", template="{question} {answer}"
    )
    model = task.build(tensors).eval()

    def asked(size: int) -> list[str]:
        return [f"{BEGINNINGS[i % len(BEGINNINGS)]}{' very' * (i // len(BEGINNINGS))}" for i in range(size)]

    def ours(size: int) -> Callable[[], list[str]]:
        questions = asked(size)
        return lambda: generate(task, model, questions, max_new_tokens=most)

    yield Case(
        name=f"{count} prompts x {most} tokens", ours=ours(count), agree=agree, rounds=3, goal=3.0,
        baselines={
            "transformers, one at a time": lambda: one_at_a_time(task, model, asked(count), most),
            "transformers, in batches": lambda: in_batches(task, model, asked(count), most),
        },
        growth=Growth(what="prompts", ways={size: ours(size) for size in (count // 4, count // 2, count, 2 * count)}),
    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
