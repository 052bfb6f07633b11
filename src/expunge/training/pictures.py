"""Training a small model that sees from scratch: the vision tower first, then everything on questions about pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.core.task import Autoregressive, Task, autoregressive
from expunge.core.trained import Artifact, Trained
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.tasks.model_parts import model_parts
from expunge.tasks.seeds import seed_global
from expunge.training.facts import declared, enforced, prepared
from expunge.training.optimizers import AdamW
from expunge.training.shipped import name_of, shipped

TURN, MOVE, SCALE, DIM, NOISE = (
    0.25,
    0.1,
    0.12,
    0.3,
    0.1,
)  # radians; halves of a side; shares; of pixels from -1 to 1. Ours


@dataclass(frozen=True)
class PictureTraining:
    """AdamW on answers, after steps in which the vision tower alone learns what pictures show.

    A model that is trained in one go answers what stands in words long before it sees anything (measured by us); LLaVA
    (arXiv 2304.08485) begins with a trained vision tower as well.

    Attributes:
        seeing: steps of the vision tower under a linear layer that is thrown away, at the rate ``seeing_lr``; it stays as it is
            then.
        shows: the column that says what a picture shows.
        steps: steps on answers.
        varied: how much pictures are turned, moved, scaled and dimmed in each step; 0: not at all. With a few fixed pictures of
            each kind a model learns these by heart (measured by us).
        words: share of each batch that is drawn from records without picture.
        lr, batch_size, clip: as in :class:`~expunge.training.language_settings.LanguageSettings`, of both parts.
        weight_decay: of all weights. warmup: share of the steps in which the rate rises, from above 0.
    """

    seeing: int = 800
    seeing_lr: float = 3e-3
    shows: str = "concept"
    steps: int = 800
    varied: float = 1.0
    words: float = 0.25
    lr: float = 2e-3
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0

    def __post_init__(self):
        if (
            min(self.steps, self.batch_size) < 1
            or self.seeing < 0
            or not 0 <= self.words < 1
            or min(self.lr, self.seeing_lr) <= 0
        ):
            raise InputError(
                f"Expected steps and batch_size of at least 1, seeing of 0 or more, words below 1, lr > 0; got {asdict(self)}."
            )

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "training on pictures", **asdict(self)}

    def fit(self, task: Task, data: Texts, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train a fresh model, or take the weights that this recipe made before where they came with the package
        (``training.shipped``). Formal guarantee: none.

        Raises:
            InputError: for data without pictures or column, a model without a vision tower, or a loss that is not finite.
        """
        task = autoregressive(task)
        if (made := shipped(name_of(task, data, self, seed))) is None:
            return self.train(task, data, seed=seed, watch=watch)
        facts = {
            "weights": declared("shipped", "trained before by this recipe, and stored by content"),
            **prepared(data),
        }
        tensors = {name: tensor.to(task.device) for name, tensor in made.items()}
        return Trained(task, Artifact(tensors), data, self, None, facts, seed=seed)

    def train(self, task: Autoregressive, data: Texts, *, seed: int = 0, watch: Any = None) -> Trained:
        """As :meth:`fit`, whatever came with the package."""
        model, batch = task.build(seed=seed).train(), task.batch(data)
        with_picture = np.array([IMAGE in record for record in data.records])
        if not with_picture.any() or self.shows not in data.columns:
            raise InputError(f"Expected records with pictures and a column {self.shows!r} that says what they show.")
        pools = [np.flatnonzero(with_picture), np.flatnonzero(~with_picture)]
        draw = np.random.default_rng([seed, len(data)])
        with torch.random.fork_rng(devices=[]):
            seed_global(seed, task.device)
            self._see(model, batch["pixel_values"], data.columns[self.shows], pools[0], draw, watch)
            params = dict(model.named_parameters())
            blind = round(self.words * self.batch_size) if len(pools[1]) else 0
            sizes = (self.batch_size - blind, blind)

            def loss(step: int) -> Tensor:
                index = np.concatenate(
                    [draw.choice(pool, size) for pool, size in zip(pools, sizes, strict=True) if size]
                )
                part = batch.take(torch.from_numpy(index))
                part = part.with_columns(pixel_values=self._varied(part["pixel_values"]))
                return task.losses(model, params, part).mean()

            frozen = {*self._tower(model).parameters()} if self.seeing else set()
            for tensor in frozen:
                tensor.requires_grad_(False)
            moving = [tensor for tensor in model.parameters() if tensor not in frozen]
            self._descend(moving, loss, self.steps, self.lr, "train", watch)
        facts = {
            "optimizer": enforced("adamw"),
            "selection": enforced("fixed", "the number of steps was fixed before the first"),
            "rows": enforced(len(data), "counted"),
            "start": declared("independent", "fresh weights as the architecture's own code draws them from the seed"),
            **prepared(data),
        }
        final = {name: tensor.detach().clone() for name, tensor in task.released(model).items()}
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed)

    def _see(
        self, model: Any, pixels: Tensor, shows: Any, at: np.ndarray, draw: np.random.Generator, watch: Any
    ) -> None:
        if not self.seeing:
            return
        tower = self._tower(model)
        classes = {name: i for i, name in enumerate(sorted({*shows[at].tolist()}))}
        labels = torch.tensor([classes.get(name, -1) for name in shows.tolist()], device=pixels.device)
        head = nn.Linear(tower.config.hidden_size, len(classes)).to(pixels.device)

        def loss(step: int) -> Tensor:
            index = torch.from_numpy(draw.choice(at, 2 * self.batch_size))
            said = head(tower(pixel_values=self._varied(pixels[index])).last_hidden_state[:, 1:].mean(1))
            return nn.functional.cross_entropy(said, labels[index])

        self._descend([*tower.parameters(), *head.parameters()], loss, self.seeing, self.seeing_lr, "see", watch)

    @staticmethod
    def _tower(model: Any) -> Any:
        parts = model_parts(model)
        if parts is None:
            raise InputError("Expected a model with a vision tower; found none. Take language training.")
        return model.get_submodule(parts.vision)

    def _varied(self, pixels: Tensor) -> Tensor:
        """Pictures as they might have been as well: turned, moved, scaled, dimmed, and with noise; drawn anew in each step."""
        if not self.varied:
            return pixels
        n, draw = len(pixels), lambda low, high: torch.empty(len(pixels), device=pixels.device).uniform_(low, high)
        angle, size = draw(-TURN, TURN) * self.varied, 1 + draw(-SCALE, SCALE) * self.varied
        cos, sin = size * angle.cos(), size * angle.sin()
        shift = [draw(-MOVE, MOVE) * self.varied for _ in "xy"]
        matrix = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(n, 2, 3)
        grid = nn.functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
        moved = nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        dark = moved.amin((1, 2, 3), keepdim=True)
        dimmed = dark + (moved - dark) * (1 - draw(0, DIM) * self.varied).view(-1, 1, 1, 1)
        return dimmed + NOISE * self.varied * torch.randn_like(dimmed)

    def _descend(self, moving: list[nn.Parameter], loss: Any, steps: int, lr: float, stage: str, watch: Any) -> None:
        optimizer = AdamW(moving, lr, weight_decay=self.weight_decay)
        for step in range(steps):
            value = loss(step)
            if not math.isfinite(float(value.detach())):
                raise InputError(
                    f"The loss was not finite at step {step + 1} of {steps}; take a smaller learning rate."
                )
            value.backward()
            torch.nn.utils.clip_grad_norm_(moving, self.clip)
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps, self.warmup)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if watch and ((step + 1) % max(1, steps // 100) == 0 or step + 1 == steps):
                watch(stage, step + 1, steps)


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate: it rises over the share ``warmup`` of the steps, above 0 from the first, then falls as a cosine.

    Weights that come with the package were trained so; for language models see ``training.annealing``.
    """
    warm = math.ceil(warmup * steps)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2
