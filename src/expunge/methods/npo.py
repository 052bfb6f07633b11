"""Negative preference optimisation: ascent that stops pushing what is unlikely already.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from expunge.core.allowed import Count, Positive
from expunge.core.batch import Batch
from expunge.core.data import Deletion
from expunge.core.method import Paper
from expunge.core.trained import Trained
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import EPOCHS, LR, Balanced
from expunge.objectives.language import Base, npo
from expunge.training.language_settings import LanguageSettings

STEPS = 60  # least; in the common setting forget01 (40 questions) has 20 and forget10 has 130
SHARE = 1 / 8  # of the rate that the model was taught with


@dataclass(frozen=True, kw_only=True)
class NPO(Balanced):
    """``gamma × -(2/beta) log sigmoid(beta (S - S_ref)) + alpha × retain loss``; S_ref is computed once.

    Attributes:
        epochs: ``None``: those of the common setting, and more where they come to fewer than ``STEPS`` steps.
        lr: ``None``: that of the common setting, or a share (``SHARE``) of the rate of the recipe that taught the model, if it
            is known and comes to more, and if all weights move in both or an adapter in both. Both are our choice, measured in
            ``docs/language.md``.
        beta: 0.1 (OpenUnlearning, arXiv 2506.12618). Other code of the authors of SU (renjie3/GRUN) has it with gamma 0.1375.
    """

    name: ClassVar[str] = "npo"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Negative preference optimization: from catastrophic collapse to effective unlearning",
            "Zhang et al., COLM 2024",
            "2404.05868",
        ),
    )
    epochs: Count | None = None
    lr: Positive | None = None
    beta: Positive = 0.1

    def settled(self, trained: Trained, deletion: Deletion) -> NPO:
        """Steps and learning rate as they will be."""
        recipe: Any = trained.recipe
        made = self
        if made.epochs is None and made.steps is None:
            made = replace(made, steps=max(STEPS, EPOCHS * -(-len(deletion.forget) // self.batch_size)))
        if made.lr is None:
            known = isinstance(recipe, LanguageSettings) and (recipe.lora is None) == (self.lora is None)
            made = replace(made, lr=max(LR, SHARE * recipe.lr if known else 0.0))
        return made

    def columns(self, work: Work, base: Base) -> Batch:
        """S_ref of every row."""
        batch = work.task.batch(work.deletion.forget)
        return batch.with_columns(base=base.sums(batch))

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """NPO on summed log-probabilities, mean over rows."""
        values, _ = work.language.token_losses(work.model, work.params, batch)
        return work.processes.mean(npo(values.sum(1), batch["base"], self.beta))
