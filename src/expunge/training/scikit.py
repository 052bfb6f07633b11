"""Linear models of scikit-learn, in and out: ``LogisticRegression`` as a softmax head, and the downdate of ``Ridge``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from expunge.core.errors import FailedError, InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Trained
from expunge.curvature.newton import minimise
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead
from expunge.training.descent import Step, trainable
from expunge.training.facts import buffers_moved, declared, enforced, inspect, prepared, proved_constants
from expunge.training.flat import flatten, objective, unflatten

WEIGHT = "linear.weight"
THEIRS = "scikit-learn's training, which expunge did not see"


@dataclass(frozen=True)
class Minimised:
    """The minimiser of a softmax head's regularised loss by Newton's method: what scikit-learn's solvers converge to.

    Attributes:
        l2: lambda of the mean loss + (lambda / 2) ||W||².
        tolerance: gradient norm at which it counts as reached.
        max_steps: of Newton's method; quadratic convergence needs a handful.

    Formal guarantee: none.
    """

    l2: float
    tolerance: float = 1e-10
    max_steps: int = 100

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "minimiser", "l2": self.l2, "tolerance": self.tolerance, "max_steps": self.max_steps}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Minimise from zero; raises FailedError where the tolerance is not reached."""
        model = task.build(seed=seed)
        start, names = dict(model.state_dict()), trainable(model)
        loss = objective(task, model, start, task.batch(data), self.l2)
        found, residual = minimise(loss, flatten(start, names), self.tolerance, self.max_steps)
        if residual > self.tolerance:
            raise FailedError(
                f"Newton's method stopped at a gradient of {residual:.3g}, above {self.tolerance:g}. Regularise more, by a "
                "smaller C."
            )
        return _trained(task, unflatten(found, start, names), data, self, seed)


def _trained(task: Task, tensors: Mapping[str, torch.Tensor], data: Any, recipe: Minimised, seed: int = 0) -> Trained:
    """A trained head with the facts that hold of any minimiser; what is known of training is a declaration."""
    model = task.build(tensors)
    said = {
        "l2": recipe.l2, "selection": "fixed", "start": "independent", "augmentation": False, "optimizer": "minimiser",
        "decay_outside_loss": 0.0,
    }  # fmt: skip
    facts = {
        **{name: declared(value, THEIRS) for name, value in said.items()},
        "rows": enforced(len(data), "counted"),
        **inspect(model),
        **buffers_moved(model, [tensors]),
        **proved_constants(task, model, Step(1.0, recipe.l2)),
        **prepared(data),
    }
    return Trained(
        task, Artifact({name: t.detach().clone() for name, t in tensors.items()}), data, recipe, facts=facts, seed=seed
    )


def from_sklearn(model: Any, x: Any, y: Any, *, norm: float, users: Mapping[str, Any] | None = None) -> Trained:
    """A fitted ``LogisticRegression`` with the rows that it was fitted on, for ``newton``, ``noisy_fine_tune`` or ``retrain``.

    The minimiser of ``C sum of losses + ||w||² / 2`` is that of the mean loss + (lambda / 2) ||W||² with lambda = 1 / (C n); of
    two classes, whose one weight vector is split between both, with lambda = 2 / (C n) (derived here). After m rows went,
    lambda stays: it is what scikit-learn minimises with C n / (n - m) on the rows that stay.

    Args:
        model: fitted with an L2 penalty, without class weights and without an intercept: add a column of ones to ``x``
            instead, whose weight is then regularised like the others.
        x, y: what it was fitted on: (n, d) numbers and n labels. Sample weights are not known here and must have been equal.
        norm: the declared bound on the norm of every row; longer rows are refused (clip them before fitting).
        users: columns that name people, for targets of kind ``user``.

    Returns:
        A model in double precision for :func:`~expunge.planning.publishing.publish`. Training was not expunge's own: its
        certificates are ``certified-under-declared-constants`` at best.

    Raises:
        InputError: for another estimator, one that is not fitted or was fitted otherwise, rows above ``norm``, or weights that
            are far from the minimiser on these rows.

    Formal guarantee: none by itself.
    """
    known = _logistic(model)
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != known.shape[1]:
        raise InputError(f"Expected rows of {known.shape[1]} numbers, as the model was fitted on; got shape {x.shape}.")
    if not 0 < norm < math.inf:
        raise InputError(f"Expected a finite norm above 0 that no row exceeds; got {norm}.")
    if (longest := float(np.linalg.norm(x, axis=1).max(initial=0.0))) > norm * (1 + 1e-12):
        raise InputError(
            f"Expected rows of a norm of at most {norm:g}; the longest has {longest:.6g}. Clip them before fitting."
        )
    classes = list(model.classes_)
    if odd := sorted({str(label) for label in np.asarray(y).tolist()} - {str(label) for label in classes}):
        raise InputError(f"Expected labels among {', '.join(map(str, classes))}; there is also {odd[0]}.")
    place = {str(label): i for i, label in enumerate(classes)}
    labels = np.array([place[str(label)] for label in np.asarray(y).tolist()])
    rows = Rows.of(torch.from_numpy(x.copy()), labels, users, names=[str(label) for label in classes])
    task = Classification(_Head(x.shape[1], len(classes), norm), dtype=torch.float64)
    recipe = Minimised(_lambda(model, len(x)))
    weight = torch.from_numpy(np.concatenate([-known / 2, known / 2]) if len(classes) == 2 else known.copy())
    trained = _trained(task, {WEIGHT: weight}, rows, recipe)
    built = task.build(trained.artifact.tensors)
    loss = objective(task, built, trained.artifact.tensors, task.batch(rows), recipe.l2)
    gradient = float(loss.gradient(flatten(trained.artifact.tensors, trainable(built))).norm())
    if gradient > LOOSE * norm:
        raise InputError(
            f"These weights are not the minimiser on these rows (gradient {gradient:.3g}): they were fitted on others, with "
            "sample weights, or not to the end. Fit again with a smaller tol, and give the same rows."
        )
    return trained


LOOSE = 1e-2  # of the gradient of a row: scikit-learn's default tol is 1e-4 of the sum's largest entry; our choice


@dataclass(frozen=True)
class _Head:
    """Makes the head; a callable that travels between processes."""

    features: int
    classes: int
    radius: float

    def __call__(self) -> SoftmaxHead:
        return SoftmaxHead(self.features, self.classes, self.radius)


def _logistic(model: Any) -> np.ndarray:
    """The weights of a fitted ``LogisticRegression`` of the kind that is understood, (1 or classes, d)."""
    from sklearn.linear_model import LogisticRegression

    if not isinstance(model, LogisticRegression):
        raise InputError(f"Expected a LogisticRegression (of Ridge see downdate_ridge); got {type(model).__name__}.")
    if not hasattr(model, "coef_"):
        raise InputError("Expected a fitted model; this one has no coef_. Call fit first.")
    if model.fit_intercept:
        raise InputError(
            "Expected fit_intercept=False: an intercept without regularisation makes the loss not strongly convex. Add a "
            "column of ones to the rows, whose weight is regularised, and fit again."
        )
    mixed = getattr(model, "l1_ratio", None)
    if model.penalty not in ("l2", "deprecated", None) or mixed not in (None, 0, 0.0, "deprecated"):
        raise InputError(f"Expected an L2 penalty; the model has penalty={model.penalty!r}, l1_ratio={mixed!r}.")
    if model.penalty is None or not 0 < float(model.C) < math.inf:
        raise InputError("Expected a penalty with a finite C above 0: without one the loss is not strongly convex.")
    if model.class_weight is not None:
        raise InputError("Expected class_weight=None: weighted rows are not what expunge retrains on.")
    if model.solver == "liblinear" and len(model.classes_) > 2:
        raise InputError("Expected one softmax for all classes; liblinear fits one class against the others.")
    return np.asarray(model.coef_, dtype=np.float64)


def _lambda(model: Any, rows: int) -> float:
    """The regularisation of the mean loss over a softmax head's weights."""
    return (2.0 if len(model.classes_) == 2 else 1.0) / (float(model.C) * rows)


def to_sklearn(trained: Trained, like: Any) -> Any:
    """The released weights as a ``LogisticRegression``.

    Args:
        trained: of :func:`from_sklearn`, or what came of it (``outcome.after``).
        like: the estimator that came in: its settings and classes are copied, with the C that the rows that stay have.

    Raises:
        InputError: for weights of another form than :func:`from_sklearn` makes.
    """
    from sklearn.base import clone

    if set(trained.artifact.tensors) != {WEIGHT} or trained.data is None or "l2" not in trained.facts:
        raise InputError("Expected a model that from_sklearn made, or what came of it.")
    weight = trained.artifact.tensors[WEIGHT].numpy()
    binary = len(like.classes_) == 2
    found: Any = clone(like)
    found.set_params(C=(2.0 if binary else 1.0) / (float(trained.fact("l2")) * len(trained.data)))
    found.classes_ = like.classes_.copy()
    found.coef_ = weight[1:] - weight[:1] if binary else weight.copy()
    found.intercept_ = np.zeros(len(found.coef_))
    found.n_features_in_, found.n_iter_ = weight.shape[1], np.zeros(1, dtype=np.int32)
    return found


def downdate_ridge(model: Any, x: Any, y: Any, rows: Any) -> Any:
    """A fitted ``Ridge`` as if some rows had never been there, exactly: their part of the normal equations is taken away.

    Args:
        model: fitted, with one alpha, with or without an intercept, without ``positive``.
        x, y: what it was fitted on, (n, d) and (n,) or (n, targets).
        rows: positions of the rows that go.

    Returns:
        Another ``Ridge`` with the weights of the minimiser on the rows that stay: nothing of the others is in it.

    Raises:
        InputError: for another estimator, positions that are none, or where no row stays; for weights that are not those of
            ``x`` and ``y``.

    Formal guarantee: exact up to rounding, by the normal equations; there is no noise, and nothing about releases before.
    """
    from sklearn.base import clone
    from sklearn.linear_model import Ridge

    if type(model) is not Ridge or not hasattr(model, "coef_"):
        raise InputError(f"Expected a fitted Ridge; got {type(model).__name__}.")
    if np.ndim(model.alpha) or model.positive or not 0 < float(model.alpha) < math.inf:
        raise InputError("Expected one alpha above 0 and no constraint on signs (positive=False).")
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    gone = np.unique(np.asarray(rows))
    if x.ndim != 2 or len(x) != len(y) or x.shape[1] != np.shape(model.coef_)[-1]:
        raise InputError(f"Expected the rows that the model was fitted on; got {x.shape} and {y.shape}.")
    if gone.dtype.kind not in "iu" or not len(gone) or gone[0] < 0 or gone[-1] >= len(x) or len(gone) >= len(x):
        raise InputError(
            f"Expected positions from 0 to {len(x) - 1} of rows that go, and some rows that stay; got {rows!r:.80}."
        )
    wide = np.hstack([x, np.ones((len(x), 1))]) if model.fit_intercept else x
    penalty = np.full(wide.shape[1], float(model.alpha))
    penalty[x.shape[1] :] = 0.0  # scikit-learn regularises no intercept
    gram, sides = wide.T @ wide + np.diag(penalty), wide.T @ y
    theirs = np.asarray(model.coef_).T
    if model.fit_intercept:
        theirs = np.concatenate([theirs, np.asarray(model.intercept_)[None]])
    if np.abs(gram @ theirs - sides).max() > FITTED * max(1.0, np.abs(sides).max()):
        raise InputError(
            "These weights are not the minimiser on these rows: give the rows, targets and alpha that were fitted."
        )
    found = np.linalg.solve(gram - wide[gone].T @ wide[gone], sides - wide[gone].T @ y[gone])
    left: Any = clone(model)
    left.coef_, left.n_features_in_ = found[: x.shape[1]].T, x.shape[1]
    left.intercept_ = found[x.shape[1]] if model.fit_intercept else 0.0
    left.n_iter_, left.solver_ = None, "cholesky"
    return left


FITTED = 1e-3  # relative; iterative solvers of scikit-learn stop at 1e-4
