"""Measure an outcome beside retraining: trains the models that evidence needs, then lets evidence read them.

How models are read and scored is the business of their modality, which is found by the task's name
(``modalities.readings.reads``); tasks of no registered modality are measured by the mean loss of each set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from expunge.auditing import one_run_audit
from expunge.checking import checks_of, settle
from expunge.core.certificate import Verdict
from expunge.core.data import Deletion, Ids
from expunge.core.measurement import ANSWERS, AT, PICTURES, Check, Evidence, Measurement
from expunge.core.method import Outcome, Watch, silent
from expunge.core.task import Task
from expunge.core.trained import Trained
from expunge.data.partition import Partition
from expunge.data.rows import Rows, joined
from expunge.evidence.comparison import (
    RETRAINED,
    Controlled,
    Draws,
    Models,
    Reads,
    Relearns,
    Speaks,
    compared,
    compared_attacks,
    side_by_side,
)
from expunge.evidence.distance import change_per_module, trainable_distance
from expunge.evidence.membership import FORGET, Shadows, possible, shadow_members
from expunge.metrics.catalogue import measurement
from expunge.modalities.readings import reads
from expunge.privacy.noise import SeededNoise
from expunge.report.measurement_names import recorded_name
from expunge.training.descent import trainable
from expunge.training.ensembles import train_stacked
from expunge.training.recipes import GradientDescent, example_gradients, for_comparison
from expunge.training.retrainings import stackable
from expunge.training.shadow_models import EnsembleSettings, train_shadow_models, unstacked

Tensors = Mapping[str, torch.Tensor]
POOL_PER_FORGOTTEN = 5  # held-out examples per forgotten one in the attacked pool: more negatives, smaller intervals
POOL_AT_MOST = 2000


@dataclass(frozen=True)
class MeasureSettings:
    """What to measure and how hard.

    Attributes:
        reference: ``retrained``, or ``none`` where retraining is not wanted: ideals are then unknown.
        shadow_models: of the likelihood-ratio attack; 0 leaves it out. 16: the fewest that give each example eight on
            either side, UNKNOWN as an optimum.
        replicates: further retrainings from other seeds, for what two retrainings differ by.
        trials: releases per world of the two-world test.
        audit: whether to train and unlearn once more for the one-run audit.
        seed: of shadow models, pools and replicates; never of certified noise.
        relearning: most steps of training again on something new of what was forgotten, where the kind of model has such an
            attack (``evidence.comparison.Relearns``); 0 leaves it out. ``relearning_lr``: its learning rate.
    """

    reference: str = "retrained"
    shadow_models: int = 16
    replicates: int = 4
    trials: int = 400
    audit: bool = True
    seed: int = 0
    relearning: int = 0
    relearning_lr: float = 1e-3


def measure(
    outcome: Outcome, settings: MeasureSettings | None = None, *, reference: str | None = None, watch: Watch = silent
) -> Evidence:
    """Measure ``outcome``; a certificate that a check refutes comes back void.

    How its models are read and scored says the modality that has the name of the outcome's task, registered here or by a
    package (``expunge.modalities``); where there is none, the mean loss of each set is measured.

    Args:
        outcome: what ``Plan.run`` returned.
        settings: what to measure and how hard; the defaults of :class:`MeasureSettings` where not given.
        reference: shorthand for ``settings.reference``.
        watch: called with stage, steps done and steps in all.

    Returns:
        Evidence whose ``outcome`` carries the certificates as they stand after the checks.

    Formal guarantee: none; what is measured can refute and cannot prove.
    """
    settings = settings or MeasureSettings()
    if reference is not None:
        settings = replace(settings, reference=reference)
    before, deletion, task = outcome.before, outcome.deletion, outcome.before.task
    retrained, seconds = _retrained(outcome, settings, watch)
    replicates = _replicates(outcome, settings, retrained, watch)
    names = trainable(task.build())
    sigma = before.budget.sigma if before.budget and before.budget.sigma else 0.0
    noise = SeededNoise(settings.seed + 1)  # of comparison models; nothing that is released

    def released(plain: Tensors) -> Tensors:
        return {**plain, **noise.add({n: plain[n] for n in names}, sigma)[0]} if sigma else plain

    kind, sets = reads(task), sets_of(outcome.deletion)
    shadows = _shadows(outcome, kind, sets, settings, watch)
    measurements: list[Measurement] = []
    told: list[Check] = []
    private: dict[str, Any] = {}
    for release in outcome.releases:
        models = Models(
            release.artifact.tensors,
            before.view(release.view).tensors,
            None if retrained is None else released(retrained.view(release.view).tensors),
            tuple(released(weights(release.view)) for weights in replicates),
        )
        view = None if len(outcome.releases) == 1 else release.view
        held = {**sets, **at_peers(deletion, release.views)}
        readings = models.each(lambda tensors, held=held: kind.read(task, tensors, held))
        if isinstance(kind, Speaks) and ANSWERS not in private:
            private[ANSWERS] = kind.said(task, models, sets)
        if isinstance(kind, Draws) and PICTURES not in private:
            private[PICTURES] = kind.pictures(readings)
        measurements += compared(kind, readings, view)
        measurements += _relearned(kind, task, models, held, settings, view)
        told += kind.controls(readings.unlearned) if isinstance(kind, Controlled) else []
        if deletion.member:  # authored material was never trained on: no attack could tell it from other examples
            items, scores = compared_attacks(kind, readings, sets, shadows, view)
            measurements += items
            private |= {recorded_name((metric, None, view)): forgotten for metric, forgotten in scores.items()}
        if models.retrained is not None:
            measurements.append(_distance(task, models, view))
    checks, secrets = checks_of(outcome, retrained, names, sigma, settings.trials, watch)
    private |= secrets
    checks = [*checks, *told]
    if settings.audit and retrained is not None:
        checks += one_run_audit(outcome)
    cost = {
        "seconds": {"unlearn": outcome.cost["seconds"], "retrain": seconds},
        "gradient_evaluations": {
            "unlearn": outcome.cost["gradient_evaluations"],
            "retrain": None if retrained is None else example_gradients(retrained, len(deletion.after)),
        },
        "peak_memory_bytes": outcome.cost["peak_memory_bytes"],
        "change_per_module": _module_change(task, outcome),
    }
    settled = replace(outcome, releases=tuple(settle(release, checks) for release in outcome.releases))
    if settled.verdict == Verdict.VOID != outcome.verdict and any(
        item.request == outcome.request["id"] for item in outcome.after.book.spent()
    ):
        outcome.after.book.void(outcome.request["id"])
    return Evidence(
        settled, tuple(measurements), tuple(checks), cost, None if retrained is None else RETRAINED, private, retrained
    )


def sets_of(deletion: Deletion) -> dict[str, Any]:
    """The named sets that are measured on: retained, forgotten and changed examples, and the probes; none of them empty.

    Where material was written for the purpose, a probe called ``forget`` takes its place: what is to be forgotten itself.
    """
    sets = {"retain": deletion.after, FORGET: deletion.forget, **deletion.probes}
    if len(deletion.touched):
        sets["touched"] = deletion.after.only(deletion.touched)
    return {name: examples for name, examples in sets.items() if examples is not None and len(examples)}


def at_peers(deletion: Deletion, peers: Collection[str]) -> dict[str, Any]:
    """Of a network: the rows that each of ``peers`` has, of the test rows where these have owners, else of those it retains."""
    name = "test" if isinstance(deletion.probes.get("test"), Partition) else "retain"
    rows = deletion.probes["test"] if name == "test" else deletion.after
    if not isinstance(rows, Partition):
        return {}
    return {f"{name}{AT}{peer}": rows.held_by([peer]) for peer in peers if peer in rows.clients}


def _retrained(outcome: Outcome, settings: MeasureSettings, watch: Watch) -> tuple[Trained | None, float | None]:
    """The model retrained without all ids removed so far, un-noised, and how long it took."""
    before, deletion = outcome.before, outcome.deletion
    if settings.reference == "none" or before.recipe is None or deletion.after is None:
        return None, None
    if not deletion.member and not len(deletion.absent):  # nothing says what a model that never knew it would lack
        return None, None
    started = time.perf_counter()
    retrained = for_comparison(before.recipe).fit(
        before.task, deletion.after, seed=before.seed, watch=lambda stage, done, total: watch("retrain", done, total)
    )
    return retrained, time.perf_counter() - started


def _replicates(
    outcome: Outcome, settings: MeasureSettings, retrained: Trained | None, watch: Watch
) -> tuple[Callable[[str], Tensors], ...]:
    """Retrainings from other seeds: of each what a view holds. Small models train together, equal up to rounding to each alone.

    Where the recipe's start does not depend on a seed, only their noise will differ.
    """
    before, rows, count = outcome.before, outcome.deletion.after, settings.replicates
    if retrained is None or before.recipe is None or count == 0:
        return ()
    first, second = (before.task.build(seed=seed).state_dict() for seed in (before.seed, before.seed + 1))
    if all(torch.equal(first[name], second[name]) for name in first):
        return (_held(retrained),) * count
    seeds = [before.seed + 1 + i for i in range(count)]
    if count > 1 and isinstance(rows, Rows) and (how := stackable(before.task, rows, before.recipe)) is not None:
        stacked = train_stacked(before.task, rows, np.ones((count, len(rows)), dtype=bool), how, seeds)
        watch("replicates", count, count)
        return tuple(_the_same(unstacked(stacked, i)) for i in range(count))
    made = []
    for i, seed in enumerate(seeds):
        made.append(_held(for_comparison(before.recipe).fit(before.task, rows, seed=seed)))
        watch("replicates", i + 1, count)
    return tuple(made)


def _the_same(tensors: Tensors) -> Callable[[str], Tensors]:
    """One model, whoever looks."""
    return lambda _: tensors


def _held(trained: Trained) -> Callable[[str], Tensors]:
    """The weights that each view holds."""
    return lambda view: trained.view(view).tensors


def _relearned(
    kind: Any, task: Task, models: Models[Tensors], sets: Mapping[str, Any], settings: MeasureSettings, view: str | None
) -> list[Measurement]:
    """How soon each model learns again what was to be forgotten, where its kind says how that is measured."""
    if not settings.relearning or not isinstance(kind, Relearns):
        return []
    steps, lr = settings.relearning, settings.relearning_lr
    return side_by_side(models.each(lambda tensors: kind.relearned(task, tensors, sets, steps, lr)), view)


def _distance(task: Task, models: Models[Tensors], view: str | None) -> Measurement:
    """How far the released weights are from the retrained ones; its null is what the replicates are apart from these."""
    assert models.retrained is not None and models.original is not None
    model, retrained = task.build(), models.retrained
    spread = [trainable_distance(model, retrained, each) for each in models.replicates]
    return measurement(
        "distance", trainable_distance(model, models.unlearned, retrained), view=view,
        null=float(np.mean(spread)) if spread else None, reference=RETRAINED,
        original=trainable_distance(model, models.original, retrained),
    )  # fmt: skip


def _shadows(
    outcome: Outcome, kind: Reads, sets: Mapping[str, Any], settings: MeasureSettings, watch: Watch
) -> Shadows | None:
    """Shadow models for the attacks that compare with them: the recipe on all retained examples, and on a random half of the
    forgotten ones and of a held-out pool each.

    ``None`` where no attack needs them, or training is not one that can be repeated so (anything but descent on record).
    """
    recipe, task = outcome.before.recipe, outcome.before.task
    attack = next((each for each in kind.attacks if each.shadows and possible(each, sets)), None)
    if attack is None or not outcome.deletion.member or settings.shadow_models < 4:
        return None
    if not isinstance(recipe, GradientDescent):
        return None
    generator = np.random.default_rng(settings.seed)
    retained, forget, holdout = sets["retain"], sets[FORGET], sets[attack.heldout]
    size = min(len(holdout), POOL_PER_FORGOTTEN * len(forget), POOL_AT_MOST)
    pool = holdout.only(Ids.rows(generator.choice(holdout.ids, size, replace=False)))
    count = settings.shadow_models // 2 * 2
    members = shadow_members(len(retained), len(forget) + size, count, generator)
    how = EnsembleSettings(recipe.step, steps=recipe.steps)
    seeds = [settings.seed + 1000 + i for i in range(count)]
    stacked = train_shadow_models(task, joined([retained, forget, pool]), members, how, seeds, watch=watch)
    readings = tuple(
        kind.read(task, unstacked(stacked, i), {FORGET: forget, attack.heldout: pool}) for i in range(count)
    )
    return Shadows(readings, members[:, len(retained) :], np.flatnonzero(np.isin(holdout.ids, pool.ids)))


def _module_change(task: Task, outcome: Outcome) -> dict[str, Any]:
    """Relative change of each module between what was released before and now: un-noised weights would tell too much.

    Of a network the changes of each view, by its name.
    """
    changes = {}
    for release in outcome.releases:
        before, after = outcome.before.view(release.view).tensors, release.artifact.tensors
        changes[release.view] = change_per_module(task.build(), before, after) if before.keys() == after.keys() else {}
    return changes if len(changes) > 1 else next(iter(changes.values()))
