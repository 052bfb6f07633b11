"""How language models are measured after every run: what they make of right answers, from one pass over each set.

``expunge eval`` asks more of them, see ``evidence.language``; what both measure is one function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task, autoregressive
from expunge.data.texts import Texts
from expunge.evidence.comparison import Score
from expunge.evidence.language.answer_scores import AnswerScores, answer_scores
from expunge.evidence.language.numbers import scores_of_answers
from expunge.evidence.membership import MembershipAttack

Readings = Mapping[str, AnswerScores]
ATTACKS: Sequence[MembershipAttack] = ()  # ``expunge eval`` attacks with the scores of a whole suite


def read(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Texts]) -> Readings:
    """Token scores of the right answers, by set.

    Raises:
        InputError: for a set without an answer that can be scored.
    """
    task, readings = autoregressive(task), dict[str, AnswerScores]()
    model = task.build(tensors, share=True)
    for name, texts in sets.items():
        readings[name] = answer_scores(task, model, texts)
        if not len(readings[name].kept):
            raise InputError(
                f"None of the {len(texts)} answers of {name} can be scored: they have no token of their own."
            )
    return readings


def score(readings: Readings) -> list[Score]:
    """Mean loss, probability and exact memorization of each set."""
    return [each for name, scores in readings.items() for each in scores_of_answers(name, scores)]
