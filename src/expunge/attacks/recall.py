"""What every robustness attack asks of a model before and after: which records does it still answer?

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from expunge.core.errors import InputError
from expunge.data.negatives import holds
from expunge.data.texts import Texts
from expunge.tasks.generation import generate
from expunge.tasks.language import Language

Score = Callable[[Mapping[str, Tensor]], Mapping[str, float]]  # weights → named numbers


def recall_of(task: Language, sets: Mapping[str, Texts], *, new_tokens: int | None = None) -> Score:
    """A score: of each named set the share of questions whose true answer stands in the greedy one, capitals aside.

    Args:
        new_tokens: most tokens of an answer; ``None``: twice the longest true answer of a set (ours).

    Raises:
        InputError: for a set without records, or with plain texts; when the score is taken, for a prompt without room.

    Source: the level 1 test of RWKU (arXiv 2406.10890), turned round.
    """
    for name, texts in sets.items():
        if not len(texts) or any("question" not in record for record in texts.records):
            raise InputError(f"Expected questions with answers in the set {name!r}; got none, or plain texts.")

    def score(tensors: Mapping[str, Tensor]) -> dict[str, float]:
        model = task.build(tensors)
        return {name: recall(task, model, texts, new_tokens=new_tokens) for name, texts in sets.items()}

    return score


def recall(task: Language, model: Any, texts: Texts, *, new_tokens: int | None = None) -> float:
    """The share of ``texts`` that ``model`` answers; see :func:`recall_of`."""
    most = new_tokens or 2 * max(len(ids) - start for ids, start in task.prompts.tokens(texts.records))
    said = generate(task, model, texts.records, max_new_tokens=most)
    held = [holds(text, record["answer"]) for text, record in zip(said, texts.records, strict=True)]
    return sum(held) / len(held)
