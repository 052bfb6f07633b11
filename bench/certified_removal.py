"""Certified removal (Guo et al., arXiv 1911.03030) against its formula written in plain NumPy (goal: as fast).

The formula is one Newton step of the perturbed sum objective on the retained rows. For two classes NumPy works on binary
logistic regression, (X' D X + lambda n I)^-1 times the gradient, in as many unknowns as features; for ten classes it fills the
Hessian block by block, X' diag(p_a (1[a = b] - p_b)) X. ``step`` compares the steps, ``whole`` a request through
``planning.plan(...).run()``: matched, checked, journalled, certified. Autograd is what ours was before.
Run from the repository root: ``python bench/certified_removal.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np
import torch

from comparison import Case, Growth, main
from expunge import planning
from expunge.core.data import Ids
from expunge.core.request import Request, Target
from expunge.curvature.newton import Differentiated, newton_step
from expunge.data.rows import Rows
from expunge.methods.certified_removal import CertifiedRemoval
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead
from expunge.training.flat import flat_loss, flatten
from expunge.training.perturbed import PERTURBATION, PerturbedMinimiser, perturbed

L2, SIGMA, FORGET = 0.1, 100.0, 5
Step = Callable[[], np.ndarray]


def rows_of(n: int, features: int, classes: int) -> Rows:
    x = torch.randn(n, features, dtype=torch.float64)
    return Rows.of(x / x.norm(dim=1, keepdim=True), torch.randint(0, classes, (n,)))


def numpy_binary(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The difference v of both classes' weights: its loss is log(1 + exp(∓ v·x)), its penalty half the weights'."""
    v, n = w[1] - w[0], len(x)
    sign = 2.0 * y - 1
    p = 1 / (1 + np.exp(-sign * (x @ v)))
    gradient = x.T @ ((p - 1) * sign) + L2 * n / 2 * v + (b[1] - b[0]) / 2
    hessian = (x.T * (p * (1 - p))) @ x + L2 * n / 2 * np.eye(len(v))
    v = v - np.linalg.solve(hessian, gradient)
    middle = -(b[0] + b[1]) / 2 / (L2 * n)  # the mean of both: nothing but the penalty and b depends on it
    return np.stack([middle - v / 2, middle + v / 2])


def numpy_softmax(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (classes, features), n = w.shape, len(x)
    scores = x @ w.T
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = p.copy()
    error[np.arange(n), y] -= 1
    gradient = error.T @ x + L2 * n * w + b
    hessian = np.empty((classes, features, classes, features))
    for i in range(classes):
        for j in range(classes):
            hessian[i, :, j] = (x.T * (p[:, i] * ((i == j) - p[:, j]))) @ x
    flat = hessian.reshape(w.size, w.size) + L2 * n * np.eye(w.size)
    return w - np.linalg.solve(flat, gradient.reshape(-1)).reshape(w.shape)


def agree(expected: np.ndarray, found: np.ndarray) -> None:
    if (gap := float(np.abs(expected - found).max())) > 1e-10:
        raise SystemExit(f"The formula and certified removal differ by {gap:.1e}.")


def ways(n: int, features: int, classes: int) -> tuple[Step, Step, Step, Step]:
    """The formula in NumPy, the step by autograd, our step, and the whole request."""
    rows = rows_of(n, features, classes)
    task = Classification(functools.partial(SoftmaxHead, features, classes), dtype=torch.float64)
    trained = planning.train(task, rows, PerturbedMinimiser(l2=L2, sigma=SIGMA))
    forget = Ids.rows(range(FORGET))
    request = Request("somebody", (Target("samples", {"ids": list(range(FORGET))}),))
    retained, model, weights = rows.without(forget), task.build(), dict(trained.artifact.tensors)
    theta, b = flatten(weights, ("linear.weight",)), trained.secret[PERTURBATION]
    formula = numpy_binary if classes == 2 else numpy_softmax
    plain = [
        weights["linear.weight"].numpy(),
        b.view(classes, features).numpy(),
        retained.x.numpy(),
        retained.y.numpy(),
    ]

    def by_autograd() -> np.ndarray:
        loss = flat_loss(task, model, weights, task.batch(retained), L2, b / len(retained))
        return newton_step(Differentiated(loss), theta).view(classes, features).numpy()

    def ours() -> np.ndarray:
        objective = perturbed(task, model, weights, task.batch(retained), L2, b)
        return newton_step(objective, theta).view(classes, features).numpy()

    def whole() -> np.ndarray:
        outcome = planning.plan(trained, request, CertifiedRemoval(), key=b"bench").run()
        return outcome.after.artifact.tensors["linear.weight"].numpy()

    return lambda: formula(*plain), by_autograd, ours, whole


def cases(smoke: bool) -> Iterable[Case]:
    sizes = [(200, 6, 2), (200, 6, 3)] if smoke else [(12_000, 200, 2), (1_797, 64, 10)]
    for n, features, classes in sizes:
        numpy, autograd, ours, whole = ways(n, features, classes)
        pairs = classes * (classes - 1) / 2
        grown = Growth(what="rows", ways={m: ways(m, features, classes)[2] for m in (n // 4, n // 2, n, 2 * n)})
        name, arithmetic = f"{n:,} x {features}, {classes} classes", 2.0 * n * features**2 * pairs
        yield Case(
            name=f"step, {name}", baselines={"Guo et al.'s formula, NumPy": numpy, "autograd": autograd}, ours=ours,
            agree=agree, operations=arithmetic, double=True, growth=grown, goal=1.0,
        )  # fmt: skip
        yield Case(
            name=f"whole, {name}", baselines={"Guo et al.'s formula, NumPy": numpy}, ours=whole, agree=agree,
            operations=arithmetic, double=True,
        )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
