"""Teaching a language model records by heart: the recipe of source models and of their retrained twins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.core.trained import Artifact, Trained
from expunge.data import micro_world
from expunge.data.texts import Texts
from expunge.tasks import adapters
from expunge.training.batches import epoch_order
from expunge.training.facts import declared, enforced, prepared

WINDOW = 8  # batches that are sorted by length together
# name → (records, draw, all records) → the records as this epoch words them
WORDINGS: Mapping[str, Callable[[Sequence[Record], np.random.Generator, Sequence[Record]], list[Record]]] = {
    "micro": micro_world.varied
}


@dataclass(frozen=True)
class LanguageTraining:
    """Mini-batches of AdamW on answers, one mean over rows of their mean token losses a step.

    Attributes:
        epochs: passes over the records; ``steps``: instead of epochs.
        lr: peak rate; it rises over the share ``warmup`` of the steps, then falls as a cosine.
        wording: name of a way to word questions anew in each epoch (:data:`WORDINGS`); ``as written`` leaves them.
        lora: settings of PEFT's ``LoraConfig`` for an adapter that is merged at the end; ``None``: all weights move.
    """

    epochs: int = 1
    steps: int | None = None
    lr: float = 1e-3
    batch_size: int = 16
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0
    wording: str = "as written"
    lora: Mapping[str, Any] | None = None

    def __post_init__(self):
        if self.wording not in ("as written", *WORDINGS):
            raise InputError(f"Expected a wording among as written, {', '.join(WORDINGS)}; got {self.wording!r}.")
        if self.epochs < 1 or self.batch_size < 1 or (self.steps is not None and self.steps < 1):
            raise InputError(f"Expected epochs, steps and batch_size of at least 1; got {asdict(self)}.")

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "language training", **asdict(self)}

    def fit(self, task: Any, data: Texts, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train from the task's start, or from a fresh model. Formal guarantee: none."""
        model = task.build(task.start, seed=seed, share=self.lora is not None and task.start is not None)
        if self.lora is not None:
            adapters.inject(model, self.lora, seed)
        moving = [tensor for tensor in model.parameters() if tensor.requires_grad]
        optimizer = torch.optim.AdamW(moving, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        per_epoch = -(-len(data) // self.batch_size)
        steps = self.steps or self.epochs * per_epoch
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, self.warmup))
        model.train()
        params = dict(model.named_parameters())
        with torch.random.fork_rng(devices=[]):
            for step in range(steps):
                torch.manual_seed(seed * 1_000_003 + step)  # dropout draws from the global state
                loss = task.losses(model, params, self._batch(task, data, seed, step, per_epoch)).mean()
                if not math.isfinite(float(loss.detach())):
                    raise InputError(
                        f"The loss was not finite at step {step + 1} of {steps}; take a smaller learning rate."
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(moving, self.clip)
                optimizer.step()
                rate.step()
                optimizer.zero_grad(set_to_none=True)
                if watch and ((step + 1) % max(1, steps // 100) == 0 or step + 1 == steps):
                    watch("train", step + 1, steps)
        if self.lora is not None:
            adapters.merge(model)
        final = {name: tensor.detach().clone() for name, tensor in task.released(model).items()}
        facts = {
            "optimizer": enforced("adamw"),
            "selection": enforced("fixed", "the number of steps was fixed before the first"),
            "rows": enforced(len(data)),
            "start": enforced("independent") if task.start is None else declared("pretrained", "on data unknown here"),
            **prepared(data),
        }
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed)

    def _batch(self, task: Any, data: Texts, seed: int, step: int, per_epoch: int) -> Any:
        epoch, at = divmod(step, per_epoch)
        if self.wording == "as written":
            batch = task.batch(data)
            index = alike(batch["lengths"], self.batch_size, seed, epoch + 1)[at]
            return {name: tensor.index_select(0, index) for name, tensor in batch.items()}
        index = epoch_order(len(data), seed, epoch + 1)[at * self.batch_size : (at + 1) * self.batch_size]
        draw = np.random.default_rng([seed, step])
        return task.encode(WORDINGS[self.wording](data.at(index).records, draw, data.records))


def alike(lengths: Tensor, size: int, seed: int, epoch: int) -> list[Tensor]:
    """The batches of an epoch, each of rows of like length, so that little is filled up.

    Rows are shuffled, sorted by length within windows of several batches, and the batches are shuffled.
    """
    batches: list[Tensor] = []
    for window in epoch_order(len(lengths), seed, epoch).split(size * WINDOW):
        batches += window[lengths.cpu()[window].argsort(stable=True)].split(size)
    return [batches[i] for i in epoch_order(len(batches), seed + 1, epoch).tolist()]


def _rate(step: int, steps: int, warmup: float) -> float:
    warm = math.ceil(warmup * steps)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2
