"""Prefer a refusal over the forgotten answer.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core.allowed import Positive
from expunge.core.batch import Batch
from expunge.core.method import Context, Estimate, Paper, Refusal
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced, without_questions
from expunge.objectives.language import REFUSALS, Base, dpo, prefixed, refused, without_prefix


@dataclass(frozen=True, kw_only=True)
class DPO(Balanced):
    """``gamma × DPO loss (refusal over answer) + alpha × retain loss``; both references are computed once.

    Attributes:
        beta: 0.1 (OpenUnlearning, arXiv 2506.12618).
        refusals: as for ``idk``.
    """

    name: ClassVar[str] = "dpo"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Direct preference optimization: your language model is secretly a reward model",
            "Rafailov et al., NeurIPS 2023",
            "2305.18290",
        ),
        Paper("TOFU: a task of fictitious unlearning for LLMs", "Maini et al., COLM 2024; IdkDPO", "2401.06121"),
    )
    answers_beside: ClassVar[int] = 1  # the refusals
    beta: Positive = 0.1
    refusals: tuple[str, ...] | str = REFUSALS

    def columns(self, work: Work, base: Base) -> Batch:
        """Answers and refusals side by side, with S_ref of both."""
        answers, refusals = work.task.batch(work.deletion.forget), work.task.batch(refused(work, self.refusals))
        sums = {"base": base.sums(answers), "preferred_base": base.sums(refusals)}
        return answers.with_columns(**prefixed(refusals, "refusal_"), **sums)

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """DPO on summed log-probabilities, mean over rows."""
        sums = work.language.token_losses(work.model, work.params, batch)[0].sum(1)
        preferred = work.language.token_losses(work.model, work.params, without_prefix(batch, "refusal_"))[0].sum(1)
        return work.processes.mean(dpo(preferred, batch["preferred_base"], sums, batch["base"], self.beta))

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses plain texts."""
        return without_questions(context.deletion.forget) or super().check(context)
