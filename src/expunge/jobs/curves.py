"""Rewind-to-delete on one job, as curves: noise against what decides it, accuracy against noise beside a retrained model.

The curves that the paper's reviewers asked for (R2D, Mu and Klabjan 2025, arXiv 2409.09778): noise against the share that goes,
against the rewind and against epsilon, and unlearned models beside *equally noised* retrained ones. Nothing here is a release:
noise comes from a seed, and nothing counts against a budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.method import Watch, silent
from expunge.core.trained import Trained
from expunge.data.rows import Rows
from expunge.evidence.outputs import example_losses
from expunge.jobs.search import THEOREM, evaluated, rewindable
from expunge.methods.r2d import R2D
from expunge.metrics.membership_folds import FOLDS, RESAMPLINGS, folded_auc, mean_class_auc, moved
from expunge.modalities.classification.knowledge import knowledge
from expunge.modalities.classification.opening import data_of, recipe_of, task_of
from expunge.modalities.classification.readings import Readings, read
from expunge.modalities.settings import Job
from expunge.planning import train
from expunge.privacy.certify import parameters_of
from expunge.privacy.gaussian import sigma_of
from expunge.privacy.noise import SeededNoise
from expunge.report.curves import write_curves
from expunge.tasks.classification import Classification
from expunge.training.descent import Step, descend, trainable
from expunge.training.recipes import GradientDescent, rewind_step

REWINDS = (0.1, 0.25, 0.36, 0.5, 0.74, 0.9, 1.0)  # .1, .36, .74: near those of the paper's Tables 2 and 3
SHARES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
EPSILONS = (0.1, 0.3, 1.0, 3.0, 10.0)  # the range in which an epsilon says something; the paper draws to 40
SIGMAS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # .01 is the level of all of the paper's tables
FLAT = 0.01
DRAWS = 5  # noisy models behind each accuracy
BEYOND = 5  # times as many steps as training, to get near the least loss

Tensors = Mapping[str, Tensor]


def curves(
    path: Path | Job, overrides: Sequence[str], out: Path, *, watch: Watch = silent
) -> dict[str, Any]:  # fmt: skip
    """Train, unlearn at several rewinds, retrain, and write ``curves.html`` and ``curves.json`` into ``out``.

    Returns:
        ``noise`` (sigma by share, rewind and epsilon, each from the tightest valid bound), ``accuracy`` (on the test rows, by
        model and sigma), ``models`` (accuracy, AUC and attacks without noise and at sigma .01), ``convergence`` (loss above the
        least on the retained rows, by rewind, with its bound where the constants are proved) and ``origins`` of constants.

    Formal guarantee: none; see :func:`expunge.privacy.certify.certify` for that.

    Raises:
        InputError: as ``jobs.search.rewindable``; without test rows, without constants for the bound, or where the model has
            learnt next to nothing.
    """
    job, training, promised = rewindable(path, overrides)
    task, (data, probes) = task_of(job), data_of(job)
    if "test" not in probes:
        raise InputError("Attacks need rows that were never trained on: give the job test rows (data.test_path).")
    recipe = recipe_of(training.model_copy(update={"rewinds": [*REWINDS]}), task)
    assert isinstance(recipe, GradientDescent)
    deletion = Deletion.of(data, job.request.asked(), probes)
    watch("original", 0, 1)
    trained = train(task, data, recipe, seed=job.seed)
    _must_have_learnt(task, trained, data)
    drawing = Curves(task, trained, recipe, deletion)
    record = {
        "name": job.name,
        "rows": len(data),
        "forgotten": len(deletion.forget),
        "epsilon": promised.epsilon,
        "delta": promised.delta,
        "capacity": promised.capacity,
        "steps": recipe.steps,
        "origins": {name: trained.facts[name].origin.value for name in THEOREM.constants if name in trained.facts},
        "noise": drawing.noise(promised, job.method.get("rewind", R2D.rewind)),
        **drawing.models(job.seed, watch),
    }
    write_curves(record, out)
    return record


class Curves:
    """One model, one deletion."""

    def __init__(self, task: Classification, trained: Trained, recipe: GradientDescent, deletion: Deletion):
        self.task, self.trained, self.recipe, self.deletion = task, trained, recipe, deletion
        self.step: Step = recipe.step
        self.moved = trainable(task.build())

    # --- noise from constants ---------------------------------------------------------------------------------------------

    def sigma(self, rewind: float, forget: int, epsilon: float, delta: float) -> float | None:
        """Noise that (epsilon, delta) takes when ``forget`` rows go; ``None``: no finite bound."""
        parameters = parameters_of(THEOREM, R2D(rewind=rewind).parameters(self.trained, forget), self.trained.facts)
        sensitivity = evaluated(parameters).sensitivity
        return sigma_of(sensitivity, epsilon, delta) if math.isfinite(sensitivity) else None

    def noise(self, promised: Any, rewind: float) -> dict[str, list[dict[str, float | None]]]:
        """Sigma along each of the three axes, the others as the job has them."""
        rows, m, epsilon, delta = len(self.deletion.before), promised.capacity, promised.epsilon or 1.0, promised.delta
        counts = sorted({max(1, round(share * rows)) for share in SHARES})
        return {
            "share": [{"at": n / rows, "sigma": self.sigma(rewind, n, epsilon, delta)} for n in counts],
            "rewind": [{"at": r, "sigma": self.sigma(r, m, epsilon, delta)} for r in REWINDS],
            "epsilon": [{"at": e, "sigma": self.sigma(rewind, m, e, delta)} for e in EPSILONS],
        }

    # --- models -----------------------------------------------------------------------------------------------------------

    def unlearned(self, rewind: float) -> Tensors:
        """Algorithm 2 without its noise: from the stored iterate, the rest of training on the retained rows."""
        trail = self.trained.trail
        assert trail is not None
        at = rewind_step(trail.length, rewind)
        return self.descended(trail.iterates[at], trail.length - at)

    def descended(self, start: Tensors, steps: int) -> Tensors:
        """``steps`` full-batch steps on the retained rows."""
        batch = self.task.batch(self.deletion.after)
        return descend(self.task, self.task.build(), start, batch, self.step, steps)[0]

    def models(self, seed: int, watch: Watch) -> dict[str, Any]:
        """Everything that needs trained models."""
        original = self.trained.artifact.tensors
        made: dict[str, Tensors] = {"original": original}
        for rewind in REWINDS:
            made[f"r2d {rewind:.0%}"] = self.unlearned(rewind)
            watch("models", len(made), len(REWINDS) + 3)
        made["retrained"] = self.recipe.fit(self.task, self.deletion.after, seed=seed + 1).artifact.tensors
        made["fine_tune"] = self.descended(original, max(1, self.recipe.steps // 10))
        rows = [
            self.measured(name, tensors, original, sigma, seed)
            for name, tensors in made.items()
            for sigma in (0.0, FLAT)
        ]
        accuracy = [
            {"name": name, "sigma": sigma, "accuracy": self.noisy_accuracy(tensors, sigma, seed)}
            for name, tensors in made.items()
            for sigma in SIGMAS
        ]
        watch("models", len(REWINDS) + 3, len(REWINDS) + 3)
        return {"models": rows, "accuracy": accuracy, "convergence": self.convergence(made)}

    def noised(self, tensors: Tensors, noise: SeededNoise, sigma: float) -> Tensors:
        """The tensors with noise on what training moves."""
        return {**tensors, **noise.add({name: tensors[name] for name in self.moved}, sigma)[0]} if sigma else tensors

    def sets(self) -> dict[str, Any]:
        """What is measured on."""
        return {"retain": self.deletion.after, "forget": self.deletion.forget, "test": self.deletion.probes["test"]}

    def noisy_accuracy(self, tensors: Tensors, sigma: float, seed: int) -> float:
        """Mean accuracy on the test rows over noisy models."""
        noise, test = SeededNoise(seed), {"test": self.deletion.probes["test"]}
        draws = [self.noised(tensors, noise, sigma) for _ in range(DRAWS if sigma else 1)]
        return float(np.mean([read(self.task, draw, test)["test"].correct.mean() for draw in draws]))

    def measured(self, name: str, tensors: Tensors, original: Tensors, sigma: float, seed: int) -> dict[str, Any]:
        """Accuracy and AUC of each set, and both attacks; the original is noised as well, as the paper's is."""
        noise = SeededNoise(seed)
        before = read(self.task, self.noised(original, noise, sigma), self.sets())
        now = before if name == "original" else read(self.task, self.noised(tensors, noise, sigma), self.sets())
        return {
            "name": name,
            "sigma": sigma,
            "accuracy": {of: float(each.correct.mean()) for of, each in now.items()},
            "auc": {of: mean_class_auc(each.logits, each.labels) for of, each in now.items()},
            "membership": _attacked(before, now, seed),
        }

    # --- convergence ------------------------------------------------------------------------------------------------------

    def objective(self, tensors: Tensors) -> float:
        """The regularised mean loss on the retained rows."""
        losses = example_losses(self.task, tensors, {"retain": self.deletion.after})["retain"]
        return float(losses.mean()) + self.step.l2 / 2 * sum(
            float(tensors[name].double().square().sum()) for name in self.moved
        )

    def convergence(self, made: Mapping[str, Tensors]) -> dict[str, Any]:
        """Loss on the retained rows above the least, by rewind.

        With a gradient that is off by at most b = 2 m G / n in the T - K steps on all rows, and a step of at most 1 / L, an
        objective of Polyak-Łojasiewicz constant mu ends within (1 - eta mu)^T (f_0 - f*) + (1 - eta mu)^K (b² / 2 mu)
        (1 - (1 - eta mu)^(T - K)) of its least value f* (derived here in the setting of the paper's Corollary under that
        condition, whose own constants it does not print). Without a proved mu, L and G no bound is drawn.
        """
        trail, facts = self.trained.trail, self.trained.facts
        assert trail is not None
        deepest = made["r2d 100%"]
        least = self.objective(self.descended(deepest, BEYOND * self.recipe.steps))
        start = self.objective(trail.iterates[0])
        constants = {
            name: facts[name].value for name in ("strong_convexity", "smoothness", "gradient_bound") if name in facts
        }
        proved = all(facts[name].origin.value == "proved" for name in constants) and len(constants) == 3
        mu, steps, eta = constants.get("strong_convexity") or 0.0, self.recipe.steps, self.step.lr
        holds = proved and mu > 0 and eta * constants["smoothness"] <= 1
        points = []
        for rewind in REWINDS:
            redone = steps - rewind_step(steps, rewind)
            bound = None
            if holds:
                off = 2 * len(self.deletion.forget) * constants["gradient_bound"] / len(self.deletion.before)
                shrunk = 1 - eta * mu
                bound = shrunk**steps * (start - least) + shrunk**redone * off**2 / (2 * mu) * (
                    1 - shrunk ** (steps - redone)
                )
            excess = self.objective(made[f"r2d {rewind:.0%}"]) - least
            points.append({"rewind": rewind, "excess": excess, "bound": bound})
        why = (
            "" if holds else "the constants of the condition are not proved for this model, or its step is above 1 / L"
        )
        return {"least": least, "points": points, "no_bound": why}


def _must_have_learnt(task: Classification, trained: Trained, data: Rows) -> None:
    right = float(read(task, trained.artifact.tensors, {"train": data})["train"].correct.mean())
    known = knowledge(right, data.classes)
    if known.value < known.least:
        raise InputError(
            f"The model gets {known.value:.1%} of {known.what} right, below {known.bar} ({known.least:.1%}): there is "
            "nothing to forget, and no curve would mean anything. Train it longer, or with another learning rate."
        )


def _attacked(before: Readings, now: Readings, seed: int) -> dict[str, Any]:
    """The attack on losses, and the one on how far outputs moved (MIA-U); empty where one side has too few rows."""
    if min(len(now[of].labels) for of in ("forget", "test")) < FOLDS:
        return {}
    far = {of: moved(before[of].logits, now[of].logits) for of in ("forget", "test")}
    return {
        "loss": asdict(folded_auc(-now["forget"].losses, -now["test"].losses, seed=seed, resamplings=RESAMPLINGS)),
        "outputs_moved": asdict(folded_auc(far["forget"], far["test"], seed=seed, resamplings=RESAMPLINGS)),
    }
