"""How models that see are measured after every run: by whole answers said right, and what they say before a reader's eyes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from expunge.core.task import Task
from expunge.data.texts import Texts
from expunge.evidence.comparison import Score
from expunge.evidence.language.answer_scores import AnswerScores
from expunge.metrics.intervals import wilson
from expunge.modalities.language import readings as language

Readings = language.Readings
ATTACKS = language.ATTACKS


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
