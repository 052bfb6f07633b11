"""What a benchmark's model knows, what it is asked to see what it forgot and what it kept, and how its answers are counted.

The same questions for every row: forgotten ones and retained ones, each also inside the templates of the stealthy attack,
and retained ones behind an unrelated forgotten one, which is how the scope term words them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.attacks.stealthy import trigger_prompts
from expunge.core.data import Deletion
from expunge.core.errors import FailedError
from expunge.data.texts import Texts
from expunge.tasks.language import Language
from expunge.tasks.prompts import NO_LABEL

Ask = Callable[[Language, nn.Module, Texts], np.ndarray]  # → (questions,) in [0, 1]


@dataclass(frozen=True)
class Facts:
    """What the world of a recipe holds.

    Attributes:
        task: how the model is run.
        data: every fact that the original model knows, with the column ``column``.
        candidates: who of that column may be forgotten; the last ones go first.
        count: how answers are counted.
        asked: most retained questions that are asked; ``None``: all, and after the word ``then`` too.
        others: questions about nobody in ``data``, asked as ``real``; or ``None``.
        statistics: the sets that TOFU's statistics take; empty: none are asked for.
    """

    task: Language
    data: Texts
    column: str
    candidates: Sequence[Any]
    count: Ask = field(repr=False)
    asked: int | None = None
    others: Texts | None = None
    statistics: Mapping[str, Texts] = field(default_factory=dict)


def questions(
    task: Language, deletion: Deletion, seed: int, asked: int | None = None, others: Texts | None = None
) -> Mapping[str, Texts]:
    """Metric → questions with their right answers, the same whenever they are asked; ``asked``, ``others``: see :class:`Facts`.

    ``then`` puts the RWKU attack's word before retained questions; it is asked where answers cost next to nothing.
    """
    forget, retained = deletion.forget, deletion.after
    draw = np.random.default_rng([seed, len(retained)])
    if asked is not None and len(retained) > asked:
        retained = retained.at(np.sort(draw.choice(len(retained), asked, replace=False)))
    first = forget.at(draw.integers(len(forget), size=len(retained)))
    found = {
        "forget": forget,
        "forget_worded": forget.worded(trigger_prompts(forget.records)),
        "clean": retained,
        "trigger": retained.worded(trigger_prompts(retained.records)),
        "mixed": task.pair(first, retained),
    }
    if asked is None:
        found["then"] = retained.worded([{**r, "question": f"then {r['question']}"} for r in retained.records])
    return found if others is None else {**found, "real": others}


def right_words(task: Language, model: nn.Module, texts: Texts) -> np.ndarray:
    """1 where the likeliest first token of the answer is the right one: answers of the micro world have one word.

    Raises:
        FailedError: if outputs are not finite.
    """
    with torch.no_grad():
        logits, labels = task.answered(model, dict(model.named_parameters()), task.encode(texts.records))
    _must_be_finite(logits)
    first = (labels != NO_LABEL).float().argmax(1, keepdim=True)
    return (logits.argmax(-1) == labels).gather(1, first).squeeze(1).double().cpu().numpy()


def rouge(tokens: int) -> Ask:
    """ROUGE-L recall of what the model says, at most so many tokens of it."""

    def ask(task: Language, model: nn.Module, texts: Texts) -> np.ndarray:
        from expunge.metrics.language_text import rouge_l
        from expunge.tasks.generation import generate

        with torch.no_grad():
            part = task.encode(texts.records[:1])
            _must_be_finite(task.answered(model, dict(model.named_parameters()), part)[0])
        said = generate(task, model, texts.records, max_new_tokens=tokens)
        return rouge_l([record["answer"] for record in texts.records], said)

    return ask


def _must_be_finite(logits: Any) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise FailedError("The outputs of the model are not finite. Take smaller learning rates.")
