"""Measure an outcome beside retraining: trains the references that evidence needs, then lets evidence read them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from expunge.auditing import one_run_audit
from expunge.checking import checks_of, settle
from expunge.core.certificate import Verdict
from expunge.core.data import Ids
from expunge.core.measurement import Evidence, Key, Measurement
from expunge.core.method import Outcome, Watch, silent
from expunge.core.task import Task
from expunge.core.trained import Trained
from expunge.data.rows import Rows, joined
from expunge.evidence import membership
from expunge.evidence.answers import answer_means
from expunge.evidence.distance import change_per_module, trainable_distance
from expunge.evidence.utility import utility
from expunge.metrics.catalogue import measurement
from expunge.metrics.intervals import Interval, mean_interval
from expunge.privacy.noise import SeededNoise
from expunge.report.measurement_names import recorded_name
from expunge.training.descent import trainable
from expunge.training.recipes import GradientDescent
from expunge.training.references import ReferenceSettings, train_references

Tensors = Mapping[str, torch.Tensor]
POOL_PER_FORGOTTEN = 5  # held-out rows per forgotten row in the attacked pool: more negatives, smaller intervals
POOL_AT_MOST = 2000


@dataclass(frozen=True)
class MeasureSettings:
    """What to measure and how hard.

    Attributes:
        reference: ``retrained``, or ``none`` where retraining is not wanted: ideals are then unknown.
        references: shadow models of the likelihood-ratio attack; 0 leaves it out. 16: the fewest that give each record
            eight on either side, UNKNOWN as an optimum.
        twins: further retrainings from other seeds, for what two retrainings differ by.
        trials: releases per world of the two-world test.
        audit: whether to train and unlearn once more for the one-run audit.
        seed: of shadow models, pools and twins; never of certified noise.
    """

    reference: str = "retrained"
    references: int = 16
    twins: int = 4
    trials: int = 400
    audit: bool = True
    seed: int = 0


@dataclass(frozen=True)
class _Models:
    """The three that every number stands beside, and the twins that say what chance does."""

    original: Tensors
    unlearned: Tensors
    retrained: Tensors | None
    twins: tuple[Tensors, ...]


def measure(
    outcome: Outcome, settings: MeasureSettings | None = None, *, reference: str | None = None, watch: Watch = silent
) -> Evidence:
    """Measure ``outcome``; a certificate that a check refutes comes back void.

    Args:
        reference: shorthand for ``settings.reference``.

    Returns:
        Evidence whose ``outcome`` carries the certificates as they stand after the checks.

    Formal guarantee: none; what is measured can refute and cannot prove.
    """
    settings = settings or MeasureSettings()
    if reference is not None:
        settings = replace(settings, reference=reference)
    before, deletion, task = outcome.before, outcome.deletion, outcome.before.task
    again, seconds = _retrained(outcome, settings, watch)
    names = trainable(task.build())
    sigma = before.budget.sigma if before.budget and before.budget.sigma else 0.0
    noise = SeededNoise(settings.seed + 1)  # of comparison models; nothing that is released

    def released(plain: Tensors) -> Tensors:
        return {**plain, **noise.add({n: plain[n] for n in names}, sigma)[0]} if sigma else plain

    twins = _twins(outcome, settings, again, watch)
    measurements: list[Measurement] = []
    private: dict[str, Any] = {}
    sets = {"retain": deletion.after, "forget": deletion.forget, **deletion.probes}
    if len(deletion.touched):
        sets["touched"] = deletion.after.only(deletion.touched)
    sets = {name: rows for name, rows in sets.items() if rows is not None}
    for release in outcome.releases:
        models = _Models(
            before.view(release.view).tensors,
            release.artifact.tensors,
            None if again is None else released(again.view(release.view).tensors),
            tuple(released(twin.view(release.view).tensors) for twin in twins),
        )
        view = None if len(outcome.releases) == 1 else release.view
        measurements += _utilities(task, models, sets, view)
        if "test" in sets and deletion.member and task.name == "classification":
            found, details = _membership(outcome, models, sets, settings, watch, view)
            measurements += found
            private |= details
        if again is not None:
            apart = trainable_distance(task.build(), release.artifact.tensors, models.retrained or {})
            spread = [trainable_distance(task.build(), models.retrained or {}, twin) for twin in models.twins]
            measurements.append(
                measurement(
                    "distance", apart, view=view, null=float(np.mean(spread)) if spread else None, reference="retrained",
                    original=trainable_distance(task.build(), models.original, models.retrained or {}),
                )
            )  # fmt: skip
    checks, secrets = checks_of(outcome, again, names, sigma, settings.trials, watch)
    private |= secrets
    if settings.audit and again is not None:
        checks += one_run_audit(outcome)
    cost = {
        "seconds": {"unlearn": outcome.cost["seconds"], "retrain": seconds},
        "gradient_evaluations": {
            "unlearn": outcome.cost["gradient_evaluations"],
            "retrain": None if again is None else _row_gradients(again, len(deletion.after)),
        },
        "peak_memory_bytes": outcome.cost["peak_memory_bytes"],
        "change_per_module": _module_change(task, outcome),
    }
    settled = replace(outcome, releases=tuple(settle(release, checks) for release in outcome.releases))
    if settled.verdict == Verdict.VOID != outcome.verdict and any(
        item.request == outcome.request["id"] for item in outcome.after.book.spent()
    ):
        outcome.after.book.void(outcome.request["id"])
    return Evidence(settled, tuple(measurements), tuple(checks), cost, None if again is None else "retrained", private)


def _retrained(outcome: Outcome, settings: MeasureSettings, watch: Watch) -> tuple[Trained | None, float | None]:
    """The model retrained without all ids removed so far, un-noised, and how long it took."""
    before, deletion = outcome.before, outcome.deletion
    if settings.reference == "none" or before.recipe is None or deletion.after is None or not deletion.member:
        return None, None
    started = time.perf_counter()
    again = before.recipe.fit(
        before.task, deletion.after, seed=before.seed, watch=lambda stage, done, total: watch("retrain", done, total)
    )
    return again, time.perf_counter() - started


def _row_gradients(again: Trained, rows: int) -> int | None:
    """Per-row gradients of a training: steps over all rows, or over batches, or epochs; ``None`` where nobody knows."""
    if "steps" in again.facts:
        return int(again.fact("steps")) * rows
    steps, epochs = (getattr(again.recipe, name, None) for name in ("steps", "epochs"))
    if steps is not None:
        return int(steps) * min(rows, int(getattr(again.recipe, "batch_size", rows)))
    return None if epochs is None else int(epochs) * rows


def _twins(outcome: Outcome, settings: MeasureSettings, again: Trained | None, watch: Watch) -> tuple[Trained, ...]:
    """Retrainings from other seeds; where the recipe's start does not depend on a seed, only their noise will differ."""
    before, deletion = outcome.before, outcome.deletion
    if again is None or before.recipe is None or settings.twins == 0:
        return ()
    first, second = (before.task.build(seed=seed).state_dict() for seed in (before.seed, before.seed + 1))
    if all(torch.equal(first[name], second[name]) for name in first):
        return (again,) * settings.twins
    made = []
    for i in range(settings.twins):
        made.append(before.recipe.fit(before.task, deletion.after, seed=before.seed + 1 + i))
        watch("twins", i + 1, settings.twins)
    return tuple(made)


def _utilities(task: Task, models: _Models, sets: Mapping[str, Any], view: str | None) -> list[Measurement]:
    """Accuracy and mean loss, or what is made of right answers, on every set, for all models side by side."""
    sets = {name: rows for name, rows in sets.items() if len(rows)}
    of = {"classification": _classified, "language": answer_means}.get(task.name, _mean_losses)
    here, original = of(task, models.unlearned, sets), of(task, models.original, sets)
    ideal = of(task, models.retrained, sets) if models.retrained is not None else {}
    twins = [of(task, twin, sets) for twin in models.twins]
    return [
        _beside((metric, name, view), found, len(sets[name]), original[metric, name].value,
                ideal[metric, name].value if ideal else None, [twin[metric, name].value for twin in twins])
        for (metric, name), found in here.items()
    ]  # fmt: skip


def _beside(
    key: Key, found: Interval, n: int, original: float | None, ideal: float | None, twins: list[float]
) -> Measurement:
    """A measurement beside retraining; its null is twice the spread of the twins around the retrained model."""
    null = None
    if ideal is not None and twins:
        null = 2 * float(np.sqrt(np.mean([(value - ideal) ** 2 for value in twins])))
    reference = None if ideal is None else "retrained"
    metric, name, view = key
    return measurement(
        metric, found.value, found.pair, n, set=name, view=view, ideal=ideal, null=null, original=original,
        reference=reference,
    )  # fmt: skip


def _classified(task: Task, tensors: Tensors, sets: Mapping[str, Any]) -> dict[tuple[str, str], Interval]:
    found = utility(task, tensors, sets)
    return {("accuracy", n): item.accuracy for n, item in found.items()} | {
        ("loss", n): item.loss for n, item in found.items()
    }


def _mean_losses(task: Task, tensors: Tensors, sets: Mapping[str, Any]) -> dict[tuple[str, str], Interval]:
    return {("loss", name): mean_interval(_losses(task, tensors, rows)) for name, rows in sets.items()}


def _losses(task: Task, tensors: Tensors, rows: Any) -> list[float]:
    model = task.build().eval()
    with torch.no_grad():
        return task.losses(model, dict(tensors), task.batch(rows)).double().cpu().tolist()


def _membership(
    outcome: Outcome, models: _Models, sets: Mapping[str, Any], settings: MeasureSettings, watch: Watch, view: str | None,
) -> tuple[list[Measurement], dict[str, Any]]:  # fmt: skip
    """Attacks that tell forgotten rows from held-out ones, on all models; per-record scores stay private."""
    task, forget, holdout = outcome.before.task, sets["forget"], sets["test"]
    attacks: dict[str, Callable[[Tensors], membership.Attack]] = {
        "loss": lambda tensors: membership.loss_attack(task, tensors, forget, holdout),
        "confidence": lambda tensors: membership.confidence_attack(task, tensors, forget, holdout),
    }
    if (shadows := _shadows(outcome, sets, settings, watch)) is not None:
        pool, scores = shadows
        attacks["lira"] = lambda tensors: membership.lira_attack(task, tensors, forget, pool, scores)
    items, private = [], {}
    for kind, attack in attacks.items():
        found, original = attack(models.unlearned), attack(models.original).auc.value
        ideal = None if models.retrained is None else attack(models.retrained).auc.value
        twins = [attack(twin).auc.value for twin in models.twins]
        key = (f"membership_{kind}", None, view)
        items.append(_beside(key, found.auc, sum(found.n), original, ideal, twins))
        private[recorded_name(key)] = found.forgotten.tolist()
    return items, private


def _shadows(
    outcome: Outcome, sets: Mapping[str, Any], settings: MeasureSettings, watch: Watch
) -> tuple[Rows, membership.ReferenceScores] | None:
    """Held-out pool and reference scores for the likelihood-ratio attack.

    The recipe is run on all retained rows and a random half of forgotten and held-out ones each; ``None`` where the
    recipe is not one that can be repeated so (anything but descent on record).
    """
    recipe, task = outcome.before.recipe, outcome.before.task
    if not isinstance(recipe, GradientDescent) or settings.references < 4 or not len(sets["forget"]):
        return None
    generator = np.random.default_rng(settings.seed)
    retained, forget, holdout = sets["retain"], sets["forget"], sets["test"]
    size = min(len(holdout), POOL_PER_FORGOTTEN * len(forget), POOL_AT_MOST)
    pool = holdout.only(Ids.rows(generator.choice(holdout.ids, size, replace=False)))
    count = settings.references // 2 * 2
    members = membership.reference_membership(len(retained), len(forget) + size, count, generator)
    how = ReferenceSettings(recipe.step, steps=recipe.steps)
    seeds = [settings.seed + 1000 + i for i in range(count)]
    shadows = train_references(task, joined([retained, forget, pool]), members, how, seeds, watch=watch)
    return pool, membership.reference_scores(task, shadows, members, forget, pool)


def _module_change(task: Task, outcome: Outcome) -> dict[str, Any]:
    """Relative change of each module between what was released before and now: un-noised weights would tell too much.

    Of a network the changes of each view, by its name.
    """
    changes = {}
    for release in outcome.releases:
        before, after = outcome.before.view(release.view).tensors, release.artifact.tensors
        changes[release.view] = change_per_module(task.build(), before, after) if before.keys() == after.keys() else {}
    return changes if len(changes) > 1 else next(iter(changes.values()))
