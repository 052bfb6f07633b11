"""Train on record, publish, plan, run: the only place that knows every room below.

What a method says about its run is believed nowhere: the planner compares weights, digests and noise levels itself, and
certificates are made here from what it saw.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from expunge.core.certificate import UNCHANGED, Certificate
from expunge.core.data import Data, Deletion
from expunge.core.digest import digest_json
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.method import (
    Calibrated,
    Context,
    Estimate,
    InMemory,
    Method,
    Once,
    Outcome,
    Refusal,
    Release,
    Unlearned,
    Watch,
    silent,
)
from expunge.core.request import Request
from expunge.core.trained import Artifact, Budget, Spent, Trail, Trained
from expunge.methods import registry
from expunge.methods.release import least_sigma, noisy_release
from expunge.privacy.certify import Circumstances, certify
from expunge.privacy.noise import SystemNoise
from expunge.training.provenance import must_be_its_rows, trained_again


def train(task: Any, data: Any, recipe: Any, *, seed: int = 0, watch: Watch = silent) -> Trained:
    """Train on record: the model with its facts and, where the recipe keeps one, its trail.

    Raises:
        InputError: if the model does not accept the data, or training diverges.
    """
    task.check(data)
    return recipe.fit(task, data, seed=seed, watch=watch)


def adopt(task: Any, model: torch.nn.Module | Mapping[str, torch.Tensor], data: Data | None = None) -> Trained:
    """A model that was trained elsewhere: no recipe, no trail, no certificate that looks back, and evidence that says so.

    Raises:
        InputError: if the weights belong to another architecture than the task's.
    """
    tensors = model.state_dict() if isinstance(model, torch.nn.Module) else model
    built = task.build(tensors)
    named = task.released(built) if hasattr(task, "released") else built.state_dict()  # tied weights once
    return Trained(task, Artifact({name: t.detach().clone() for name, t in named.items()}), data)


def publish(
    trained: Trained, budget: Budget, *, method: Any = None, noise: Any = None, journal: Once | None = None
) -> Trained:
    """Fix noise and capacity before any request comes, and release the noisy model.

    Args:
        method: which method's bound sigma is derived from; R2D with its default rewind where not given. With
            ``budget.sigma`` set, sigma is as given by hand and the certificate will say so.

    Formal guarantee: none by itself; it makes later certificates possible (R2D spec 6.2: sigma before requests).

    Raises:
        InputError: if the bound needs a constant that is not known, or is infinite; if a budget is already published.
    """
    fixed = fix_budget(trained, budget, method)
    model, sigma = trained.task.build(), fixed.sigma or 0.0
    released, _ = noisy_release(
        model, trained.artifact.tensors, sigma, noise or SystemNoise(),
        _Scoped(journal or InMemory(), [trained.artifact.digest, sigma]), "published",
    )  # fmt: skip
    return replace(trained, artifact=Artifact(released), state=trained.artifact.tensors, budget=fixed)


def fix_budget(trained: Trained, budget: Budget, method: Any = None) -> Budget:
    """``budget`` with its noise level, derived from ``method``'s bound or taken as given by hand; draws nothing.

    Raises:
        InputError: as :func:`publish`, and for a hand-given sigma of 0, which would publish the un-noised weights.
    """
    if trained.budget is not None:
        raise InputError(
            "This model is published already; noise fixed twice is noise chosen after the fact. Train anew."
        )
    method = method or registry.make("r2d")
    if budget.sigma is not None:
        if budget.sigma == 0 and not budget.unnoised:
            raise InputError(
                "sigma=0 publishes the un-noised weights, which no certificate survives. Say unnoised=True if that is meant."
            )
        return replace(budget, by_hand=True, method=registry.settings_of(method))
    if not isinstance(method, Calibrated):
        raise InputError(
            f"{method.name} derives no noise from a budget; publish with r2d, descent_to_delete or newton."
        )
    # r releases of at most mu each compose to sqrt(r) mu, so sqrt(r) times the noise of one keeps the promise for all
    # noise that rounding swallows would promise what it cannot hold
    derived = float(method.calibrate(trained, budget)) * budget.releases**0.5
    sigma = max(derived, least_sigma(trained.task.build()))
    return replace(budget, sigma=sigma, method=registry.settings_of(method))


def plan(
    trained: Trained,
    request: Request,
    method: Any = None,
    *,
    key: bytes | None = None,
    probes: Mapping[str, Data] | None = None,
    material: Data | None = None,
    wording: Data | None = None,
    retained: Data | None = None,
    noise: Any = None,
    journal: Once | None = None,
    watch: Watch = silent,
    seed: int = 0,
) -> Plan:
    """Match the request, check that the method may run, and estimate; nothing is changed yet.

    Args:
        key: secret for the hashed forms of subject and ids; a throw-away one where not given.
        probes: further sets to measure on, for example ``{"test": rows}``.
        material: authored material to forget through, for models whose training rows are unknown or concepts.
        wording: the matched rows as the request words them, by the same ids; the method sees these in their place.
        retained: the retained rows as the method shall see them, for example with others beside them. What is measured and
            recorded stays with the rows that the model was trained on.

    Raises:
        InputError: if the request matches nothing, or everything.
        RefusedError: if the method cannot serve it here, with the methods that could.
    """
    import secrets

    method = method or registry.make("r2d")
    key = key or secrets.token_bytes(32)
    if trained.data is None and material is None:
        raise RefusedError(
            "The training data of this model are unknown: there is nothing to match the request against. "
            "Adopt the model with its data, or give material to forget through."
        )
    if material is not None:
        deletion = Deletion.authored(trained.data, material, probes)
    else:
        assert trained.data is not None
        deletion = Deletion.of(trained.data, request, probes)
    must_be_its_rows(trained, deletion.before)
    shown = deletion if wording is None else deletion.worded(wording)
    shown = shown if retained is None else replace(shown, after=retained)
    scope = [registry.settings_of(method)["digest"], trained.artifact.digest, deletion.ids.digest, seed]
    if shown.after is not None:
        scope.append(shown.after.digest)
    if wording is not None:
        scope.append(wording.digest)
    context = Context(
        task=trained.task, trained=trained, deletion=shown, request=request.id(key), noise=noise or SystemNoise(),
        journal=_Scoped(journal or InMemory(), scope), watch=watch, generator_seed=seed,
    )  # fmt: skip
    estimate = _check(method, context, request.kinds)
    if shown is not deletion:  # other words hide nothing: what is retained as well is refused under its own
        _check(method, replace(context, deletion=deletion), request.kinds)
    record = {
        **request.record(key),
        "matched": {"count": deletion.size, "ids": deletion.ids.hashed(key)},
    }
    if wording is not None:
        deletion = replace(deletion, probes={**deletion.probes, "wording": wording})
    return Plan(method, context, estimate, record, deletion)


class _Scoped:
    """A journal whose stages belong to one run: another request on the same journal never finds them."""

    def __init__(self, journal: Once, content: list[Any]):
        self._journal, self._scope = journal, digest_json(content)[:16]

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        return self._journal.once(f"{self._scope}.{name}", compute)


def _check(method: Method, context: Context, kinds: tuple[str, ...]) -> Estimate:
    """The method's estimate, or RefusedError with the reason and the methods that could serve."""
    answer = _answer(method, context, kinds)
    if isinstance(answer, Refusal):
        others = [name for name in eligible(context, kinds) if name != method.name]
        raise RefusedError(f"{answer} Eligible here: {', '.join(others) or 'none'}.")
    return answer


def _answer(method: Method, context: Context, kinds: tuple[str, ...]) -> Estimate | Refusal:
    """What the method says, or what speaks against it: kinds, data, capacity, and the budget left."""
    answer = refusal_of(method, context, kinds) or method.check(context)
    if isinstance(answer, Estimate):
        promised = answer.promises.get("epsilon")
        budget = context.trained.budget
        limit = budget.epsilon if budget else None
        if promised is not None and limit is not None and promised > limit * (1 + 1e-9):
            answer = Refusal(
                f"All releases together would come to epsilon {promised:.4g}, above the published {limit:g}.",
                "Retrain: that resets what was spent.",
            )
    return answer


def refusal_of(method: Method, context: Context, kinds: tuple[str, ...]) -> Refusal | None:
    """What can be refused without asking the method: kinds, task, missing data, capacity."""
    can = method.capabilities
    if unserved := [kind for kind in kinds if kind not in can.kinds]:
        return Refusal(
            f"{method.name} does not serve requests of kind {', '.join(unserved)}; it serves {', '.join(can.kinds)}."
        )
    if "*" not in can.tasks and context.task.name not in can.tasks:
        return Refusal(f"{method.name} runs on {', '.join(can.tasks)}, not on {context.task.name}.")
    if "retained data" in can.needs and context.deletion.after is None:
        return Refusal(f"{method.name} needs the retained data, which are unknown here.")
    if not context.deletion.member and (can.certified or "forgotten data" not in can.needs) and can.effect != "none":
        return Refusal(
            f"{method.name} forgets rows that the model was trained on; authored material is none of them.",
            "Use a method that learns from the material itself.",
        )
    budget = context.trained.budget
    if budget and "budget" in can.needs:
        removed = len(context.trained.removed | context.deletion.ids)
        if removed > budget.capacity:
            return Refusal(
                f"The request brings the records removed to {removed}; the published capacity is {budget.capacity}.",
                "Noise was fixed for that many: retrain, which resets it.",
            )
    return None


def eligible(context: Context, kinds: tuple[str, ...]) -> list[str]:
    """Names of methods whose defaults could serve this request, controls left out."""
    names = []
    for name in registry.targets():
        method = registry.load(name)()
        if method.capabilities.effect != "none" and isinstance(_answer(method, context, kinds), Estimate):
            names.append(name)
    return names


@dataclass(frozen=True)
class Plan:
    """A request that may run: what it will do, cost and promise.

    Attributes:
        method, context: what will run on what.
        estimate: cost and promises.
        record: the request's record with matched ids (hashed).
        deletion: what goes and stays; the context's is what the method sees of it (a request's own wording).
    """

    method: Method
    context: Context = field(repr=False)
    estimate: Estimate
    record: Mapping[str, Any]
    deletion: Deletion = field(repr=False)

    def run(self) -> Outcome:
        """Forget, look at what came, and certify what holds.

        Raises:
            FailedError: if the method says that it changes the model and left every tensor as it was, or a control
                changed something.
        """
        context, before = self.context, self.context.trained
        started, memory = time.perf_counter(), _peak_memory()
        result = self.method.run(context)
        seconds = time.perf_counter() - started
        change = _change(before, result)
        self._must_have_changed(change)
        releases = tuple(
            Release(view, artifact, self._certify(result, view, artifact)) for view, artifact in result.views.items()
        )
        first = releases[0]
        removed = before.removed | self.deletion.ids
        status = UNCHANGED if self.method.capabilities.effect == "none" else "fulfilled"
        return Outcome(
            status=status,
            request=self.record,
            method=registry.settings_of(self.method),
            releases=releases,
            before=before,
            after=before if status == UNCHANGED else self._after(result, first, removed),
            deletion=self.deletion,
            change=change,
            cost={
                "seconds": seconds,
                "gradient_evaluations": result.gradient_evaluations,
                "peak_memory_bytes": max(_peak_memory(), memory),
            },
            purged=result.purged,
            remains=result.remains,
            details=result.details,
        )

    def _must_have_changed(self, change: Mapping[str, float]) -> None:
        changed, effect = any(size > 0 for size in change.values()), self.method.capabilities.effect
        if not changed and effect != "none":
            raise FailedError(
                f"{self.method.name} declares that it changes the {effect} and left every tensor as it was: nothing was "
                "forgotten. Check its settings (a learning rate or a number of steps of zero)."
            )
        if changed and effect == "none":
            raise FailedError(f"{self.method.name} declares that it changes nothing, and the released weights differ.")

    def _certify(self, result: Unlearned, view: str, artifact: Artifact) -> Certificate | None:
        if result.claim is None:
            return None
        before, deletion = self.context.trained, self.deletion
        removed, old = before.removed | deletion.ids, before.view(view)
        binds = {
            "request": digest_json(dict(self.record)),
            "retained": deletion.after.digest,
            "trail": before.trail.data if before.trail else "none",
            "before": old.digest,
            "release": artifact.digest,
        }
        around = Circumstances(
            budget=None if result.claim.theorem in _OWN_NOISE else before.budget,
            spent=() if self._starts_afresh else before.spent,
            removed=len(removed),
            retained=deletion.after.digest,
            changed=artifact.digest != old.digest,
            binds=binds,
            noise=self.context.noise.name,
            published=before.budget,
            together=len(result.views),
        )
        return certify(result.claim, before.facts, around)

    @property
    def _starts_afresh(self) -> bool:
        """Whether this is our own retraining, which resets what was spent; a name alone resets nothing."""
        return isinstance(self.method, registry.load("retrain"))

    def _after(self, result: Unlearned, first: Release, removed: Any) -> Trained:
        before, deletion = self.context.trained, self.deletion
        views = dict(result.views) if before.views or len(result.views) > 1 else {}
        if self._starts_afresh:  # a fresh start: nothing is spent, nothing is missing from the trail
            trail = result.trail and Trail(
                result.trail.iterates, result.trail.length, deletion.after.digest, len(deletion.after)
            )
            facts = trained_again(before.facts, deletion.after)
            return replace(
                before, artifact=first.artifact, data=deletion.after, trail=trail, facts=facts, state=result.state,
                removed=type(removed).none(), spent=(), views=views,
            )  # fmt: skip
        mu = first.certificate.mu * len(result.views) ** 0.5 if first.certificate else float("inf")
        spent = (*before.spent, Spent(self.record["id"], len(removed), mu))
        return replace(
            before, artifact=first.artifact, data=deletion.after, trail=result.trail, state=result.state,
            removed=removed, spent=spent, views=views,
        )  # fmt: skip


# Theorems whose noise follows from the method's own settings, not from the published budget.
_OWN_NOISE = ("noisy-fine-tuning", "langevin")


def _change(before: Trained, result: Unlearned) -> dict[str, float]:
    """L2 change of each tensor, the largest over views; a tensor without counterpart counts as changed."""
    change: dict[str, float] = {}
    for view, artifact in result.views.items():
        for name, tensor in artifact.tensors.items():
            old = before.view(view).tensors.get(name)
            if old is None or old.shape != tensor.shape:
                size = float("inf")
            elif torch.equal(old.cpu(), tensor.cpu()):
                size = 0.0
            else:
                size = float((tensor.detach().cpu().double() - old.detach().cpu().double()).norm()) or 5e-324
            change[name] = max(size, change.get(name, 0.0))
    return change


def _peak_memory() -> int:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
