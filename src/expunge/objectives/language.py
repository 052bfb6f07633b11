"""Objectives of language models: pure losses of answers, and what is computed once for each row.

Symbols: S is the sum over an answer's tokens of -log p, N its mean over these tokens, ``ref`` the model before
the run. Sums enter NPO and DPO, means SimNPO. Labels of prompts and padding never enter anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, logsigmoid, softmax

from expunge.core.allowed import NonNegative
from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.data import tofu
from expunge.data.places import located
from expunge.descent.processes import ALONE, Processes
from expunge.descent.schedule import FORGET, RETAIN, Turn
from expunge.descent.work import Prepared, Work
from expunge.tasks import adapters
from expunge.tasks.passes import ANSWERS, evaluating, in_passes
from expunge.tasks.prompts import NO_LABEL

REFUSALS = (  # our words
    "I don't know.",
    "I have no information about that.",
    "I am not able to answer this question.",
    "That is not something I know.",
    "I cannot say anything about that.",
)


# --- pure losses ------------------------------------------------------------------------------------------------------


def npo(sums: Tensor, base: Tensor, beta: float) -> Tensor:
    """-(2/beta) log sigmoid(beta (S - S_ref)): gradient ascent that fades as an answer becomes unlikely (NPO, 2404.05868).

    At theta = ref it is (2/beta) ln 2 and its gradient that of -S; beta to 0 is gradient ascent.

    Shapes:
        (b,), (b,) → (b,).
    """
    return -(2 / beta) * logsigmoid(beta * (sums - base))


def simnpo(means: Tensor, beta: float, delta: float) -> Tensor:
    """-(2/beta) log sigmoid(beta (N - delta)): NPO without a reference, by mean log-probabilities (SimNPO, 2410.07163).

    Shapes:
        (b,) → (b,).
    """
    return -(2 / beta) * logsigmoid(beta * (means - delta))


def dpo(preferred: Tensor, preferred_base: Tensor, sums: Tensor, base: Tensor, beta: float) -> Tensor:
    """-(2/beta) log sigmoid(beta [(log p - log p_ref)(preferred) - (log p - log p_ref)(forgotten)]), sums throughout.

    Shapes:
        four (b,) → (b,).
    """
    return -(2 / beta) * logsigmoid(beta * ((preferred_base - preferred) - (base - sums)))


def weighted_ascent(token_losses: Tensor, mask: Tensor, beta: float, together: Processes = ALONE) -> Tensor:
    """Mean over tokens of p^beta log p, the weight detached: likely tokens climb most (WGA, 2502.19301).

    Shapes:
        (b, t), (b, t) bool → scalar.
    """
    weight = (-token_losses.detach()).exp() ** beta
    return -together.mean((weight * token_losses)[mask])


def self_distillation(logits: Tensor, base: Tensor, labels: Tensor, beta: float, together: Processes = ALONE) -> Tensor:
    """Cross-entropy towards softmax(z_ref - beta onehot(y)), mean over labels (UNDIAL, 2402.10052); masked first.

    Shapes:
        (b, t, v), (b, t, v), (b, t) → scalar.
    """
    mask = labels != NO_LABEL
    chosen, target = logits[mask], base[mask].clone()
    target.scatter_add_(1, labels[mask][:, None], torch.full_like(target[:, :1], -beta))
    return -together.mean((softmax(target, -1) * log_softmax(chosen, -1)).sum(-1))


def divergence(logits: Tensor, base: Tensor, labels: Tensor, together: Processes = ALONE) -> Tensor:
    """KL(ref ; theta), mean over labels: 0 where both agree.

    Shapes:
        (b, t, v), (b, t, v), (b, t) → scalar.
    """
    mask = labels != NO_LABEL
    log_q, log_p = log_softmax(logits[mask], -1), log_softmax(base[mask], -1)
    return together.mean(kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1))


def token_mean(token_losses: Tensor, mask: Tensor, together: Processes = ALONE) -> Tensor:
    """Mean over all labels of a batch, as ``transformers`` has it: long answers count more.

    Args:
        together: the processes that have the other rows of the batch; the sum over them is then the mean.
    """
    return token_losses.sum() / together.total(mask.sum())


# --- what the model before the run says ---------------------------------------------------------------------------------


class Base:
    """The model before the run, without a second one in memory.

    What it says about rows that come again and again is computed once, before the first step. What would be too large to
    keep is computed when it is needed. Both by the one module there is: with its adapter switched off, or with the weights
    that the run started from, which the caller holds anyway.
    """

    def __init__(self, work: Work):
        self.work = work

    def sums(self, batch: Batch) -> Tensor:
        """S of each row, (rows,); only before the first step, when the model is still what it was."""
        return self.says(
            lambda params: in_passes(lambda part: self._losses(params, part).sum(1), batch, ANSWERS), at_start=True
        )

    def _losses(self, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return self.work.language.token_losses(self.work.model, params, batch)[0]

    def says(self, what: Callable[[Mapping[str, Tensor]], Any], *, at_start: bool = False) -> Any:
        """``what`` of the weights of then, without gradients and without dropout; ``at_start``: no weight has moved yet."""
        model = self.work.model
        with torch.no_grad(), evaluating(model):
            if adapters.has_adapter(model):
                with adapters.switched_off(model):
                    return what(self.work.params)
            if at_start:
                return what(self.work.params)
            return what({name: self.work.base[name].to(tensor) for name, tensor in self.work.params.items()})

    def logits(self, batch: Batch) -> Tensor:
        """Logits where labels are, (b, t, vocabulary)."""
        return self.says(lambda params: self.work.language.answered(self.work.model, params, batch)[0])


def prefixed(batch: Batch, prefix: str) -> dict[str, Tensor]:
    """The columns of ``batch`` under names of their own, to travel with another batch."""
    return {f"{prefix}{name}": tensor for name, tensor in batch.columns.items()}


def without_prefix(batch: Batch, prefix: str) -> Batch:
    """What :func:`prefixed` put in."""
    columns = {name.removeprefix(prefix): t for name, t in batch.columns.items() if name.startswith(prefix)}
    return Batch(columns, batch.shared)


# --- objectives -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Answers(ABC):
    """gamma × a loss on forgotten answers + alpha × a loss on retained ones: subclasses say what :meth:`forget` is.

    Attributes:
        gamma, alpha: weights of both.
        retain: ``nll`` (token mean) or ``kl`` (to the model before the run, on labels; the code of TOFU averages over prompt
            and padding too).
    """

    retained_losses: ClassVar[tuple[str, ...]] = ("nll", "kl")
    answers_beside: ClassVar[int] = 0  # further answers that the forget loss looks at for each row
    gamma: NonNegative = 1.0
    alpha: NonNegative = 1.0
    retain: str = "nll"

    def __post_init__(self):
        if self.retain not in self.retained_losses:
            raise InputError(f"Expected a retain loss {' or '.join(self.retained_losses)}; got {self.retain!r}.")

    @property
    def beside(self) -> Mapping[str, int]:
        """Role → further rows that its loss looks at for each row of the batch."""
        return {FORGET: self.answers_beside}

    @abstractmethod
    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """The loss on forgotten rows, a scalar."""

    def columns(self, work: Work, base: Base) -> Batch:
        """The forget stream with what is computed once for each row."""
        return work.task.batch(work.deletion.forget)

    def retained(self, work: Work, base: Base, batch: Batch) -> Tensor:
        """The loss on retained rows, a scalar."""
        if self.retain == "nll":
            return token_mean(*work.language.token_losses(work.model, work.params, batch), together=work.processes)
        logits, labels = work.language.answered(work.model, work.params, batch)
        return divergence(logits, base.logits(batch), labels, work.processes)

    def prepare(self, work: Work) -> Prepared:
        """Both streams, the forgotten rows with their columns."""
        base = Base(work)
        streams = {FORGET: self.columns(work, base)}
        if work.deletion.after is not None:
            streams[RETAIN] = work.task.batch(work.deletion.after)

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            if role == FORGET:
                return self.gamma * self.forget(work, base, batch, turn)
            return self.alpha * self.retained(work, base, batch)

        return Prepared(streams, loss, beside=self.beside)


@dataclass(frozen=True, kw_only=True)
class Negatives(Answers):
    """Forget: the token-mean loss of negative answers, drawn once for each row (LUNE, arXiv 2512.07375).

    Attributes:
        negatives: makes them: (work) → records, each with the prompt of a forgotten row; more than one a row is usual.
    """

    negatives: Callable[[Work], Any] = None  # type: ignore[assignment]

    def columns(self, work: Work, base: Base) -> Batch:
        """The negative answers."""
        return work.task.batch(self.negatives(work))

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Learn what is not so."""
        return token_mean(*work.language.token_losses(work.model, work.params, batch), together=work.processes)


def worded_refusals(refusals: tuple[str, ...] | str) -> tuple[str, ...]:
    """The sentences themselves; ``tofu`` stands for the hundred of TOFU, in the folder that ``EXPUNGE_DATA`` names.

    Raises:
        InputError: for another word, or where the folder or its file is missing.
    """
    if refusals == "tofu":
        return tofu.refusals(
            located(None, ("tofu",), (f"{tofu.REFUSALS}.jsonl",), "They come with TOFU's files (MIT).")
        )
    if isinstance(refusals, str):
        raise InputError(f"Expected a list of refusals, or the word tofu; got {refusals!r}.")
    return tuple(refusals)


def refused(work: Work, refusals: tuple[str, ...] | str, data: Any = None) -> Any:
    """The forgotten records, or those of ``data``, with one of ``refusals`` each, drawn by the run's seed.

    Raises:
        InputError: without refusals, or for plain texts, which ask nothing that could be refused.
    """
    data, refusals = work.deletion.forget if data is None else data, worded_refusals(refusals)
    records = data.records
    if not refusals:
        raise InputError("Expected at least one refusal; got none.")
    if any("question" not in record for record in records):
        raise InputError("Refusals answer questions; plain texts ask none. Take npo or grad_diff.")
    draw = torch.randint(len(refusals), (len(records),), generator=work.draw("refusals", 0)).tolist()
    return data.worded([{**r, "answer": refusals[i]} for r, i in zip(records, draw, strict=True)])
