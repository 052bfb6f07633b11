"""Everything that could refute a certificate: a run is done again by expunge's own code and compared with what was released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from expunge.core.certificate import Assumption, Certificate, Status
from expunge.core.digest import finite
from expunge.core.errors import InputError
from expunge.core.measurement import Check
from expunge.core.method import Context, InMemory, Outcome, Replayable, Watch
from expunge.core.trained import Origin, Trained
from expunge.evidence import refutation
from expunge.evidence.distance import trainable_distance
from expunge.methods import registry
from expunge.privacy.noise import SystemNoise
from expunge.privacy.replay import realised_epsilon
from expunge.training.descent import descend
from expunge.training.recipes import GradientDescent, Stochastic

Tensors = Mapping[str, torch.Tensor]


def checks_of(
    outcome: Outcome,
    again: Trained | None,
    names: tuple[str, ...],
    sigma: float,
    trials: int,
    watch: Watch,
) -> tuple[list[Check], dict[str, Any]]:
    """Everything that could refute the first release's certificate."""
    certificate, before = outcome.certificate, outcome.before
    if certificate is None:
        return [], {}
    checks: list[Check] = []
    private: dict[str, Any] = {}
    release = outcome.releases[0].artifact.tensors
    if certificate.parameters["theorem"] == "noisy-fine-tuning" and outcome.own:
        return [refutation.recovery_check(release, recovered)] if (recovered := _recovered(outcome, watch)) else [], {}
    if certificate.parameters["theorem"] not in _REPLAYED:
        return [], {}
    replayed = _replayed(outcome, certificate, again, watch)
    if isinstance(replayed, Check):
        return [replayed], {}
    state = outcome.after.state if outcome.after.state is not None else replayed
    if replayed is not None:
        checks.append(refutation.replay_check(release, replayed, certificate.sigma, names))
    if state is None:
        return checks, private
    if replayed is not None:
        checks.append(refutation.steps_check(state, replayed, names))
    if certificate.parameters["theorem"] == "rewind-to-delete" and (
        trail := _trail(outcome, certificate, names, watch)
    ):
        checks.append(trail)
    if before.state is not None and sigma and certificate.sigma > 0 and _carries_noise(before, names):
        checks.append(refutation.noise_reuse_check((before.artifact.tensors, before.state), (release, state), names))
    if again is not None and certificate.sigma > 0 and certificate.parameters["theorem"] != "retrain":
        plain = _counterpart(outcome, certificate, again)
        checks.append(refutation.retrain_check(state, plain, certificate, names))
        apart = trainable_distance(before.task.build(), state, plain)
        private["distance"] = apart
        private["realised_epsilon"] = finite(realised_epsilon(apart, certificate.sigma, certificate.delta))
        if trials >= 4 and np.isfinite(certificate.epsilon) and not before.spent:
            source = SystemNoise()

            def world(centre: Tensors) -> Callable[[], Tensors]:
                return lambda: source.add({n: centre[n] for n in names}, certificate.sigma)[0]

            checks.append(
                refutation.two_world_test(
                    world(state), world(plain), (state, plain), names, trials, max(certificate.epsilon, 1e-9),
                    certificate.delta,
                )
            )  # fmt: skip
    return checks, private


# Theorems whose procedure is deterministic up to the noise: what a method says it did is done again by our own code.
_REPLAYED = ("rewind-to-delete", "descent-to-delete", "newton", "retrain")


def _replayed(
    outcome: Outcome, certificate: Certificate, again: Trained | None, watch: Watch
) -> Tensors | Check | None:
    """The un-noised weights that the certificate's steps lead to, computed by the theorem's own implementation.

    By the theorem and not by the method: a method that replays itself repeats its own mistakes. ``None`` where the
    reference is not at hand; a failed check where the steps cannot be made at all.
    """
    before, p = outcome.before, certificate.parameters
    if p["theorem"] == "retrain":
        return again.artifact.tensors if again and type(before.recipe) in (GradientDescent, Stochastic) else None
    if outcome.deletion.after is None:
        return None
    settings = outcome.method["settings"] if outcome.method["name"] == "newton" else {}
    try:
        method: Replayable = {
            "rewind-to-delete": lambda: registry.make("r2d", {"rewind": p["rewind"] / p["steps"]}),
            "descent-to-delete": lambda: registry.make("descent_to_delete", {"steps": p["unlearn_steps"]}),
            "newton": lambda: registry.make("newton", settings),
        }[p["theorem"]]()
        return method.replay(Context(before.task, before, outcome.deletion, "replay", SystemNoise(), InMemory(), watch))
    except InputError as error:
        return Check("replay", False, f"The steps that the certificate speaks of cannot be made again: {error}")


def _recovered(outcome: Outcome, watch: Watch) -> Tensors | None:
    """What noisy fine-tuning's third step makes of the weights that the last draw of noise left."""
    if outcome.noisy is None or outcome.deletion.after is None:
        return None
    from safetensors.torch import load

    method = registry.make(outcome.method["name"], outcome.method["settings"])
    before, quiet = outcome.before, InMemory()
    context = Context(
        before.task, before, outcome.deletion, "replay", SystemNoise(), quiet, watch, generator_seed=outcome.seed
    )
    return method.recover(context, load(outcome.noisy))


def _trail(outcome: Outcome, certificate: Certificate, names: tuple[str, ...], watch: Watch) -> Check | None:
    """The stored iterate against training from the stored start; ``None`` after an earlier request, whose rows are gone."""
    before, p = outcome.before, certificate.parameters
    trail, at = before.trail, p["steps"] - p["rewind"]
    if trail is None or len(before.removed) or at not in trail.iterates or 0 not in trail.iterates or at == 0:
        return None
    if type(before.recipe) is not GradientDescent:
        return None
    batch = before.task.batch(outcome.deletion.before)
    again = descend(
        before.task, before.task.build(), trail.at(0), batch, before.recipe.step, at, watch=watch, stage="trail"
    )
    return refutation.trail_check(trail.at(at), again[0], names)


def _carries_noise(before: Trained, names: tuple[str, ...]) -> bool:
    """Whether the model before was released as its un-noised weights plus one draw; noisy fine-tuning keeps no such weights."""
    assert before.state is not None
    return any(not torch.equal(before.artifact.tensors[n].cpu(), before.state[n].cpu()) for n in names)


def _counterpart(outcome: Outcome, certificate: Certificate, again: Trained) -> Tensors:
    """The un-noised weights that the certificate compares with: retrained, or for Newton the minimiser itself."""
    if certificate.parameters["theorem"] != "newton":
        return again.artifact.tensors
    from expunge.methods.newton import minimise

    task, l2 = outcome.before.task, outcome.before.fact("l2", 0.0)
    batch = task.batch(outcome.deletion.after)
    return minimise(task, task.build(), again.artifact.tensors, batch, l2, tolerance=1e-13, max_steps=50)[0]


def settle(release: Any, checks: list[Check], *, first: bool) -> Any:
    """The release with its certificate as it stands after the checks, which looked at the first release.

    What refutes the first refutes all: they come from one run. What does not refute it says nothing about the others.
    """
    certificate: Certificate | None = release.certificate
    if certificate is None or not checks or not (first or any(check.passed is False for check in checks)):
        return release
    failed = [check.name for check in checks if check.passed is False]
    statement = "no check refuted it: " + ", ".join(check.name for check in checks)
    if failed:
        statement = "refuted by " + ", ".join(failed)
    item = Assumption("not_refuted", statement, Origin.ENFORCED, Status.VIOLATED if failed else Status.HOLDS)
    made = {check.name for check in checks if check.passed}
    kept = tuple(
        replace(known, origin=Origin.ENFORCED, status=Status.HOLDS)
        if first and known.name == "own_implementation" and {"replay", "replayed steps"} <= made
        else known  # a plug-in whose steps our own code did again, and whose release is that plus the stated noise
        for known in certificate.assumptions
    )
    return replace(release, certificate=replace(certificate, assumptions=(*kept, item)))
