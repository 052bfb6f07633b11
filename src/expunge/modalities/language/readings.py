"""How language models are measured after every run: what they make of right answers, from one pass over each set.

``expunge eval`` asks more of them, see ``evidence.language``; what both measure is one function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.measurement import OWN_PROBES
from expunge.core.task import Task, autoregressive
from expunge.data.texts import Texts
from expunge.evidence.comparison import Score
from expunge.evidence.language.answer_scores import AnswerScores, answer_scores
from expunge.evidence.language.numbers import scores_of_answers
from expunge.evidence.membership import MembershipAttack
from expunge.modalities.language.speaking import forbidden

ATTACKS: Sequence[MembershipAttack] = ()  # ``expunge eval`` attacks with the scores of a whole suite


class Readings(dict[str, AnswerScores]):
    """Token scores of the right answers, by set.

    Attributes:
        forbidden: which of the operator's own probes got the answer that they call forbidden, (n,) bool; ``None``: there are
            no such probes.
    """

    forbidden: np.ndarray | None = None


def read(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Texts]) -> Readings:
    """Token scores of the right answers, by set; to own probes also what is said.

    Raises:
        InputError: for a set without an answer that can be scored.
    """
    task, readings = autoregressive(task), Readings()
    model = task.build(tensors, share=True)
    for name, texts in sets.items():
        readings[name] = answer_scores(task, model, texts)
        if not len(readings[name].kept):
            raise InputError(
                f"None of the {len(texts)} answers of {name} can be scored: they have no token of their own."
            )
    if (probes := sets.get(OWN_PROBES)) is not None:
        readings.forbidden = forbidden(task, tensors, probes)
    return readings


def score(readings: Readings) -> list[Score]:
    """Mean loss, probability and exact memorization of each set, and how many own probes get the forbidden answer."""
    found = [each for name, scores in readings.items() for each in scores_of_answers(name, scores)]
    return found if readings.forbidden is None else [*found, Score.forbidden(readings.forbidden)]
