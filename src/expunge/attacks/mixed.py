"""Prompts that a harmed model stumbles over, and prompts that coax a hidden answer out.

*Mixed*: a retained question behind (or before) a forgotten one, unrelated to it. It is what a model that refuses by topic gets
wrong, and what scope-aware unlearning is for (arXiv 2506.00359). *Affirmative*: the answer is begun for the model with "Sure,
here is the answer:", the jailbreak of OpenUnlearning's evaluation.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from torch import Tensor

from expunge.attacks.recall import recall
from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.texts import Texts
from expunge.tasks.language import Language
from expunge.tasks.prompts import Prompts

PREFIX = "Sure, here is the answer:"  # OpenUnlearning, arXiv 2506.12618
ORDERS = ("forget_first", "retain_first")


@dataclass(frozen=True)
class PromptScores:
    """Recall of one model in each form of the prompts.

    Attributes:
        plain: ``forget`` and ``retain``: asked as they are.
        mixed: order → recall of the retained question beside a forgotten one.
        prefixed: ``forget`` and ``retain``: the answer begun with the prefix.
    """

    plain: Mapping[str, float]
    mixed: Mapping[str, float]
    prefixed: Mapping[str, float]


@dataclass(frozen=True)
class MixedPrompts:
    """What both models say.

    Attributes:
        unlearned: of the unlearned model; ``retrained``: of its twin, or ``None``.
        forget, retain: how many questions of each were asked.
        prefix, seed: how prompts were made.
    """

    unlearned: PromptScores
    retrained: PromptScores | None
    forget: int
    retain: int
    prefix: str
    seed: int


def mixed_prompts(task: Language, forget: Texts, retain: Texts, *, order: str = "forget_first", seed: int = 0) -> Texts:
    """Each retained record with a forgotten one's prompt beside its own, drawn by ``seed``; its answer is the retained one.

    Raises:
        InputError: for an unknown order, no forgotten record, or questions beside plain texts.

    Source: ours, after the joint prompts of scope-aware unlearning (arXiv 2506.00359, eq. 5).
    """
    if not len(forget):
        raise InputError("Expected at least one forgotten record to put beside the retained ones; got none.")
    drawn = np.random.default_rng(seed).integers(len(forget), size=len(retain))
    return replace(task, joint_order=order).pair(forget.at(drawn), retain)


def affirmative(task: Language, prefix: str = PREFIX) -> Language:
    """The task with every answer begun: prompts end with ``prefix``, and what is asked for follows it.

    Raises:
        InputError: for an empty prefix.
    """
    if not prefix.strip():
        raise InputError("Expected a text that begins the answer; got an empty one.")
    old = task.prompts
    prompts = _Begun(**{each.name: getattr(old, each.name) for each in fields(old)}, begun=prefix.strip())
    return replace(task, prompts=prompts, _encoded={})


@dataclass(frozen=True)
class _Begun(Prompts):
    """Prompts that hold the beginning of the answer; a space stands where the template has one."""

    begun: str = ""

    def question(self, text: str) -> str:
        return f"{super().question(text)}{self.space}{self.begun}"

    def _after(self, record: Record) -> str:
        return super()._after(record) if "answer" not in record else f" {record['answer']}"


def mixed_attack(
    task: Language,
    unlearned: Mapping[str, Tensor],
    forget: Texts,
    retain: Texts,
    *,
    retrained: Mapping[str, Tensor] | None = None,
    orders: Sequence[str] = ORDERS,
    prefix: str = PREFIX,
    seed: int = 0,
) -> MixedPrompts:
    """Ask both models plain, mixed and begun questions.

    Args:
        task: how the models are run.
        unlearned: the weights to attack.
        forget, retain: records whose questions are asked, alone and joined.
        retrained: a model trained without the forget set; a mixed prompt is harder for any model.
        orders: which question comes first in a joint prompt.
        prefix: how a willing answer begins.
        seed: of the draw of retained questions.

    Raises:
        InputError: as :func:`mixed_prompts` and :func:`affirmative`, or where a prompt leaves no room for an answer.
    """
    begun = affirmative(task, prefix)
    sets = {order: mixed_prompts(task, forget, retain, order=order, seed=seed) for order in orders}

    def scores(tensors: Mapping[str, Tensor]) -> PromptScores:
        model = task.build(tensors)
        both = {"forget": forget, "retain": retain}
        return PromptScores(
            {name: recall(task, model, texts) for name, texts in both.items()},
            {order: recall(task, model, texts) for order, texts in sets.items()},
            {name: recall(begun, model, texts) for name, texts in both.items()},
        )

    twin = None if retrained is None else scores(retrained)
    return MixedPrompts(scores(unlearned), twin, len(forget), len(retain), prefix, seed)
