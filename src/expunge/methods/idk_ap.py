"""Answer forgotten questions with a refusal, and prefer the answer over a refusal on retained ones.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.core.allowed import Positive
from expunge.core.batch import Batch
from expunge.core.method import Context, Estimate, Paper, Refusal
from expunge.descent.schedule import FORGET, RETAIN
from expunge.descent.work import Prepared, Work
from expunge.methods.by_language import without_questions
from expunge.methods.idk import IDK
from expunge.objectives.language import Base, prefixed, refused, without_prefix


def answer_preference(refusals: Tensor, answers: Tensor, beta: float) -> Tensor:
    """-(1/beta) log sigmoid(beta (S of the refusal - S of the answer)): ln 2 / beta where both are as likely.

    Shapes:
        (b,), (b,) → (b,).
    """
    return -logsigmoid(beta * (refusals - answers)) / beta


@dataclass(frozen=True, kw_only=True)
class IDKAP(IDK):
    """``gamma × token-mean loss of a refusal on forgotten questions + alpha × answer preservation`` (IDK+AP).

    Attributes:
        beta: 0.1: DualOptim's code (arXiv 2504.15827).
        refusals: one is drawn for each forgotten question, and one to be held against each retained answer.
    """

    name: ClassVar[str] = "idk_ap"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("A closer look at machine unlearning for large language models", "Yuan et al., ICLR 2025", "2410.08109"),
    )
    retained_losses: ClassVar[tuple[str, ...]] = ("ap",)
    retain: str = "ap"
    beta: Positive = 0.1

    @property
    def beside(self) -> Mapping[str, int]:
        """A refusal for each retained row."""
        return {FORGET: 0, RETAIN: 1}

    def prepare(self, work: Work) -> Prepared:
        """Both streams; beside each retained answer a refusal of its question, drawn once."""
        ready = super().prepare(work)
        if work.deletion.after is None:
            return ready
        refusals = work.task.batch(refused(work, self.refusals, work.deletion.after))
        retained = ready.streams[RETAIN].with_columns(**prefixed(refusals, "refusal_"))
        return replace(ready, streams={**ready.streams, RETAIN: retained})

    def retained(self, work: Work, base: Base, batch: Batch) -> Tensor:
        """The answer before the refusal, by summed log-probabilities, mean over rows."""
        answers, refusals = (
            work.language.token_losses(work.model, work.params, rows)[0].sum(1)
            for rows in (batch, without_prefix(batch, "refusal_"))
        )
        return work.processes.mean(answer_preference(refusals, answers, self.beta))

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses plain texts on either side."""
        return without_questions(context.deletion.after) or super().check(context)
