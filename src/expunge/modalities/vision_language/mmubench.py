"""The numbers of MMUBench for one model of a benchmark, beside shares of right answers: see ``recognised`` for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.task import autoregressive
from expunge.core.texts import Record
from expunge.data.texts import Texts
from expunge.evidence.language.answer_scores import answer_scores
from expunge.modalities.vision_language import recognised
from expunge.modalities.vision_language.questions import marked
from expunge.modalities.vision_language.relearning import UNSEEN, relearned
from expunge.tasks.vision_language import VisionLanguage

MIN_K = "min_k"  # of right answers to open questions, (n,): what the Min-K rule compares with the original's
_SHOWN = (
    "fluency",
    "diversity",
    "unique_words",
    "rule_judge",
    "name_probability",
    "aligned_forgotten",
    "aligned_retained",
)


def further(
    task: VisionLanguage, tensors: Mapping[str, Tensor], sets: Mapping[str, Sequence[Record]],
    concepts: Sequence[Sequence[str]], relearning: int = 0, lr: float = 1e-3,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:  # fmt: skip
    """Fluency, diversity, the rule-based judge, the name's probability, both modalities, steps to relearn; and of each open
    question that probability and Min-K.

    Args:
        sets: ``unseen``, open questions about held-out pictures of the concept, and facts in both modalities.
        concepts: names of each.
        relearning, lr: most steps of relearning, 0: none, and their rate.

    Formal guarantee: none.
    """
    texts = {name: marked(Texts.of(list(records)), concepts) for name, records in sets.items() if records}
    model = task.build(tensors, share=True)
    scores = {name: answer_scores(autoregressive(task), model, each) for name, each in texts.items()}
    heard = recognised.heard(task, tensors, texts, scores)
    found = [score for name, of in heard.items() for score in recognised.scores_of(name, of)]
    numbers = {score.metric: score.value for score in found if score.metric in _SHOWN}
    if relearning:
        numbers |= {score.metric: score.value for score in relearned(task, tensors, texts, relearning, lr)}
    margins: dict[str, Any] = {}
    if UNSEEN in heard and heard[UNSEEN].scores is not None:
        margins["name_probability"] = np.exp(heard[UNSEEN].naming()[1]).astype(np.float32)
        margins[MIN_K] = heard[UNSEEN].min_k()[heard[UNSEEN].open].astype(np.float32)
    return numbers, margins
