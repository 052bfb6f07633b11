"""How models that see are measured after every run: by whole answers said right, and, where a concept was to be forgotten, by
whether they recognise it (MMUBench).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from expunge.core.measurement import Check
from expunge.core.task import Task
from expunge.data.texts import Texts
from expunge.evidence.comparison import Score
from expunge.evidence.language.answer_scores import AnswerScores
from expunge.metrics.intervals import wilson
from expunge.modalities.language import readings as language
from expunge.modalities.vision_language import recognised

ATTACKS = language.ATTACKS


class Readings(language.Readings):
    """Token scores of the right answers, by set.

    Attributes:
        heard: what is said to questions about a concept, and to some others, by set; empty where nothing mentions one.
        sets: what was asked.
    """

    heard: Mapping[str, recognised.Heard] = {}
    sets: Mapping[str, Texts] = {}


def read(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Texts]) -> Readings:
    """Token scores of the right answers, by set, and answers about a concept; raises InputError as for language models."""
    found = language.read(task, tensors, sets)
    readings = Readings(found)
    readings.forbidden, readings.sets = found.forbidden, sets
    readings.heard = recognised.heard(task, tensors, sets, found)
    return readings


def right(scores: AnswerScores) -> np.ndarray:
    """Which answers the model would have said word for word: every token is the likeliest behind the true ones before it.

    Shapes:
        (n,) bool.
    """
    return np.array([bool((a == b).all()) for a, b in zip(scores.predicted, scores.labels, strict=True)], dtype=bool)


def score(readings: Readings) -> list[Score]:
    """Accuracy, and mean loss, probability and exact memorization, of each set; and whether the concept is recognised."""
    found, whole = [], {}
    for name, scores in readings.items():
        own = right(scores)
        found.append(Score.of("accuracy", name, wilson(int(own.sum()), len(own)), len(own)))
        if readings.heard and len(scores.kept) == len(readings.sets[name]):
            whole[name] = own
    found += language.score(readings)
    found += [each for name, of in readings.heard.items() for each in recognised.scores_of(name, of)]
    return [*found, *recognised.specificity(readings.sets, whole)]


def contrast(readings: Readings, original: Readings) -> list[Score]:
    """What compares a model with the original; see ``evidence.comparison.Contrasts``."""
    return [
        each for name, of in readings.heard.items() for each in recognised.contrasts(name, of, original.heard[name])
    ]


def controls(readings: Readings) -> Sequence[Check]:
    """What models would score that answer without looking; see ``evidence.comparison.Controlled``."""
    return recognised.controls(readings.heard)
