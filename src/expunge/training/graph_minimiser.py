"""The minimum of a graph network's loss on record, with a random linear term where certified removal shall be possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Trained
from expunge.curvature.newton import ByProducts, minimise
from expunge.privacy.noise import SystemNoise, describe_source
from expunge.tasks.graphs.networks import SGC
from expunge.training.descent import trainable
from expunge.training.facts import RESIDUAL, enforced, inspect, prepared, start_fact
from expunge.training.flat import flatten, unflatten
from expunge.training.optimizers import Adam
from expunge.training.perturbed import PERTURBATION


def softmax(task: Task, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of each example, (b,)."""
    return task.losses(model, params, batch)


def one_vs_rest(task: Task, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """The sum over classes of binary logistic losses, ``log(1 + exp(-y s))``, y = 1 for the label's class, else -1; (b,)."""
    logits = task.outputs(model, params, batch).logits
    signs = 2 * nn.functional.one_hot(batch["y"], logits.shape[1]).to(logits) - 1
    return nn.functional.softplus(-signs * logits).sum(1)


LOSSES = {"softmax": softmax, "one_vs_rest": one_vs_rest}


@dataclass(frozen=True, kw_only=True)
class GraphMinimiser:
    """The minimiser of sum of losses + (lambda n / 2) ||w||² + <b, w>, b ~ N(0, s² I), drawn once and kept secret.

    Attributes:
        l2: lambda, of the mean loss: 1e-2, CGU (arXiv 2206.09140). sigma: s, of the *sum*: 0.1 there; 0: no perturbation.
        loss: ``softmax``, or ``one_vs_rest``: as many binary losses as there are classes (CGU).
        tolerance, max_steps: gradient norm of the mean objective that counts as the minimum, 1e-10, and Newton steps to get
            there, 50; of SGC, whose loss is convex.
        epochs, lr: of Adam without dropout, for all other networks, which stay away from a minimum: 200 and .01 (Kipf and
            Welling 2017, arXiv 1609.02907).
        noise: where b comes from; only the operating system's can back a certificate.
    """

    l2: float = 1e-2
    sigma: float = 0.1
    loss: str = "one_vs_rest"
    tolerance: float = 1e-10
    max_steps: int = 50
    epochs: int = 200
    lr: float = 0.01
    noise: Any = None
    leaves_state: ClassVar[bool] = True

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise InputError(f"Expected a loss among {', '.join(LOSSES)}; got {self.loss!r}.")
        if not (
            min(self.l2, self.tolerance, self.lr) > 0 and self.sigma >= 0 and min(self.max_steps, self.epochs) >= 1
        ):
            raise InputError(
                "Expected l2, tolerance and lr above 0, sigma of at least 0, max_steps and epochs of at least 1; got "
                f"{self.l2}, {self.tolerance}, {self.lr}, {self.sigma}, {self.max_steps} and {self.epochs}."
            )

    def describe(self) -> dict[str, Any]:
        """Settings that decide the law of the model; b is fresh in every run."""
        names = ("l2", "sigma", "loss", "tolerance", "max_steps", "epochs", "lr")
        return {"recipe": "minimum on a graph", **{name: getattr(self, name) for name in names}}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Draw b and minimise; a model with a perturbation carries its noise.

        Raises:
            InputError: unless the weights are in double precision.
        """
        model = task.build(seed=seed).eval()
        start, names = dict(model.state_dict()), trainable(model)
        if flatten(start, names).dtype != torch.float64:
            raise InputError("A minimum is sought in double precision; set dtype: float64.")
        drawn: dict[str, Tensor] = {}
        facts: dict[str, Any] = {}
        if self.sigma:
            source = self.noise or SystemNoise()
            drawn, precision = source.add({PERTURBATION: torch.zeros_like(flatten(start, names))}, self.sigma)
            facts = {
                "noise_source": enforced(
                    describe_source(source), "exact type of the source that drew the perturbation"
                ),
                "noise_precision": enforced(precision),
                "noise_covers": enforced(True, "b has a coordinate for every trainable weight"),
            }
        loss = self.objective(task, model, start, task.batch(data), drawn.get(PERTURBATION))
        theta, residual = self._minimum(model, loss, flatten(start, names).detach())
        final = {name: tensor.detach().contiguous() for name, tensor in unflatten(theta, start, names).items()}
        facts |= {
            **inspect(model),
            **prepared(data),
            "dropout": enforced(False, "the loss is minimised in evaluation mode"),
            "augmentation": enforced(False),
            "start": start_fact(task, start, seed),
            "selection": enforced("fixed"),
            "buffers_moved": enforced(False),
            "rows": enforced(len(data), "counted"),
            "l2": enforced(self.l2),
            RESIDUAL: enforced(residual, "gradient norm of the mean objective"),
            "converged": enforced(residual <= self.tolerance, "gradient norm against the tolerance"),
        }
        state = {**final, **drawn} if drawn else None
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed, state=state)

    def objective(
        self, task: Task, model: nn.Module, like: Mapping[str, Tensor], batch: Batch, b: Tensor | None
    ) -> ByProducts:
        """The mean loss + (l2 / 2) ||theta||² + <b, theta> / rows, as a function of the flat trainable weights."""
        names = trainable(model)

        def loss(theta: Tensor) -> Tensor:
            mean = LOSSES[self.loss](task, model, unflatten(theta, like, names), batch).mean()
            regularised = mean + self.l2 / 2 * theta.square().sum()
            return regularised if b is None else regularised + b @ theta / len(batch)

        return ByProducts(loss)

    def _minimum(self, model: nn.Module, loss: ByProducts, theta: Tensor) -> tuple[Tensor, float]:
        if isinstance(model, SGC):
            return minimise(loss, theta, self.tolerance, self.max_steps)
        theta = theta.clone().requires_grad_()
        optimizer = Adam([theta], self.lr)
        for _ in range(self.epochs):
            (theta.grad,) = torch.autograd.grad(loss.value(theta), [theta])
            optimizer.step()
        theta = theta.detach()
        return theta, float(loss.gradient(theta).norm())
