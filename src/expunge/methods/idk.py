"""Answer forgotten questions with a refusal.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.method import Context, Estimate, Paper, Refusal
from expunge.descent.schedule import FORGET, RETAIN, Turn
from expunge.descent.work import Prepared, Work
from expunge.methods.by_language import Balanced, without_questions
from expunge.objectives.language import REFUSALS, Base, refused, token_mean
from expunge.tasks.prompts import NO_LABEL


@dataclass(frozen=True, kw_only=True)
class IDK(Balanced):
    """One mean over the tokens of refusals (weight ``gamma``) and of retained answers (weight ``alpha``) together.

    In the code of TOFU, SimNPO and GRUN both batches are joined and ``transformers`` takes one mean over all their labels, so
    that short refusals count less than long answers. So it is here wherever both come in one step. Steps that alternate
    (``dual``) have a mean each; so has a retain loss other than ``nll``, which is no mean of token losses.

    Attributes:
        refusals: one is drawn for each question; the default is ours; ``tofu`` takes the hundred that come with TOFU's files.
    """

    name: ClassVar[str] = "idk"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("TOFU: a task of fictitious unlearning for LLMs", "Maini et al., COLM 2024", "2401.06121"),
    )
    refusals: tuple[str, ...] | str = REFUSALS

    def columns(self, work: Work, base: Base) -> Batch:
        """The prompts with a refusal each, drawn once."""
        return work.task.batch(refused(work, self.refusals))

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Learn the refusal."""
        return token_mean(*work.language.token_losses(work.model, work.params, batch), together=work.processes)

    def prepare(self, work: Work) -> Prepared:
        """Both streams; each loss is divided by the labels of all rows of its step."""
        ready = super().prepare(work)
        if self.retain != "nll" or not self.alpha or RETAIN not in ready.streams:
            return ready
        weights = {FORGET: self.gamma, RETAIN: self.alpha}
        labels = {role: (ready.streams[role]["labels"] != NO_LABEL).sum(1).cpu() for role in weights}

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            values, _ = work.language.token_losses(work.model, work.params, batch)
            count = sum(int(labels[name][index.cpu()].sum()) for name, index in turn.index.items())
            return weights[role] * values.sum() / work.processes.total(count)

        return replace(ready, loss=loss)

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses plain texts."""
        return without_questions(context.deletion.forget) or super().check(context)
