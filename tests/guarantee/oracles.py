"""The oracles of the R2D spec, section 7, as cases for the real pipeline: train on record, publish, plan, run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from cases import FIXED, PointTask, attraction, opposed, repulsion, samples
from expunge import planning
from expunge.core.method import Outcome
from expunge.core.trained import Budget, Trained
from expunge.data.rows import Rows
from expunge.methods import registry
from expunge.training.flat import distance
from expunge.training.recipes import GradientDescent


def published(
    task: PointTask, data: Rows, recipe: GradientDescent, sigma: float = 1.0, m: int = 10, seed: int = 0
) -> Trained:
    """Trained on record, with every iterate kept, and published with noise picked by hand."""
    every = replace(recipe, rewinds=tuple(k / recipe.steps for k in range(recipe.steps + 1)))
    trained = planning.train(task, data, every, seed=seed)
    return planning.publish(trained, Budget(None, 1e-5, m, sigma), method=registry.make("r2d"))


def unlearn(trained: Trained, m: int, rewind: int, **options) -> Outcome:
    """R2D's outcome for the first ``m`` rows with K = ``rewind``."""
    method = registry.make("r2d", {"rewind": rewind / trained.trail.length})
    return planning.plan(trained, samples(*range(m)), method, **options).run()


def measured(outcome: Outcome) -> float:
    """||theta''_K - theta'_T||, both un-noised."""
    before = outcome.before
    again = before.recipe.fit(before.task, outcome.deletion.after, seed=before.seed)
    return distance(outcome.after.secret, again.artifact.tensors)


def bounds_of(outcome: Outcome) -> dict[str, float]:
    """Valid bounds by name."""
    return {bound.name: bound.value for bound in outcome.certificate.bounds if bound.valid}


def oracle_1(seed: int = 0, n: int = 200, steps: int = 60, curvature: float = 1.3):
    """Convex quadratic: task, rows, recipe."""
    z = np.random.default_rng(seed).standard_normal((n, 4))
    spread = curvature * max(np.linalg.norm(z - other, axis=1).max() for other in z)
    constants = {"smoothness": curvature, "strong_convexity": curvature, "gradient_difference": spread}
    task = PointTask(4, attraction(curvature), start=tuple(3 * z[0]))
    rows = Rows.of(z, np.zeros(n, dtype=int), preprocessing=FIXED)
    return task, rows, GradientDescent(steps=steps, lr=0.4 / curvature, constants=constants)


def oracle_2(d: int = 3, known: str = "gradient_difference"):
    """Concave quadratic, n=100, m=10, L=0.5, eta=0.05, T=80, G=1: the tight bound is attained."""
    size = 2.0 if known == "gradient_difference" else 1.0
    recipe = GradientDescent(steps=80, lr=0.05, constants={"smoothness": 0.5, known: size})
    return PointTask(d, repulsion(0.5)), opposed(100, 10, d), recipe


def oracle_3(l2: float, seed: int = 0):
    """Logistic regression, n=1000, eta=1, T=300; the 20 forgotten rows all pull the same way."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1000, 5))
    x /= np.maximum(1.0, np.linalg.norm(x, axis=1, keepdims=True))
    y = x[:, 0] + 0.1 * rng.standard_normal(1000) > 0
    x[:20], y[:20] = -x[0] / np.linalg.norm(x[0]) * (1 if y[0] else -1), True
    constants = {"smoothness": 0.25 + l2, "gradient_bound": 1.0, "convex": True} | (
        {"strong_convexity": l2} if l2 else {}
    )
    recipe = GradientDescent(steps=300, lr=1.0, l2=l2, constants=constants)
    return PointTask(5, logistic), Rows.of(x, y.astype(int), preprocessing=FIXED), recipe


def logistic(theta: Tensor, batch) -> Tensor:
    return nn.functional.softplus(-(2.0 * batch["y"] - 1) * (batch["x"] @ theta))


def tanh_network(theta: Tensor, batch) -> Tensor:
    """O4: 56 parameters, 5 inputs, 8 hidden tanh units, logistic loss."""
    hidden = torch.tanh(batch["x"] @ theta[:40].view(8, 5).T + theta[40:48])
    return nn.functional.softplus(-(2.0 * batch["y"] - 1) * (hidden @ theta[48:]))


def oracle_4(seed: int = 0, n: int = 400, steps: int = 200, dtype: torch.dtype = torch.float64, **recipe):
    """A tiny tanh network with sampled (or given) constants."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5))
    y = (np.sin(2 * x[:, 0]) + x[:, 1] > 0).astype(int)
    start = tuple(0.5 * rng.standard_normal(56))
    task = PointTask(56, tanh_network, start=start, dtype=dtype)
    made = GradientDescent(**{"steps": steps, "lr": 0.1, "estimate": "constants" not in recipe, **recipe})
    return task, Rows.of(x, y, preprocessing=FIXED), made


def waves(theta: Tensor, batch) -> Tensor:
    """cos(<w, theta> + b), ||w|| <= 1: nonconvex, G = 1 and L = 1 everywhere. Rows are (w, b)."""
    return torch.cos(batch["x"][:, :-1] @ theta + batch["x"][:, -1])


def wavy(seed: int, n: int, steps: int, lr: float, clip: float | None):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((n, 3))
    w /= np.maximum(1.0, np.linalg.norm(w, axis=1, keepdims=True))
    rows = Rows.of(np.hstack([w, rng.uniform(0, 6.28, (n, 1))]), np.zeros(n, dtype=int), preprocessing=FIXED)
    constants = {"smoothness": 1.0} | ({} if clip else {"gradient_bound": 1.0})
    return (
        PointTask(3, waves, start=tuple(rng.standard_normal(3))),
        rows,
        GradientDescent(steps=steps, lr=lr, clip=clip, constants=constants),
    )
