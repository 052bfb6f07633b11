"""Scope-aware unlearning (SU): a retained question must be answered also where a forgotten one stands before it.

Paper: *Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy* (NeurIPS 2025, arXiv 2506.00359), eq. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Autoregressive
from expunge.descent.schedule import FORGET, RETAIN, Turn
from expunge.descent.work import Objective, Prepared, Work
from expunge.objectives.language import token_mean
from expunge.tasks.prompts import NO_LABEL


@dataclass(frozen=True)
class SU:
    """``L_u + eta E[L_r(y_r | x_f (+) x_r)]`` around any objective, its retain term included.

    Joint prompts are made in each step: the batch's retained questions, each behind one of the batch's forgotten ones, as
    the request words it. Where forget and retain steps alternate, the forgotten ones are drawn. The forget answer is nowhere
    in them. With ``eta = 0`` it is the objective itself, bit for bit.

    Attributes:
        eta: weight of the scope term; on TOFU the paper takes 5 for NPO and IDK, 2 to 12 for gradient difference.

    Formal guarantee: none.
    """

    objective: Objective
    eta: float = 5.0

    def __post_init__(self):
        if self.eta < 0:
            raise InputError(f"Expected eta of 0 or more; got {self.eta}.")

    @property
    def beside(self) -> Mapping[str, int]:
        """Role → further rows that its loss looks at for each row of the batch: a joint prompt for each retained row."""
        inner = dict(getattr(self.objective, "beside", {}))
        return {**inner, RETAIN: inner.get(RETAIN, 0) + 1} if self.eta else inner

    def prepare(self, work: Work) -> Prepared:
        """The objective's streams, the retained one with its positions."""
        inner = self.objective.prepare(work)
        if not self.eta:
            return inner
        if work.deletion.after is None:
            raise InputError("The scope term needs retained records; they are unknown here.")
        forget, retain = work.deletion.forget, work.deletion.after
        if len(inner.streams[FORGET]) != len(forget):
            raise InputError(
                "The scope term needs one row for each forgotten record; this objective has another number."
            )
        position = torch.arange(len(retain))

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            value = inner.loss(role, batch, turn)
            if role != RETAIN:
                return value
            rows = joint_batch(work, forget, retain, turn, batch["position"])
            return value + self.eta * token_mean(
                *work.language.token_losses(work.model, work.params, rows), together=work.processes
            )

        streams = {**inner.streams, RETAIN: inner.streams[RETAIN].with_columns(position=position)}
        return Prepared(streams, loss, inner.refresh, inner.state, inner.gradient_evaluations, self.beside)


def joint_batch(work: Work, forget: Any, retain: Any, turn: Turn, position: Tensor) -> Batch:
    """The scope rows of one step: as many as the retain batch has, over the forget batch's questions in turn."""
    if FORGET in turn.index:
        first = turn.index[FORGET].cpu()
        first = first[torch.arange(len(position)) % len(first)]
    else:
        first = torch.randint(len(forget), (len(position),), generator=work.draw("scope", turn.step))
    return work.task.batch(work.language.pair(forget.at(first), retain.at(position.cpu())), range(len(position)))


def too_long(task: Autoregressive, forget: Any, retain: Any) -> str | None:
    """Why some joint prompt cannot be made, or ``None``: records of two kinds, or the longest two leave no room to answer."""
    if len({"question" in record for record in (*forget.records, *retain.records)}) > 1:
        return "Joint prompts need questions on both sides, or plain texts on both sides; here are both."
    longest = [
        rows.at([int(_asked(task.batch(rows), "question" in rows.records[0]).argmax())]) for rows in (forget, retain)
    ]
    if not task.prompts.fitting(task.pair(*longest).records).dropped:
        return None
    return (
        f"The longest forgotten and the longest retained question leave no room for an answer in {task.prompts.context} "
        "tokens when they stand in one prompt."
    )


def _asked(batch: Batch, question: bool) -> Tensor:
    """How many tokens of each row a joint prompt reads without learning them: a question, or a whole text."""
    return (batch["labels"] != NO_LABEL).int().argmax(1) if question else batch["lengths"]
