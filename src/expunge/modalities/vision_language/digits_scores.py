"""What is measured of a digit as a concept: whether it is named, affirmed and known, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import FailedError
from expunge.core.task import autoregressive
from expunge.core.texts import Record
from expunge.data.digits_world import ASKED, NAMED, NAMES, DigitsWorld, facts_of
from expunge.metrics.recognition import affirmed, degenerate, named
from expunge.tasks.generation import generate
from expunge.tasks.prompts import NO_LABEL
from expunge.tasks.vision_language import VisionLanguage

NEW_TOKENS = 14  # the longest answer of the world has so many words
OTHERS_EACH = 20  # held-out pictures of each other digit that are asked about; our choice
PLACE = NAMED.split().index("{name}")  # of the name among the words of an answer
P_NAME = "name_probability"


@dataclass(frozen=True)
class Scene:
    """Questions about one digit and the others; see :func:`digit_scores` for what each is for."""

    name: str
    seen: Sequence[Record]
    unseen: Sequence[Record]
    yes: Sequence[Record]
    facts: Sequence[Record]
    others: Sequence[Record]
    yes_others: Sequence[Record]
    no_others: Sequence[Record]
    facts_others: Sequence[Record]

    @classmethod
    def of(cls, world: DigitsWorld, name: str, shown: Record, each: int = OTHERS_EACH) -> Scene:
        """Of the digit ``name``, of which one picture was ``shown``."""
        others = [other for other in NAMES if other != name]
        return cls(
            name, [{**shown, "question": asked} for asked in ASKED], world.named(name), world.yes_no(name), in_words(name),
            [record for other in others for record in world.named(other)[:each]],
            [record for other in others for record in world.yes_no(other)[:each]],
            [record for other in others for record in world.yes_no(other, right=False)[:each]],
            [fact for other in others for fact in in_words(other)],
        )  # fmt: skip


def in_words(name: str) -> list[Record]:
    """Facts about a digit but for its look: that is what SIU assigns anew (its second kind of items)."""
    return [fact for fact in facts_of(name) if fact["relation"] != "look"]


def digit_scores(
    task: VisionLanguage, tensors: Mapping[str, Tensor], scene: Scene, retrained: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Shares, from greedy answers, and the probability of the name on each held-out picture.

    ``recognition_seen`` and ``recognition_unseen``: the name stands in the answer to an open question, about the picture that
    was shown and about held-out ones (EM is 1 minus it). ``yes_no``: "is this …" is affirmed. ``facts``: facts about the digit
    in words, its look aside. ``others``, ``yes_others``, ``no_others``, ``facts_others``: the same of the other digits, by
    right answers. ``degeneration``: answers that say nothing, among all. ``name_probability``: mean probability of the name
    behind the stem of an answer. ``kl_to_retrained``: mean divergence, from the retrained model's next-word distribution
    there, of the model's.

    Raises:
        FailedError: if outputs are not finite.
    """
    model = task.build(tensors, share=True).eval()
    parts = {
        "recognition_seen": scene.seen, "recognition_unseen": scene.unseen, "yes_no": scene.yes, "facts": scene.facts,
        "others": scene.others, "yes_others": scene.yes_others, "no_others": scene.no_others,
        "facts_others": scene.facts_others,
    }  # fmt: skip
    log_q = names_of_next_word(task, model, scene.unseen)
    if not bool(torch.isfinite(log_q).all()):
        raise FailedError("The outputs of the model are not finite. Take smaller learning rates.")
    records = [record for each in parts.values() for record in each]
    answers = generate(autoregressive(task), model, records, max_new_tokens=NEW_TOKENS, batch_size=256)
    found, start = {}, 0
    for metric, asked in parts.items():
        mine = answers[start : start + len(asked)]
        start += len(asked)
        if metric.startswith("recognition"):
            hits = named(mine, [scene.name])
        elif metric.startswith(("yes", "no")):
            hits = affirmed(mine) != metric.startswith("no")
        else:
            hits = np.array([answer == record["answer"] for answer, record in zip(mine, asked, strict=True)])
        found[metric] = float(hits.mean())
    found["degeneration"] = float(degenerate(answers).mean())
    word = task.prompts.tokenizer.convert_tokens_to_ids(scene.name)
    p = log_q[:, word].exp().double().cpu().numpy()
    found[P_NAME] = float(p.mean())
    if retrained is not None:
        log_p = names_of_next_word(task, task.build(retrained, share=True).eval(), scene.unseen)
        found["kl_to_retrained"] = float((log_p.exp() * (log_p - log_q)).sum(1).mean())
    return found, {P_NAME: p.astype(np.float32)}


@torch.no_grad()
def names_of_next_word(task: VisionLanguage, model: nn.Module, records: Sequence[Any]) -> Tensor:
    """Log-probabilities of the word behind the stem of an answer.

    Shapes:
        n records → (n, vocabulary).
    """
    logits, labels = task.answered(model, dict(model.named_parameters()), task.encode(records))
    first = (labels != NO_LABEL).int().argmax(1)
    return logits[torch.arange(len(labels)), first + PLACE].log_softmax(-1)
