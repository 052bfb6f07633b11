"""How soon a concept is recognised again: training on one new picture of it with its right name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from expunge.attacks.relearning import relearning_attack
from expunge.core.errors import InputError
from expunge.core.task import Task, autoregressive
from expunge.core.texts import Record
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.evidence.comparison import Score
from expunge.evidence.language.answer_scores import answer_scores
from expunge.evidence.membership import FORGET
from expunge.modalities.vision_language import recognised
from expunge.modalities.vision_language.questions import is_open
from expunge.tasks.vision_language import VisionLanguage

WORDINGS = 4  # questions about the new picture, one batch; the batch size of the paper's runs
LOOKED_AT = 32  # pictures on which the name is looked for after each step; our choice
BACK = 0.5  # mean probability of the name above which it is back; our choice
UNSEEN = "unseen"


def relearned(
    task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Texts], steps: int, lr: float
) -> list[Score]:
    """After how many of ``steps`` steps on one picture the mean probability of the name on other pictures is not above a half.

    The new picture is the last of the set ``unseen``, or, without one, of what was to be forgotten. All weights move (AdamW,
    constant rate). Nothing where no set has open questions about pictures of the concept.

    Raises:
        InputError: where there is a single picture.

    Source: relearning after SIU measured on the digits world (docs/vision_language.md). Formal guarantee: none.
    """
    if not isinstance(task, VisionLanguage):
        return []
    name = next((each for each in (UNSEEN, FORGET) if each in sets and any(map(is_open, sets[each].records))), None)
    if name is None:
        return []
    records = [record for record in sets[name].records if is_open(record)]
    *others, new = dict.fromkeys(record[IMAGE] for record in records)  # type: ignore[typeddict-item]
    if not others:
        raise InputError(
            f"Relearning looks at other pictures than the one it trains on; {name} has one. Set relearning: 0."
        )
    looked = [record for record in records if record[IMAGE] != new][:LOOKED_AT]  # type: ignore[typeddict-item]
    return [_counted(task, tensors, name, _asked(records, new), looked, steps, lr)]


def _asked(records: Sequence[Record], new: str) -> list[Record]:
    own = next(record for record in records if record[IMAGE] == new)  # type: ignore[typeddict-item]
    wordings = list(dict.fromkeys(record["question"] for record in records))[:WORDINGS]
    return [{**own, "question": wording} for wording in wordings]  # type: ignore[misc]


def _counted(
    task: VisionLanguage, tensors: Mapping[str, Tensor], name: str, new: list[Record], looked: list[Record], steps: int,
    lr: float,
) -> Score:  # fmt: skip
    def back(weights: Mapping[str, Tensor]) -> dict[str, float]:
        scores = answer_scores(autoregressive(task), task.build(weights, share=True), looked)
        masks = recognised.name_tokens(task.prompts.tokenizer, looked, scores)
        found = [float(np.exp(p[own].sum())) for p, own in zip(scores.log_probs, masks, strict=True) if own.any()]
        if not found:
            raise InputError(
                "The name of the concept is in no answer in tokens of its own: relearning cannot be measured."
            )
        return {"name": float(np.mean(found))}

    curves = relearning_attack(task, tensors, Texts.of(new), back, steps=range(steps + 1), lr=lr, batch_size=len(new))
    late = sum(point.scores["name"] <= BACK for point in curves.unlearned[1:])
    return Score("relearning_steps", name, float(late), None, steps)
