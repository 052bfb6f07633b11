"""What is measured of concepts of a world: whether they are named, affirmed and known, and what becomes of the others."""

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
from expunge.data.picture_world import World
from expunge.metrics.recognition import affirmed, degenerate, named
from expunge.tasks.generation import generate
from expunge.tasks.prompts import NO_LABEL
from expunge.tasks.vision_language import VisionLanguage

NEW_TOKENS = 14  # the longest answer of the worlds has so many words
OTHERS_EACH = 20  # held-out pictures of each other concept that are asked about; our choice
P_NAME = "name_probability"
OF_EACH = ("recognition_unseen", "yes_no", "facts")  # what is said of each concept by itself, where there are several


@dataclass(frozen=True)
class Scene:
    """Questions about the concepts ``names`` and the others; see :func:`world_scores` for what each is for.

    Attributes:
        place: of the name among the words of an answer.
    """

    names: tuple[str, ...]
    place: int
    seen: Sequence[Record]
    unseen: Sequence[Record]
    style: Sequence[Record]
    yes: Sequence[Record]
    facts: Sequence[Record]
    others: Sequence[Record]
    others_style: Sequence[Record]
    yes_others: Sequence[Record]
    no_others: Sequence[Record]
    facts_others: Sequence[Record]

    @classmethod
    def of(cls, world: World, names: Sequence[str], shown: Sequence[Record], each: int = OTHERS_EACH) -> Scene:
        """Of the concepts ``names``, of each of which one picture was ``shown``."""
        others = [other for other in world.names if other not in names]
        return cls(
            tuple(names), world.speech.named.split().index("{name}"),
            [{**record, "question": asked} for record in shown for asked in world.speech.asked],
            world.named(*names), world.named(*names, other_style=True), world.yes_no(*names),
            [fact for name in names for fact in in_words(world, name)],
            [record for other in others for record in world.named(other)[:each]],
            world.named(*others, other_style=True),
            [record for other in others for record in world.yes_no(other)[:each]],
            [record for other in others for record in world.yes_no(other, right=False)[:each]],
            [fact for other in others for fact in in_words(world, other)],
        )  # fmt: skip

    @property
    def parts(self) -> dict[str, Sequence[Record]]:
        """Metric → the questions that it is a share of; none where the world has no such questions."""
        parts = {
            "recognition_seen": self.seen, "recognition_unseen": self.unseen, "recognition_style": self.style,
            "yes_no": self.yes, "facts": self.facts, "others": self.others, "others_style": self.others_style,
            "yes_others": self.yes_others, "no_others": self.no_others, "facts_others": self.facts_others,
        }  # fmt: skip
        return {metric: asked for metric, asked in parts.items() if asked}


def in_words(world: World, name: str) -> list[Record]:
    """Facts about a concept but for its look: that is what SIU assigns anew (its second kind of items)."""
    return [fact for fact in world.facts[name] if fact["relation"] != "look"]


def world_scores(
    task: VisionLanguage, tensors: Mapping[str, Tensor], scene: Scene, retrained: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Shares, from greedy answers, and the probability of the name on each held-out picture.

    ``recognition_seen`` and ``recognition_unseen``: the name stands in the answer to an open question, about the pictures that
    were shown and about held-out ones (EM is 1 minus it); ``recognition_style``: about pictures in a style that nothing was
    trained on. ``yes_no``: "is this …" is affirmed. ``facts``: facts about the concepts in words, their looks aside.
    ``others``, ``others_style``, ``yes_others``, ``no_others``, ``facts_others``: the same of the other concepts, by right
    answers. ``degeneration``: answers that say nothing, among all. ``name_probability``: mean probability of the name behind
    the stem of an answer. ``kl_to_retrained``: mean divergence, from the retrained model's next-word distribution there, of the
    model's. Of several concepts, ``metric/name`` is what :data:`OF_EACH` come to for each.

    Raises:
        FailedError: if outputs are not finite.
    """
    model = task.build(tensors, share=True).eval()
    log_q = next_words(task, model, scene)
    if not bool(torch.isfinite(log_q).all()):
        raise FailedError("The outputs of the model are not finite. Take smaller learning rates.")
    parts = scene.parts
    records = [record for each in parts.values() for record in each]
    answers = generate(autoregressive(task), model, records, max_new_tokens=NEW_TOKENS, batch_size=256)
    found, start = {}, 0
    for metric, asked in parts.items():
        mine = answers[start : start + len(asked)]
        start += len(asked)
        hits = _hits(metric, mine, asked)
        found[metric] = float(hits.mean())
        if metric in OF_EACH and len(scene.names) > 1:
            about = np.array([record["about" if metric == "facts" else "shows"] for record in asked])
            found |= {f"{metric}/{name}": float(hits[about == name].mean()) for name in scene.names}
    found["degeneration"] = float(degenerate(answers).mean())
    words = task.prompts.tokenizer.convert_tokens_to_ids([record["shows"] for record in scene.unseen])
    p = log_q[torch.arange(len(words)), words].exp().double().cpu().numpy()
    found[P_NAME] = float(p.mean())
    if retrained is not None:
        log_p = next_words(task, task.build(retrained, share=True).eval(), scene)
        found["kl_to_retrained"] = float((log_p.exp() * (log_p - log_q)).sum(1).mean())
    return found, {P_NAME: p.astype(np.float32)}


def _hits(metric: str, answers: Sequence[str], asked: Sequence[Record]) -> np.ndarray:
    """Which answers count for ``metric``, (n,) bool."""
    if metric.startswith("recognition"):
        return np.array(
            [bool(named([answer], [record["shows"]])[0]) for answer, record in zip(answers, asked, strict=True)]
        )
    if metric.startswith(("yes", "no")):
        return affirmed(answers) != metric.startswith("no")
    return np.array([answer == record["answer"] for answer, record in zip(answers, asked, strict=True)])


@torch.no_grad()
def next_words(task: VisionLanguage, model: nn.Module, scene: Scene, batch_size: int = 512) -> Tensor:
    """Log-probabilities of the word behind the stem of an answer about each held-out picture.

    Shapes:
        n records → (n, vocabulary).
    """
    records: list[Any] = list(scene.unseen)
    found = []
    for start in range(0, len(records), batch_size):
        batch = task.encode(records[start : start + batch_size])
        logits, labels = task.answered(model, dict(model.named_parameters()), batch)
        first = (labels != NO_LABEL).int().argmax(1)
        found.append(logits[torch.arange(len(labels)), first + scene.place].log_softmax(-1))
    return torch.cat(found)
