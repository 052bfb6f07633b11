"""Train on record, adopt, and publish: noise and capacity are fixed before any request comes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from expunge.core.data import Data
from expunge.core.errors import FailedError, InputError
from expunge.core.method import Calibrated, InMemory, Once, Watch, silent
from expunge.core.task import Task
from expunge.core.trained import Artifact, Budget, InMemoryBook, Trained
from expunge.methods import registry
from expunge.methods.release import least_sigma, noisy_release
from expunge.model_folder import ModelFolder
from expunge.planning.promises import cautions, must_promise
from expunge.planning.stages import Scoped
from expunge.privacy.certify import weakened
from expunge.privacy.noise import SystemNoise
from expunge.privacy.witness import Witness, WitnessedJournal, noise_facts
from expunge.training.descent import trainable
from expunge.training.recipes import UserFit

_LOG = logging.getLogger(__name__)


def train(task: Task, data: Any, recipe: Any, *, seed: int = 0, watch: Watch = silent) -> Trained:
    """Train on record: the model with its facts and, where the recipe keeps one, its trail.

    Args:
        task: how the model is run, for example ``Classification(factory)``.
        data: what it is trained on, for example :class:`~expunge.data.rows.Rows`.
        recipe: how, for example :class:`~expunge.training.recipes.GradientDescent`.
        seed: of the start and of every draw; the same seed on the same data gives the same model.
        watch: called with stage, steps done and steps in all.

    Raises:
        InputError: if the model does not accept the data, or training diverges.
    """
    task.check(data)
    trained = recipe.fit(task, data, seed=seed, watch=watch)
    if is_recorded(recipe) or type(recipe) is UserFit:
        return trained
    note = "a recipe that is not expunge's own says so"  # a subclass may do anything in its fit
    return replace(trained, facts={name: weakened(fact, note) for name, fact in trained.facts.items()})


# Recipes that are expunge's own: what they record of themselves is what their code does.
_RECORDED = {
    "GradientDescent": "expunge.training.recipes", "Stochastic": "expunge.training.stochastic",
    "NoisyGradientDescent": "expunge.training.noisy", "PerturbedMinimiser": "expunge.training.perturbed",
    "LanguageTraining": "expunge.training.language", "GraphTraining": "expunge.training.graphs",
    "GraphMinimiser": "expunge.training.graph_minimiser", "GraphRidge": "expunge.training.graph_ridge",
    "GraphShards": "expunge.training.graph_shards",
    "Gossip": "expunge.network.gossip", "Walk": "expunge.network.walk",
}  # fmt: skip


def is_recorded(recipe: Any) -> bool:
    """Whether ``recipe`` is one of expunge's own, by its exact type; a subclass may do anything in its ``fit``."""
    kind = type(recipe)
    home = _RECORDED.get(kind.__qualname__)
    own = home == kind.__module__ and getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind
    return own and vars(recipe).keys() <= {field.name for field in fields(recipe)}


def adopt(task: Task, model: torch.nn.Module | Mapping[str, torch.Tensor], data: Data | None = None) -> Trained:
    """A model that was trained elsewhere: no recipe, no trail, no certificate that looks back, and evidence that says so.

    Args:
        task: how the model is run.
        model: a module, or its tensors by name. A prefix that a wrapper put before every name (``module.`` of
            ``DataParallel``, ``_orig_mod.`` of ``torch.compile``, …) is taken off.
        data: what it was trained on; ``None`` where unknown: requests can then not be matched.

    Raises:
        InputError: if the weights belong to another architecture than the task's.
    """
    tensors = model.state_dict() if isinstance(model, torch.nn.Module) else model
    built = task.build(tensors)
    named = task.released(built)
    return Trained(task, Artifact({name: t.detach().clone() for name, t in named.items()}), data)


def publish(
    trained: Trained, budget: Budget | None, *, method: Any = None, noise: Any = None, journal: Once | None = None,
    to: Path | str | ModelFolder | None = None,
) -> Trained:  # fmt: skip
    """Fix noise and capacity before any request comes, and release the noisy model.

    Args:
        trained: the model as it was trained.
        budget: the promise; ``None`` only with ``to``, for methods that bring their own noise or need none: the model is then
            released as it was trained.
        to: a new folder for the model, its private trail, and the ledger of its releases. Only a model that lies beside its
            ledger can be ``certified``: the ledger shows that noise was fixed first and that no release was left out.
        method: which method's bound sigma is derived from; R2D with its default rewind where not given. With
            ``budget.sigma`` set, sigma is as given by hand and the certificate will say so.
        noise: where the noise comes from; the operating system where not given. Any other source voids certificates.
        journal: stores the noisy weights so that a crash cannot draw twice; in memory where not given.

    Formal guarantee: none by itself; it makes later certificates possible, which need sigma fixed before any request.

    Noise that is longer than the weights, and an epsilon above 10, are logged as warnings.

    Raises:
        InputError: if the bound needs a constant that is not known, or is infinite; if a budget is already published; if
            delta is 1 / n or more, or epsilon so large that nothing is promised (``planning.promises``).
    """
    folder = to if to is None or isinstance(to, ModelFolder) else ModelFolder(Path(to))
    named = registry.settings_of(method or registry.make("r2d"))
    if budget is None:
        if folder is None:
            raise InputError("Expected a budget, or a folder to publish to for a method that brings its own noise.")
        return folder.publish(replace(trained, book=InMemoryBook()), named)
    if len({view.digest for view in trained.views.values()}) > 1:
        raise InputError(
            "Expected a network whose peers all hold one model: noise that is drawn once covers one. End training with a "
            "consensus (Gossip(consensus=True))."
        )
    fixed = fix_budget(trained, budget, method)
    model, sigma = trained.task.build(), fixed.sigma or 0.0
    witness = Witness(noise or SystemNoise())
    stages = WitnessedJournal(Scoped(journal or InMemory(), [trained.artifact.digest, sigma]), witness)
    released = noisy_release(model, trained.artifact.tensors, sigma, witness, stages, "published")
    _must_be_noisy(witness, model, sigma, released)
    whole = Artifact(released)
    published = replace(
        trained, artifact=whole, state=trained.artifact.tensors, budget=fixed, book=InMemoryBook(),
        views=dict.fromkeys(trained.views, whole),
    )  # fmt: skip
    for caution in cautions(published):
        _LOG.warning("%s", caution)
    return published if folder is None else folder.publish(published, named)


def _must_be_noisy(witness: Witness, model: Any, sigma: float, released: Mapping[str, Any]) -> None:
    """Raise FailedError unless the published weights are the trained ones with one draw of noise on each coordinate.

    A source of somebody's own voids by what it is; noise that somebody picked below the rounding of the weights does too.
    """
    seen = noise_facts(
        witness, names=coordinates(model), draws=1, sigma=sigma,
        released={name: released[name] for name in coordinates(model)},
    )  # fmt: skip
    if not witness.secret or not seen["noise_resolved"][0]:
        return
    if wrong := [name for name in ("noise_covers", "noise_level", "noise_entered") if not seen[name][0]]:
        raise FailedError(
            f"The noise of the published model is not what it should be ({', '.join(wrong)}): nothing was published. "
            f"It came from {seen['noise_source'][0]}."
        )


def coordinates(model: Any) -> dict[str, int]:
    """Trainable tensor → number of coordinates."""
    sizes = {name: tensor.numel() for name, tensor in model.named_parameters()}
    return {name: sizes[name] for name in trainable(model)}


def fix_budget(trained: Trained, budget: Budget, method: Any = None) -> Budget:
    """``budget`` with its noise level, derived from ``method``'s bound or taken as given by hand; draws nothing.

    Raises:
        InputError: as :func:`publish`, and for a hand-given sigma of 0, which would publish the un-noised weights.
    """
    if trained.budget is not None:
        raise InputError(
            "This model is published already; noise fixed twice is noise chosen after the fact. Train anew."
        )
    must_promise(budget, trained.data)
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
