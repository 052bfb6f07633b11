"""Relearning: how many steps on a few records bring the other forgotten ones back.

A model that has only hidden its records finds them again as soon as it is trained on some of them, or on harmless text. One
that never saw them learns the few that it is shown and no more; so every curve has a twin, retrained without the records and
then taught the same rows in the same order. At a quarter of a million weights nothing comes back (measured by us).

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.attacks.recall import Score
from expunge.core.errors import InputError
from expunge.data.texts import Texts
from expunge.tasks.language import Language
from expunge.tasks.seeds import seed_global
from expunge.training.batches import epoch_order
from expunge.training.optimizers import AdamW

STEPS = (0, 10, 50, 100, 250, 500)  # our choice
LR = 2e-5  # OpenUnlearning, arXiv 2506.12618, for 1.2 billion weights; 3e-4 in our micro world
BATCH = 32  # effective batch of TOFU's runs
DECAY, CLIP = 0.01, 1.0  # of TOFU's runs and of the Trainer they use


@dataclass(frozen=True)
class RelearningPoint:
    """Scores after ``steps`` steps: name → value."""

    steps: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class RelearningCurves:
    """How both models learn, at the same steps.

    Attributes:
        unlearned, retrained: the curves; ``retrained`` is empty without a twin.
        records: how many records were shown.
        lr, batch_size, seed: of the steps of both.
    """

    unlearned: tuple[RelearningPoint, ...]
    retrained: tuple[RelearningPoint, ...]
    records: int
    lr: float
    batch_size: int
    seed: int

    def rise(self, name: str, step: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """(before, after ``step`` steps) of score ``name``, of the unlearned model and of the twin: what
        :func:`~expunge.metrics.metric_quality.relearning_robustness` takes.

        Raises:
            InputError: without a twin, for a step that was not looked at, or without a look at step 0.
        """
        if not self.retrained:
            raise InputError("A rise is read beside that of a retrained twin; give one to the attack.")
        found = []
        for curve in (self.unlearned, self.retrained):
            at = {point.steps: point.scores for point in curve}
            if missing := [each for each in (0, step) if each not in at]:
                raise InputError(f"Expected a look at step {missing[0]}; the steps are {', '.join(map(str, at))}.")
            found.append((float(at[0][name]), float(at[step][name])))
        return found[0], found[1]


def relearning_attack(
    task: Language,
    unlearned: Mapping[str, Tensor],
    records: Texts,
    score: Score,
    *,
    retrained: Mapping[str, Tensor] | None = None,
    steps: Sequence[int] = STEPS,
    lr: float = LR,
    batch_size: int = BATCH,
    seed: int = 0,
) -> RelearningCurves:
    """Train both models on ``records`` alone and score them on the way.

    Args:
        task: how the models are run.
        unlearned: the weights to attack.
        records: what is shown: some of the forgotten records, or other people's for *benign* relearning.
        score: weights → named numbers; :func:`~expunge.attacks.recall.recall_of` over the records shown and over the
            forgotten ones that are not.
        retrained: a model trained without the forgotten records.
        steps: after how many steps both are scored, rising; 0 is before the first.
        lr: of AdamW, constant.
        batch_size, seed: records in a step, and the seed of their order.

    Raises:
        InputError: for no records, steps that do not rise, or a loss that is not finite.

    Source: OpenUnlearning (arXiv 2506.12618); the retrained twin beside it is ours.
    """
    if not len(records) or batch_size < 1 or not lr > 0:
        raise InputError(
            f"Expected records, lr above 0 and batch_size of at least 1; got {len(records)}, {lr}, {batch_size}."
        )
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 0:
        raise InputError(f"Expected rising numbers of steps from 0 on; got {list(steps)}.")
    curves = [
        () if tensors is None else _curve(task, tensors, records, score, tuple(steps), lr, batch_size, seed)
        for tensors in (unlearned, retrained)
    ]
    return RelearningCurves(curves[0], curves[1], len(records), lr, batch_size, seed)


def _curve(
    task: Language,
    tensors: Mapping[str, Tensor],
    records: Texts,
    score: Score,
    looks: tuple[int, ...],
    lr: float,
    batch_size: int,
    seed: int,
) -> tuple[RelearningPoint, ...]:
    model = task.build(tensors).train()
    params = dict(model.named_parameters())
    optimizer = AdamW(params.values(), lr, weight_decay=DECAY)
    batch, per_pass = task.batch(records), -(-len(records) // batch_size)
    points = []
    with torch.random.fork_rng(devices=["cuda"] if str(task.device).startswith("cuda") else []):
        for step in range(looks[-1] + 1):
            if step in looks:
                now = {name: tensor.detach().clone() for name, tensor in task.released(model).items()}
                points.append(RelearningPoint(step, dict(score(now))))
            if step == looks[-1]:
                break
            seed_global(seed * 1_000_003 + step, task.device)  # dropout draws from the global state
            number, at = divmod(step, per_pass)
            index = epoch_order(len(records), seed, number + 1)[at * batch_size : (at + 1) * batch_size]
            loss = task.losses(model, params, batch.take(index)).mean()
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"The loss was not finite at step {step + 1}; take a smaller learning rate than {lr:g}."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params.values(), CLIP)
            optimizer.step()
    return tuple(points)
