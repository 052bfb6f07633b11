"""Teaching a language model records by heart: the recipe of source models and of their retrained twins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.journal import cuts
from expunge.core.method import Once
from expunge.core.task import Autoregressive, Task, autoregressive
from expunge.core.texts import Record
from expunge.core.trained import Artifact, Trained
from expunge.data import micro_world
from expunge.data.texts import Texts
from expunge.tasks import adapters
from expunge.tasks.seeds import seed_global
from expunge.training.annealing import factor
from expunge.training.batches import epoch_order
from expunge.training.decay import matrices_alone
from expunge.training.facts import declared, enforced, prepared
from expunge.training.language_settings import LanguageSettings
from expunge.training.optimizers import AdamW, laid_out_like, state_bytes

_SECONDS = "seconds"
WINDOW = 8  # batches that are sorted by length together
# name → (records, draw, all records) → the records as this epoch words them
WORDINGS: Mapping[str, Callable[[Sequence[Record], np.random.Generator, Sequence[Record]], list[Record]]] = {
    "micro": micro_world.varied
}


@dataclass(frozen=True)
class LanguageTraining(LanguageSettings):
    """The recipe; see :class:`~expunge.training.language_settings.LanguageSettings` for its attributes."""

    def __post_init__(self):
        if self.wording not in ("as written", *WORDINGS):
            raise InputError(f"Expected a wording among as written, {', '.join(WORDINGS)}; got {self.wording!r}.")
        if self.epochs < 1 or self.batch_size < 1 or (self.steps is not None and self.steps < 1):
            raise InputError(f"Expected epochs, steps and batch_size of at least 1; got {asdict(self)}.")
        if not (
            0 < self.lr < math.inf and 0 <= self.weight_decay < math.inf and 0 <= self.warmup <= 1 and self.clip >= 0
        ):
            raise InputError(
                f"Expected lr > 0, weight_decay and clip of at least 0, and warmup from 0 to 1; got {asdict(self)}."
            )

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model, and what kind of trainer they are settings of."""
        return {"recipe": "language training", "steps_like": "transformers", **asdict(self)}

    def fit(self, task: Task, data: Texts, *, seed: int = 0, watch: Any = None, journal: Once | None = None) -> Trained:
        """Train from the task's start, or from a fresh model. Formal guarantee: none.

        Args:
            journal: where the state is stored from time to time, so that a killed run is taken up: it ends with the same bits,
                and the fact ``seconds`` counts earlier tries.
        """
        task = autoregressive(task)
        teaching = _Teaching(self, task, data, seed)
        for until in cuts(teaching.steps, teaching.state_bytes):
            if journal is None or until == teaching.steps:
                teaching.go(until, watch)
            else:
                teaching.stage(journal, until, watch)
        if self.lora is not None:
            adapters.merge(teaching.model)
        final = {name: tensor.detach().clone() for name, tensor in task.released(teaching.model).items()}
        facts = {
            "optimizer": enforced("adamw"),
            "selection": enforced("fixed", "the number of steps was fixed before the first"),
            "rows": enforced(len(data), "counted"),
            "start": declared("independent", "fresh weights as the architecture's own code draws them from the seed")
            if task.start is None
            else declared("pretrained", "on data unknown here"),
            **prepared(data),
        }
        if journal is not None:
            facts["seconds"] = enforced(teaching.seconds)
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed)


class _Teaching:
    """One model while it is taught."""

    def __init__(self, recipe: LanguageTraining, task: Autoregressive, data: Texts, seed: int):
        self.recipe, self.task, self.data, self.seed = recipe, task, data, seed
        self.model = task.build(task.start, seed=seed, share=recipe.lora is not None and task.start is not None)
        if recipe.lora is not None:
            adapters.inject(self.model, recipe.lora, seed)
        self.model.train()
        moving = [tensor for tensor in self.model.parameters() if tensor.requires_grad]
        groups = matrices_alone(moving, recipe.weight_decay)
        self.moving: list[Tensor] = [
            tensor for group in groups for tensor in group["params"]
        ]  # in the order of its state
        self.optimizer = AdamW(groups, recipe.lr)
        self.per_epoch = -(-len(data) // recipe.batch_size)
        self.steps = recipe.steps or recipe.epochs * self.per_epoch
        if self.steps == 1 and recipe.warmup:
            raise InputError(
                "Expected more than one step, or no warm-up, whose first step has a rate of 0; got a single step on "
                f"{len(data)} record(s). Set warmup: 0, or take more steps."
            )
        self.done, self.seconds = 0, 0.0

    @property
    def state_bytes(self) -> int:
        """What is stored: each weight that moves, AdamW's two moments of it, and its master if it has one."""
        return state_bytes(self.moving)

    def stage(self, journal: Once, until: int, watch: Any) -> None:
        """Everything up to step ``until``: done and stored, or taken from the journal."""
        computed = False

        def compute() -> bytes:
            nonlocal computed
            computed = True
            self.go(until, watch)
            return self._stored()

        content = journal.once(f"taught-{until}", compute)
        if not computed:
            self._take_up(content, until)

    def go(self, until: int, watch: Any) -> None:
        """The steps up to ``until``."""
        recipe, params = self.recipe, dict(self.model.named_parameters())
        started = time.perf_counter()
        stride = max(1, self.steps // 100)
        with torch.random.fork_rng(devices=[]):
            for step in range(self.done, until):
                seed_global(self.seed * 1_000_003 + step, self.moving[0].device)  # dropout draws from the global state
                loss = self.task.losses(self.model, params, self._batch(step)).mean()
                if not math.isfinite(float(loss.detach())):
                    raise InputError(
                        f"The loss was not finite at step {step + 1} of {self.steps}; take a smaller learning rate."
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.moving, recipe.clip)
                for group in self.optimizer.param_groups:
                    group["lr"] = recipe.lr * factor("cosine", recipe.warmup, step, self.steps)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.done = step + 1
                if watch and (self.done % stride == 0 or self.done == self.steps):
                    watch("train", self.done, self.steps)
        self.seconds += time.perf_counter() - started

    def _stored(self) -> bytes:
        kept = {
            f"{name}.{i}": tensor
            for i, moments in self.optimizer.numbered().items()
            for name, tensor in moments.items()
        }
        weights = {f"weight.{i}": tensor.detach() for i, tensor in enumerate(self.moving)}
        masters = self.optimizer.masters
        wide = {f"master.{i}": masters.of(each) for i, each in enumerate(self.moving) if each in masters.places}
        return save({**kept, **weights, **wide, _SECONDS: torch.tensor(self.seconds, dtype=torch.float64)})

    def _take_up(self, content: bytes, done: int) -> None:
        stored = load(content)
        self.seconds = float(stored.pop(_SECONDS))
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in stored.items():
            name, _, i = key.rpartition(".")
            state.setdefault(int(i), {})[name] = tensor
        with torch.no_grad():
            for i, tensor in enumerate(self.moving):
                tensor.copy_(state[i].pop("weight"))
                moving = self.optimizer.masters.of(tensor)
                moving.copy_(state[i].pop("master", tensor))
                kept = {name: laid_out_like(tensor, value.to(tensor.device)) for name, value in state[i].items()}
                self.optimizer.state[moving] = kept
        self.done = done

    def _batch(self, step: int) -> Batch:
        recipe, data, seed = self.recipe, self.data, self.seed
        epoch, at = divmod(step, self.per_epoch)
        if recipe.wording == "as written":
            batch = self.task.batch(data)
            index = alike(batch["lengths"], recipe.batch_size, seed, epoch + 1)[at]
            return batch.take(index)
        index = epoch_order(len(data), seed, epoch + 1)[at * recipe.batch_size : (at + 1) * recipe.batch_size]
        draw = np.random.default_rng([seed, step])
        return self.task.encode(WORDINGS[recipe.wording](data.at(index).records, draw, data.records))


def alike(lengths: Tensor, size: int, seed: int, epoch: int) -> list[Tensor]:
    """The batches of an epoch, each of rows of like length, so that little is filled up.

    Rows are shuffled, sorted by length within windows of several batches, and the batches are shuffled.
    """
    batches: list[Tensor] = []
    for window in epoch_order(len(lengths), seed, epoch).split(size * WINDOW):
        batches += window[lengths.cpu()[window].argsort(stable=True)].split(size)
    return [batches[i] for i in epoch_order(len(batches), seed + 1, epoch).tolist()]
