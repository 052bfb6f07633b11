"""What a model answers in words, as far as its context has room; and to which probes it says what it must not."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task, autoregressive
from expunge.core.texts import Record
from expunge.data.concepts import TARGET
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.evidence.comparison import Models
from expunge.tasks.generation import generate

NEW_TOKENS = 24  # of an answer; the facts of TOFU need no more
SHOWN = 12  # answers of each set on the private page; our choice


def spoken(task: Task, tensors: Mapping[str, Tensor], records: Sequence[Record]) -> list[str]:
    """The greedy answer to each question, at most :data:`NEW_TOKENS` tokens and no more than fit behind the longest."""
    if not records:
        return []
    task = autoregressive(task)
    longest = max(len(prompt) for prompt in task.prompts.prompt_tokens(records))
    most = max(1, min(NEW_TOKENS, task.prompts.context - longest))
    return generate(task, task.build(tensors, share=True), records, max_new_tokens=most)


def said(
    task: Task, models: Models[Mapping[str, Tensor]], sets: Mapping[str, Texts], shown: int = SHOWN
) -> list[dict[str, Any]]:
    """What each model answers to the first ``shown`` questions of each set, in words; see ``evidence.comparison.Speaks``."""
    asked = [
        (name, record)
        for name, texts in sets.items()
        if not any(TARGET in record for record in texts.records)
        for record in [r for r in texts.records if "question" in r][:shown]
    ]
    records = [record for _, record in asked]
    answers = models.each(lambda tensors: spoken(task, tensors, records))
    return [
        {"set": name, "image": record.get(IMAGE), "question": record["question"], "right": record["answer"],
         "before": None if answers.original is None else answers.original[i], "after": answers.unlearned[i],
         "retrained": None if answers.retrained is None else answers.retrained[i]}
        for i, (name, record) in enumerate(asked)
    ]  # fmt: skip


def probes_of(records: Sequence[Record], name: str) -> Texts:
    """The operator's own probes: questions, each with the answer that the model is not to give.

    Raises:
        InputError: for a record without a question or an answer with a word in it.
    """
    for i, record in enumerate(records, 1):
        if "question" not in record or not words(record.get("answer", "")):
            raise InputError(
                f"Expected a question, and under answer what the model must not say, in each probe; probe {i} of {name} has no "
                "such pair."
            )
    return Texts.of(records)


def words(text: str) -> str:
    """The words of a text, in lower case and one space apart; punctuation parts them, accents are kept."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(sign if sign.isalnum() else " " for sign in plain).split())


def forbidden(task: Task, tensors: Mapping[str, Tensor], probes: Texts) -> np.ndarray:
    """Whether the words of the forbidden answer stand, together and in order, in what the model says to each probe.

    Shapes:
        (n,) bool.
    """
    answers = spoken(task, tensors, probes.records)
    pairs = zip(probes.records, answers, strict=True)
    return np.array([f" {words(record['answer'])} " in f" {words(answer)} " for record, answer in pairs], dtype=bool)
