"""How models that see are measured after every run: by whole answers said right, and what they say before a reader's eyes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.task import Task
from expunge.data.concepts import TARGET
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.evidence.comparison import Models, Score
from expunge.evidence.language.answer_scores import AnswerScores
from expunge.metrics.intervals import wilson
from expunge.modalities.language import readings as language
from expunge.modalities.vision_language.speaking import spoken

Readings = Mapping[str, AnswerScores]
ATTACKS = language.ATTACKS
SHOWN = 12  # answers of each set on the private page; our choice


def read(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Texts]) -> Readings:
    """Token scores of the right answers, by set; raises InputError as for language models."""
    return language.read(task, tensors, sets)


def right(scores: AnswerScores) -> np.ndarray:
    """Which answers the model would have said word for word: every token is the likeliest behind the true ones before it.

    Shapes:
        (n,) bool.
    """
    return np.array([bool((a == b).all()) for a, b in zip(scores.predicted, scores.labels, strict=True)], dtype=bool)


def score(readings: Readings) -> list[Score]:
    """Accuracy, and mean loss, probability and exact memorization, of each set."""
    found = []
    for name, scores in readings.items():
        own = right(scores)
        found.append(Score.of("accuracy", name, wilson(int(own.sum()), len(own)), len(own)))
    return [*found, *language.score(readings)]


def said(task: Task, models: Models[Any], sets: Mapping[str, Texts]) -> list[dict[str, Any]]:
    """What each model answers to the first questions of each set, in words."""
    found = []
    asked = [
        (name, record)
        for name, texts in sets.items()
        if not any(TARGET in record for record in texts.records)
        for record in [r for r in texts.records if "question" in r][:SHOWN]
    ]
    records = [record for _, record in asked]
    answers = models.each(lambda tensors: spoken(task, tensors, records))
    for i, (name, record) in enumerate(asked):
        found.append(
            {"set": name, "image": record.get(IMAGE), "question": record["question"], "right": record["answer"],
             "before": None if answers.original is None else answers.original[i], "after": answers.unlearned[i],
             "retrained": None if answers.retrained is None else answers.retrained[i]}
        )  # fmt: skip
    return found
