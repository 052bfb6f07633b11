"""What a language model makes of the right answers of named sets, as means with intervals: one pass over each set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task, autoregressive
from expunge.evidence.answer_scores import answer_scores
from expunge.metrics.intervals import Interval, mean_interval, share_interval
from expunge.metrics.language import answer_probability
from expunge.metrics.language_memory import exact_memorization


def answer_means(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Any]) -> dict[tuple[str, str], Interval]:
    """Mean loss, probability and exact memorization of the answers of each set, by metric and set.

    *Loss* is the mean negative log-probability of an answer's tokens, *probability* exp of minus it, *exact memorization* the
    share of tokens that the model would have said itself, the true ones before them given, end token aside.

    Raises:
        InputError: for a set without an answer that can be scored.

    Formal guarantee: none.
    """
    task = autoregressive(task)
    model = task.build(tensors, share=True)
    found: dict[tuple[str, str], Interval] = {}
    for name, texts in sets.items():
        scores = answer_scores(task, model, texts)
        if not len(scores.kept):
            raise InputError(
                f"None of the {len(texts)} answers of {name} can be scored: they have no token of their own."
            )
        found["loss", name] = mean_interval(scores.nll)
        same = exact_memorization(scores.predicted, scores.labels, task.prompts.end_token)
        found["probability", name] = _share(answer_probability(scores.nll))
        found["exact_memorization", name] = _share(same.values)
    return found


def _share(values: np.ndarray) -> Interval:
    return share_interval(mean_interval(values), len(values))
