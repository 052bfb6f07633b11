"""Training on a perturbed objective: what certified removal (Guo et al.) can take rows out of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Trained
from expunge.curvature.newton import Objective, minimise
from expunge.privacy.noise import SystemNoise, describe_source
from expunge.training.descent import Step, trainable
from expunge.training.facts import RESIDUAL, enforced, inspect, prepared, proved_constants
from expunge.training.flat import flatten, objective, unflatten

PERTURBATION = "perturbation"  # name of b among the secret tensors


@dataclass(frozen=True, kw_only=True)
class PerturbedMinimiser:
    """The minimiser of sum of losses + (lambda n / 2) ||w||² + <b, w> with b ~ N(0, s² I), drawn once and kept secret.

    Attributes:
        l2: lambda, of the mean loss. 1e-3: Guo et al. on MNIST 3 against 8.
        sigma: s, on the scale of the *sum* over rows. 10: as above.
        tolerance: gradient norm of the mean objective at which the minimiser counts as found.
        max_steps: Newton steps to get there.
        noise: where b comes from; only the operating system's can back a certificate.
    """

    l2: float = 1e-3
    sigma: float = 10.0
    tolerance: float = 1e-10
    max_steps: int = 50
    noise: Any = None

    def __post_init__(self):
        if not (self.l2 > 0 and self.sigma > 0 and self.tolerance > 0 and self.max_steps >= 1):
            raise InputError(
                "Expected l2, sigma, tolerance > 0 and max_steps >= 1; got "
                f"l2={self.l2}, sigma={self.sigma}, tolerance={self.tolerance}, max_steps={self.max_steps}."
            )

    def describe(self) -> dict[str, Any]:
        """Settings that decide the law of the model; b is fresh in every run."""
        return {"recipe": "perturbed minimiser", "l2": self.l2, "sigma": self.sigma, "tolerance": self.tolerance}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Draw b and minimise; what comes out carries its noise and may be released.

        Raises:
            InputError: unless the loss is known to be convex and the weights are in double precision.
        """
        model = task.build(seed=seed)
        start, names = dict(model.state_dict()), trainable(model)
        known = proved_constants(task, model, Step(1.0, self.l2))
        if "convex" not in known or flatten(start, names).dtype != torch.float64:
            raise InputError(
                "A perturbed objective is minimised for convex models in double precision (SoftmaxHead, float64)."
            )
        source = self.noise or SystemNoise()
        drawn, precision = source.add({PERTURBATION: torch.zeros_like(flatten(start, names))}, self.sigma)
        loss = perturbed(task, model, start, task.batch(data), self.l2, drawn[PERTURBATION])
        theta, residual = minimise(loss, flatten(start, names), self.tolerance, self.max_steps)
        final = {name: tensor.contiguous() for name, tensor in unflatten(theta, start, names).items()}
        facts = {
            **known,
            **inspect(model),
            **prepared(data),
            "augmentation": enforced(False),
            "start": enforced("independent", "a strongly convex objective forgets where its minimisation began"),
            "selection": enforced("fixed"),
            "buffers_moved": enforced(False),
            "rows": enforced(len(data), "counted"),
            "l2": enforced(self.l2),
            RESIDUAL: enforced(residual, "gradient norm of the mean objective"),
            "converged": enforced(residual <= self.tolerance, "gradient norm against the tolerance"),
            "noise_source": enforced(describe_source(source), "exact type of the source that drew the perturbation"),
            "noise_precision": enforced(precision),
            "noise_covers": enforced(True, "b has a coordinate for every trainable weight"),
        }
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed, state={**final, **drawn})


def perturbed(
    task: Task, model: nn.Module, like: Mapping[str, Tensor], batch: Batch, l2: float, b: Tensor
) -> Objective:
    """The objective divided by the number of rows: mean loss + (l2 / 2) ||theta||² + <b, theta> / rows."""
    return objective(task, model, like, batch, l2, b / len(batch))
