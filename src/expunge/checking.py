"""Everything that could refute a certificate: a run is done again by expunge's own code and compared with what was released."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from expunge.core.certificate import Certificate
from expunge.core.digest import finite
from expunge.core.errors import ExpungeError
from expunge.core.measurement import Check
from expunge.core.method import Context, InMemory, Outcome, Release, Replayable, Watch
from expunge.core.trained import Trained
from expunge.evidence import refutation
from expunge.evidence.distance import trainable_distance
from expunge.methods import registry
from expunge.privacy.again import settled
from expunge.privacy.noise import SystemNoise
from expunge.privacy.replay import realised_epsilon
from expunge.training.descent import descend
from expunge.training.recipes import GradientDescent, Stochastic

Tensors = Mapping[str, torch.Tensor]


def checks_of(
    outcome: Outcome,
    retrained: Trained | None,
    names: tuple[str, ...],
    sigma: float,
    trials: int,
    watch: Watch,
) -> tuple[list[Check], dict[str, Any]]:
    """Everything that could refute the certificate of a release, for every release; and numbers that stay private."""
    run, checks, private = _Run(outcome, retrained, names, watch), list[Check](), dict[str, Any]()
    several = len(outcome.releases) > 1
    for release in outcome.releases:
        if release.certificate is None:
            continue
        own, secrets = _checks_of_release(run, release, release.certificate, sigma, trials)
        checks += [replace(check, view=release.view if several else None) for check in own]
        private |= {f"{name}@{release.view}" if several else name: secret for name, secret in secrets.items()}
    return checks, private


@dataclass(frozen=True, eq=False)
class _Run:
    """A run, and what is done again once for all of its releases: their certificates are of one claim."""

    outcome: Outcome
    retrained: Trained | None
    names: tuple[str, ...]
    watch: Watch

    @cached_property
    def replayed(self) -> Tensors | Check | None:
        """See :func:`_replayed`."""
        assert self.outcome.certificate is not None
        return _replayed(self.outcome, self.outcome.certificate, self.watch)

    @cached_property
    def recovered(self) -> Tensors | None:
        """See :func:`_recovered`."""
        return _recovered(self.outcome, self.watch)

    @cached_property
    def trail(self) -> Check | None:
        """See :func:`_trail`."""
        assert self.outcome.certificate is not None
        return _trail(self.outcome, self.outcome.certificate, self.names, self.watch)


def _checks_of_release(
    run: _Run, release: Release, certificate: Certificate, sigma: float, trials: int
) -> tuple[list[Check], dict[str, Any]]:
    """Everything that could refute this release's certificate."""
    outcome, before, names = run.outcome, run.outcome.before, run.names
    old, new = before.view(release.view).tensors, release.artifact.tensors
    theorem, checks, private = certificate.parameters["theorem"], list[Check](), dict[str, Any]()
    if theorem in _RECOVERED and outcome.own:
        return [refutation.recovery_check(new, run.recovered)] if run.recovered else [], {}
    if theorem not in _REPLAYED:
        return [], {}
    retrained = None if run.retrained is None else run.retrained.view(release.view).tensors
    if theorem == "retrain":
        replayed = retrained if type(before.recipe) in (GradientDescent, Stochastic) else None
    else:
        replayed = run.replayed
    if isinstance(replayed, Check):
        return [replayed], {}
    state = outcome.after.state if outcome.after.state is not None else replayed
    if replayed is not None:
        checks.append(refutation.replay_check(new, replayed, certificate.sigma, names))
    if state is None:
        return checks, private
    if replayed is not None:
        checks.append(refutation.steps_check(state, replayed, names))
    if theorem == "rewind-to-delete" and run.trail:
        checks.append(run.trail)
    if before.state is not None and sigma and certificate.sigma > 0 and _carries_noise(old, before.state, names):
        checks.append(refutation.noise_reuse_check((old, before.state), (new, state), names))
    if retrained is not None and certificate.sigma > 0 and theorem != "retrain":
        plain = _counterpart(outcome, certificate, retrained)
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
                    certificate.delta, refutation.LEVEL / len(outcome.releases),
                )
            )  # fmt: skip
    return checks, private


# Theorems whose release is what steps without noise on the retained rows make of the weights that the last draw left.
_RECOVERED = ("noisy-fine-tuning", "masked-rr-du")
# Theorems whose procedure is deterministic up to the noise: what a method says it did is done again by our own code.
_REPLAYED = ("rewind-to-delete", "descent-to-delete", "newton", "network-newton", "retrain")


def _replayed(outcome: Outcome, certificate: Certificate, watch: Watch) -> Tensors | Check | None:
    """The un-noised weights that the certificate's steps lead to, computed by the theorem's own implementation.

    By the theorem and not by the method: a method that replays itself repeats its own mistakes. ``None`` where the
    reference is not at hand; a failed check where the steps cannot be made at all.
    """
    before, p = outcome.before, certificate.parameters
    if outcome.deletion.after is None:
        return None
    own = ("newton", "network_newton")
    settings = outcome.method["settings"] if outcome.method["name"] in own else {}
    agreed = {name: p[name] for name in ("distance", "tau") if name in p}  # of a network: what a correction must keep
    try:
        method: Replayable = {
            "rewind-to-delete": lambda: registry.make("r2d", {"rewind": p["rewind"] / p["steps"]}),
            "descent-to-delete": lambda: registry.make("descent_to_delete", {"steps": p["unlearn_steps"]}),
            "newton": lambda: registry.make("newton", settings),
            "network-newton": lambda: registry.make("network_newton", {**settings, **agreed}),
        }[p["theorem"]]()
        return method.replay(Context(before.task, before, outcome.deletion, "replay", SystemNoise(), InMemory(), watch))
    except ExpungeError as error:
        return Check("replay", False, f"The steps that the certificate speaks of cannot be made again: {error}")


def _recovered(outcome: Outcome, watch: Watch) -> Tensors | None:
    """What a method's steps without noise make of the weights that the last draw of noise left."""
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
    repeated = descend(
        before.task, before.task.build(), trail.at(0), batch, before.recipe.step, at, watch=watch, stage="trail"
    )
    return refutation.trail_check(trail.at(at), repeated[0], names)


def _carries_noise(released: Tensors, state: Tensors, names: tuple[str, ...]) -> bool:
    """Whether a model was released as its un-noised weights plus one draw; noisy fine-tuning keeps no such weights."""
    return any(not torch.equal(released[n].cpu(), state[n].cpu()) for n in names)


def _counterpart(outcome: Outcome, certificate: Certificate, retrained: Tensors) -> Tensors:
    """The un-noised weights that the certificate compares with: retrained, or for Newton the minimiser itself."""
    if certificate.parameters["theorem"] != "newton":
        return retrained
    from expunge.methods.newton import minimise

    task, l2 = outcome.before.task, outcome.before.fact("l2", 0.0)
    batch = task.batch(outcome.deletion.after)
    return minimise(task, task.build(), retrained, batch, l2, tolerance=1e-13, max_steps=50)[0]


def settle(release: Release, checks: Sequence[Check]) -> Release:
    """The release with its certificate as it stands after the checks of its run; see ``privacy.again``."""
    certificate = release.certificate
    return release if certificate is None else replace(release, certificate=settled(certificate, checks, release.view))
