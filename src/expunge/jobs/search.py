"""Before publishing: the cheapest rewind and regularisation that reach a guarantee, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.core.method import Watch, silent
from expunge.core.trained import Budget, Trained
from expunge.jobs.schema import load_job
from expunge.methods.r2d import R2D
from expunge.methods.release import least_sigma
from expunge.modalities.classification.config import ClassifierJob, GradientDescentTraining
from expunge.modalities.classification.opening import data_of, recipe_of, task_of
from expunge.modalities.classification.readings import read
from expunge.modalities.settings import BudgetSettings, Job
from expunge.planning import train
from expunge.planning.promises import must_promise
from expunge.privacy.certify import parameters_of
from expunge.privacy.gaussian import sigma_of
from expunge.privacy.noise import SeededNoise
from expunge.privacy.theorem import Evaluation
from expunge.privacy.theorems import theorem
from expunge.tasks.classification import Classification
from expunge.training.descent import trainable

REWINDS = tuple(i / 10 for i in range(1, 11))
L2_FACTORS = (0.3, 1.0, 3.0, 10.0)  # around the job's own regularisation
THEOREM = theorem("rewind-to-delete")
DRAWS = 20  # noisy models whose mean accuracy stands for a noise level


@dataclass(frozen=True)
class Candidate:
    """One choice of regularisation and rewind.

    Attributes:
        l2, rewind: the choice. bound, sensitivity, sigma: what it needs. accuracy: mean over noisy models on the test rows.
        accuracy_cost: below the best un-noised accuracy of all candidates. gradient_evaluations: of one unlearning.
        fits: within the tolerance. chosen: the cheapest that fits.
    """

    l2: float
    rewind: float
    bound: str
    sensitivity: float
    sigma: float
    accuracy: float
    accuracy_cost: float
    gradient_evaluations: int
    fits: bool = False
    chosen: bool = False


def parse_guarantee(text: str) -> dict[str, float]:
    """``epsilon=1,delta=1e-5`` as numbers; raises InputError on anything else."""
    target: dict[str, float] = {}
    for item in text.split(","):
        name, equals, value = item.strip().partition("=")
        try:
            target[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or name not in ("epsilon", "delta"):
            raise InputError(f"Expected a guarantee such as epsilon=1 or epsilon=1,delta=1e-5; got {text!r}.")
    if "epsilon" not in target:
        raise InputError(f"A guarantee needs an epsilon; got {text!r}.")
    return target


def search(
    path: Path | Job,
    overrides: Sequence[str],
    target: dict[str, float],
    *,
    tolerance: float = 0.01,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Try regularisations around the job's and ten rewinds; choose the least work whose noise costs at most ``tolerance``.

    Accuracy is measured on test rows where the job has them. The choice looks at the training rows of everybody: fix
    it before requests come, as the certificate assumes.

    Raises:
        InputError: if the job does not train by gradient descent, its method is not r2d, or its constants are unknown.
    """
    job, training, promised = rewindable(path, overrides)
    task, (data, probes) = task_of(job), data_of(job)
    delta = target.get("delta", promised.delta)
    budget = Budget(target["epsilon"], delta, promised.capacity, releases=promised.releases)
    must_promise(budget, data)
    rows = probes.get("test", data)
    grid = sorted({training.l2 * factor for factor in L2_FACTORS}) if training.l2 else [0.0]
    candidates: list[Candidate] = []
    clean: list[float] = []
    for i, l2 in enumerate(grid):
        recipe = recipe_of(training.model_copy(update={"l2": l2}), task)
        trained = train(task, data, recipe, seed=job.seed)
        clean.append(_accuracy(task, trained.artifact.tensors, rows))
        for rewind in REWINDS:
            candidates.append(_candidate(task, trained, budget, l2, rewind, rows, job.seed))
        watch("plan", i + 1, len(grid))
    best = max(clean)
    costed = [replace(c, accuracy_cost=best - c.accuracy, fits=best - c.accuracy <= tolerance) for c in candidates]
    fitting = [c for c in costed if c.fits]
    choice = min(fitting, key=lambda c: (c.gradient_evaluations, -c.accuracy)) if fitting else None
    shown = [asdict(replace(c, chosen=c is choice)) for c in costed]
    for item in shown:
        item.update({k: None for k, v in item.items() if isinstance(v, float) and not math.isfinite(v)})
    return {
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "capacity": budget.capacity,
        "tolerance": tolerance,
        "chosen": asdict(replace(choice, chosen=True)) if choice else None,
        "candidates": shown,
        "statement": _statement(choice, tolerance, best, costed),
    }


def rewindable(
    path: Path | Job, overrides: Sequence[str]
) -> tuple[ClassifierJob, GradientDescentTraining, BudgetSettings]:
    """A job whose model can be rewound, how it is trained, and the promise that it is published with.

    Raises:
        InputError: if the job does not train by gradient descent, its method is not r2d, or it promises nothing.
    """
    job = load_job(path, overrides)
    if not isinstance(job, ClassifierJob) or not isinstance(job.training, GradientDescentTraining):
        raise InputError("A guarantee can be planned for training.kind gradient_descent: only that can be rewound.")
    if job.method["name"] != R2D.name:
        raise InputError(
            f"Only rewinds of {R2D.name} are tried; the job's method is {job.method['name']}, of whose noise they say "
            f"nothing. Name {R2D.name} in the job's method, and publish with that method."
        )
    if job.publish is None:
        raise InputError("A guarantee needs publish.capacity in the job: how many records may go in all.")
    return job, job.training, job.publish


def evaluated(parameters: Mapping[str, Any]) -> Evaluation:
    """What the theorem of rewinding says for ``parameters``.

    Raises:
        InputError: naming the constants that are missing.
    """
    if missing := [name for name in THEOREM.constants if name not in parameters]:
        raise InputError(
            f"The bound needs {', '.join(missing)}; declare them under training.constants, or set estimate."
        )
    return THEOREM.evaluate(parameters)


def _candidate(
    task: Classification, trained: Trained, budget: Budget, l2: float, rewind: float, rows: Any, seed: int
) -> Candidate:
    parameters = parameters_of(THEOREM, R2D(rewind=rewind).parameters(trained, budget.capacity), trained.facts)
    evaluation = evaluated(parameters)
    assert trained.trail is not None and budget.epsilon is not None
    work = parameters["rewind"] * (trained.trail.rows - budget.capacity)
    names = [b.name for b in evaluation.bounds if b.valid and b.value == evaluation.sensitivity] or ["none finite"]
    if not math.isfinite(evaluation.sensitivity):
        return Candidate(l2, rewind, names[0], math.inf, math.inf, math.nan, math.inf, work)
    derived = sigma_of(evaluation.sensitivity, budget.epsilon, budget.delta) * budget.releases**0.5
    sigma = max(derived, least_sigma(task.build()))
    tensors, moved = trained.artifact.tensors, trainable(task.build())
    noise = SeededNoise(seed)
    draws = [{**tensors, **noise.add({n: tensors[n] for n in moved}, sigma)[0]} for _ in range(DRAWS if sigma else 1)]
    accuracy = float(np.mean([_accuracy(task, draw, rows) for draw in draws]))
    return Candidate(l2, rewind, names[0], evaluation.sensitivity, sigma, accuracy, math.nan, work)


def _accuracy(task: Classification, tensors: Mapping[str, Any], examples: Any) -> float:
    return float(read(task, tensors, {"all": examples})["all"].correct.mean())


def _statement(choice: Candidate | None, tolerance: float, best: float, candidates: list[Candidate]) -> str:
    if choice is None:
        closest = min(candidates, key=lambda c: c.accuracy_cost if math.isfinite(c.accuracy_cost) else math.inf)
        return (
            f"No candidate stays within {tolerance:.1%} of the un-noised accuracy {best:.1%}; the closest (l2 "
            f"{closest.l2:g}, rewind {closest.rewind:.0%}) costs {closest.accuracy_cost:.1%}. Allow a larger tolerance, more "
            "steps, or fewer records."
        )
    return (
        f"l2 {choice.l2:g} with rewind {choice.rewind:.0%}: sigma {choice.sigma:.4g}, accuracy {choice.accuracy:.1%} "
        f"({choice.accuracy_cost:.1%} below the best un-noised), {choice.gradient_evaluations} row gradients a request. "
        "Chosen by looking at the training rows: fix it before requests come."
    )
