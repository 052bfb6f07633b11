"""What a language model makes of right answers, token by token, the true beginning before each (teacher forcing)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.core.task import Autoregressive
from expunge.core.texts import Record
from expunge.data.texts import Texts
from expunge.tasks.language import in_batches
from expunge.tasks.passes import ANSWERS, evaluating
from expunge.tasks.prompts import NO_LABEL

ENDLESS = 10**9  # a context that cuts nothing


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """Token scores of the answers that have tokens, in the order they came.

    ``metrics.language`` and ``metrics.language_memory`` take these lists as they are.

    Attributes:
        kept: (n,), positions of the answers that are scored here.
        labels: n vectors: the tokens of each answer, end token included (the context may have cut it off).
        log_probs: n vectors: log p of each label.
        predicted: n vectors: the likeliest token at each place.
        means, variances: n vectors each: mean and variance of log p under the model's own distribution; ``None`` where
            nobody asked.
        empty: how many answers had no token besides the end token; ``no_room``: how many lost all to the context.
        cut: how many of those kept lost their end to the context.
        end: the end token, which labels finish with unless they were cut.
    """

    kept: np.ndarray
    labels: tuple[np.ndarray, ...]
    log_probs: tuple[np.ndarray, ...]
    predicted: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...] | None
    variances: tuple[np.ndarray, ...] | None
    empty: int
    no_room: int
    cut: int
    end: int

    @property
    def nll(self) -> np.ndarray:
        """N: minus the mean log p over the tokens of each answer, (n,)."""
        return np.array([-float(row.mean()) for row in self.log_probs])

    def at(self, positions: Sequence[int] | np.ndarray) -> AnswerScores:
        """Some of the scored answers; the counts stay those of all."""
        columns = {}
        for name in ("labels", "log_probs", "predicted", "means", "variances"):
            rows = getattr(self, name)
            columns[name] = None if rows is None else tuple(rows[i] for i in positions)
        return replace(self, kept=self.kept[np.asarray(positions, dtype=np.int64)], **columns)


@torch.no_grad()
def answer_scores(
    task: Autoregressive,
    model: nn.Module,
    texts: Texts | Sequence[Record],
    *,
    batch_size: int = ANSWERS,
    distribution: bool = False,
) -> AnswerScores:
    """Score the answers of ``texts``: likelihoods in single precision, whatever the weights are in.

    Answers without a token of their own and prompts that fill the context are left out and counted: a score of 0 would
    pull every mean. Rows are sorted by length and filled up on the right; the size of a batch changes nothing beyond
    rounding.

    Args:
        distribution: also mean and variance of log p, which Min-K++ needs.

    Raises:
        InputError: if the model gives NaN or infinity, or a prompt and its answer share a token.

    Source: OpenUnlearning (arXiv 2506.12618), whose scores are made of these. Formal guarantee: none.
    """
    records = texts.records if isinstance(texts, Texts) else list(texts)
    filled = [i for i, record in enumerate(records) if record.get("answer", record.get("text", "")).strip()]
    whole = replace(task.prompts, context=ENDLESS).tokens([records[i] for i in filled])
    kept, length = [], {}
    empty = len(records) - len(filled)
    no_room = cut = 0
    for i, (tokens, start) in zip(filled, whole, strict=True):
        if len(tokens) - max(start, 1) < 2:  # the end token alone; a first token has nothing before it
            empty += 1
        elif start >= task.prompts.context:
            no_room += 1
        else:
            kept.append(i)
            length[i] = len(tokens)
            cut += len(tokens) > task.prompts.context
    order = sorted(kept, key=lambda i: -length[i])  # longest first: what needs most memory
    scored: dict[int, tuple[np.ndarray, ...]] = {}
    params = dict(model.named_parameters())
    with evaluating(model):
        for part in in_batches(len(order), batch_size):
            rows = _batch(task, model, params, [records[i] for i in order[part]], distribution)
            scored.update(zip(order[part], rows, strict=True))
    labels, log_probs, predicted, *moments = [
        tuple(scored[i][c] for i in kept) for c in range(5 if distribution else 3)
    ]
    means, variances = moments or (None, None)
    places = np.array(kept, dtype=np.int64)
    end = task.prompts.end_token
    return AnswerScores(places, labels, log_probs, predicted, means, variances, empty, no_room, cut, end)


def gradient_norms(task: Autoregressive, model: nn.Module, texts: Texts | Sequence[Record]) -> np.ndarray:
    """The mean over weight tensors of the Euclidean norm of each answer's gradient: low for members. One row at a time.

    The gradient is that of the mean loss over the answer's tokens without the end token.

    Shapes:
        n records with room for an answer → (n,).

    Raises:
        InputError: as :meth:`Language.encode`.

    Source: OpenUnlearning (arXiv 2506.12618), ``gradnorm``. Formal guarantee: none.
    """
    records = texts.records if isinstance(texts, Texts) else texts
    params = dict(model.named_parameters())
    moving = [tensor for tensor in params.values() if tensor.requires_grad]
    with evaluating(model):
        return np.array([_gradient_norm(task, model, params, moving, record) for record in records])


def _gradient_norm(
    task: Autoregressive, model: nn.Module, params: Mapping[str, Tensor], moving: Sequence[Tensor], record: Record
) -> float:
    batch = task.encode([record])
    labels = batch["labels"].clone()
    if (labels[0] != NO_LABEL).sum() > 1:
        labels[0, -1].masked_fill_(labels[0, -1] == task.prompts.end_token, NO_LABEL)
    gradients = torch.autograd.grad(
        task.losses(model, params, batch.with_columns(labels=labels)).sum(), moving, materialize_grads=True
    )
    return float(torch.stack([gradient.float().norm() for gradient in gradients]).mean())


def _batch(
    task: Autoregressive, model: nn.Module, params: Mapping[str, Tensor], records: Sequence[Any], distribution: bool
) -> list[tuple[np.ndarray, ...]]:
    logits, labels = task.answered(model, params, task.encode(records))
    answer = labels != NO_LABEL
    logits, truth = logits[answer], labels[answer]  # (tokens of the batch, vocabulary)
    logs = torch.log_softmax(logits, -1)
    columns = [truth, logs.gather(1, truth[:, None]).squeeze(1), logits.argmax(-1)]
    if distribution:
        p = logs.exp()
        mean = (p * logs).sum(1)
        columns += [mean, (p * (logs - mean[:, None]).square()).sum(1)]
    if not bool(torch.isfinite(columns[1]).all()):
        raise InputError("Expected finite likelihoods; the model gives NaN or infinity. Its weights are not usable.")
    counts = answer.sum(1).tolist()
    split = [column.cpu().split(counts) for column in columns]
    return [tuple(piece.numpy() for piece in row) for row in zip(*split, strict=True)]
