"""Noisy projected gradient descent: training that Langevin unlearning can go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Fact, Origin, Trained
from expunge.data.rows import Rows
from expunge.privacy.noise import SystemNoise, describe_source
from expunge.training.descent import MeanGradient, Step, split
from expunge.training.facts import enforced, full_batch, inspect, prepared, proved_constants, start_fact


@dataclass(frozen=True, kw_only=True)
class NoisyGradientDescent:
    """``theta <- Proj_R(theta - eta gradient + sqrt(2 eta) sigma N(0, I))`` on all rows.

    Source: Langevin unlearning (Chien et al. 2024, arXiv 2401.10371).

    Attributes:
        steps, lr, l2: T, eta, lambda.
        clip: M, per-row gradient norm (the regulariser is not clipped).
        sigma: noise; 0.03 in the paper's runs.
        radius: R of the projection; the identity inside the ball. ``None``: no projection, as the paper's runners.
        noise: where noise comes from; only the operating system's can back a certificate.
    """

    steps: int
    lr: float
    l2: float
    clip: float = 1.0
    sigma: float = 0.03
    radius: float | None = None
    noise: Any = None

    def __post_init__(self):
        if not (self.steps >= 1 and self.lr > 0 and self.l2 >= 0 and self.clip > 0 and self.sigma > 0):
            raise InputError(
                "Expected steps >= 1, lr > 0, l2 >= 0, clip > 0 and sigma > 0; got "
                f"steps={self.steps}, lr={self.lr}, l2={self.l2}, clip={self.clip}, sigma={self.sigma}."
            )

    def describe(self) -> dict[str, Any]:
        """Settings that decide the law of the model; the noise itself is fresh in every run."""
        return {
            "recipe": "noisy gradient descent", "steps": self.steps, "lr": self.lr, "l2": self.l2, "clip": self.clip,
            "sigma": self.sigma, "radius": self.radius,
        }  # fmt: skip

    def fit(self, task: Task, data: Rows, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train; what comes out is noisy already and may be released."""
        model = task.build(seed=seed)
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        final = self.descend(task, start, data, len(data), self.steps, watch=watch, stage="train")
        known = proved_constants(task, model, Step(self.lr, self.l2))
        facts = {
            **full_batch(Step(self.lr, self.l2, self.clip), self.steps, len(data)),
            **inspect(model),
            **self._constants(known),
            "start": start_fact(task, start, seed),
            **prepared(data),
            "buffers_moved": enforced(False),
            "noisy_training": enforced(
                describe_source(self.noise or SystemNoise()) == "operating system", "noise added in every step"
            ),
            "noise_per_step": enforced(self.sigma),
        }
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed)

    def _constants(self, known: Mapping[str, Fact]) -> dict[str, Fact]:
        """What the unclipped loss proves; where clipping can act, the clipped gradient need not be a convex loss's.

        The published bound takes strong convexity for granted there: it is then the paper's claim and no proof.
        """
        names = [name for name in ("strong_convexity", "smoothness", "convex") if name in known]
        if not names or self.clip >= known["gradient_bound"].value:
            return {name: known[name] for name in names}
        note = "of the loss before rows are clipped, as the publication takes it"
        return {name: replace(known[name], origin=Origin.CLAIMED, note=note) for name in names}

    def descend(
        self, task: Task, tensors: Mapping[str, Tensor], rows: Rows, denominator: int, steps: int, *,
        noise: Any = None, watch: Any = None, stage: str = "unlearn",
    ) -> dict[str, Tensor]:  # fmt: skip
        """Noisy steps in which absent rows count as rows without gradient: the sum is divided by ``denominator``."""
        model = task.build()
        source = noise or self.noise or SystemNoise()
        moved, fixed = split(model, tensors)
        batch, share = task.batch(rows), len(rows) / denominator
        mean = MeanGradient.of(task, model, fixed, Step(self.lr, 0.0, self.clip)).on(batch)
        for done in range(1, steps + 1):
            gradient = mean(moved)
            drift = {n: x - self.lr * (share * gradient[n] + self.l2 * x) for n, x in moved.items()}
            moved, _ = source.add(drift, (2 * self.lr) ** 0.5 * self.sigma)
            if self.radius is not None:
                norm = torch.stack([x.square().sum() for x in moved.values()]).sum().sqrt()
                if norm > self.radius:
                    moved = {n: x * (self.radius / norm) for n, x in moved.items()}
            if watch:
                watch(stage, done, steps)
        return {**moved, **fixed}
