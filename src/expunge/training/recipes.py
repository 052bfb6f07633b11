"""Ways in which a model comes from data, each recording what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Fact, Facts, Trail, Trained
from expunge.data.rows import Rows
from expunge.training.descent import Step, descend, trainable
from expunge.training.estimate import estimate_constants
from expunge.training.facts import (
    buffers_moved,
    declared,
    enforced,
    full_batch,
    inspect,
    prepared,
    proved_constants,
    start_fact,
    user_constants,
)
from expunge.training.flat import flatten
from expunge.training.stochastic import Stochastic, run_epochs

__all__ = [
    "USER_FACTS", "GradientDescent", "Stochastic", "UserFit", "buffers_moved", "for_comparison", "rewind_step", "run_epochs",
]  # fmt: skip

Constants = Mapping[str, float]


def rewind_step(steps: int, fraction: float) -> int:
    """T - K: where rewinding by ``fraction`` = K/T leads; fractions are rounded to whole steps.

    Raises:
        InputError: if ``fraction`` is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"Expected a rewind between 0 (none) and 1 (retrain); got {fraction}.")
    return steps - round(fraction * steps)


@dataclass(frozen=True, kw_only=True)
class GradientDescent:
    """Full-batch gradient descent on record: what R2D can rewind (R2D Algorithm 1).

    Attributes:
        steps: T.
        lr: eta, constant.
        l2, clip: see :class:`~expunge.training.descent.Step`.
        rewinds: fractions K/T whose iterates are kept. Default: five points from a tenth to everything.
        constants: declared by the user (``training.facts.DECLARABLE``); override nothing that is proved or enforced.
        estimate: sample the constants that are neither proved nor declared (see ``training.estimate``).
        start: pretrained weights; by default a fresh initialisation from the seed, or the module's own.
        start_origin: what is known of ``start``'s training data: ``public`` (declared free of the removed rows) or
            ``unknown``.
    """

    steps: int
    lr: float
    l2: float = 0.0
    clip: float | None = None
    rewinds: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)
    constants: Constants = field(default_factory=dict)
    estimate: bool = False
    start: Mapping[str, Tensor] | None = field(default=None, repr=False)
    start_origin: str = "unknown"

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"Expected at least one training step; got steps={self.steps}.")
        if self.start_origin not in ("public", "unknown"):
            raise InputError(f"Expected start_origin public or unknown; got {self.start_origin!r}.")
        for fraction in self.rewinds:
            rewind_step(self.steps, fraction)
        Step(self.lr, self.l2, self.clip)

    @property
    def step(self) -> Step:
        """One step of the loop."""
        return Step(self.lr, self.l2, self.clip)

    @property
    def kept(self) -> tuple[int, ...]:
        """Steps whose iterate is stored; the start always is."""
        return tuple(sorted({0, *(rewind_step(self.steps, fraction) for fraction in self.rewinds)}))

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {
            "recipe": "gradient descent",
            "steps": self.steps,
            "lr": self.lr,
            "l2": self.l2,
            "clip": self.clip,
            "start": None if self.start is None else Artifact(self.start).digest,
        }

    def on_record(self) -> dict[str, Any]:
        """See :class:`~expunge.core.trained.OnRecord`."""
        return {name: getattr(self, name) for name in ("steps", "lr", "l2", "clip")}

    def initial(self, task: Task, seed: int) -> dict[str, Tensor]:
        """theta_0."""
        return dict(task.build(self.start, seed=seed).state_dict())

    def fit(self, task: Task, data: Rows, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train on record. Formal guarantee: none; the facts say what a theorem may build on."""
        model = task.build(seed=seed)
        batch = task.batch(data)
        start = self.initial(task, seed)
        final, kept = descend(
            task, model, start, batch, self.step, self.steps, keep=self.kept, watch=watch, stage="train"
        )
        facts = self.facts(task, model, data, [kept[0], final], seed)
        trail = Trail(kept, self.steps, data.digest, len(data))
        return Trained(task, Artifact(final), data, self, trail, facts, seed=seed)

    def facts(self, task: Task, model: nn.Module, data: Rows, seen: list[Mapping[str, Tensor]], seed: int) -> Facts:
        """Everything recorded about this run."""
        known = proved_constants(task, model, self.step)
        wanted = {"gradient_bound", "smoothness"} - known.keys()
        given = {name: fact for name, fact in user_constants(self.constants).items() if name not in known}
        if "gradient_difference" in given:
            wanted.discard("gradient_bound")
        missing = wanted - given.keys()
        if self.estimate and missing:
            sampled = estimate_constants(task, seen, data, self.step, seed=seed)
            given |= {name: sampled[name] for name in missing}
        return {
            **full_batch(self.step, self.steps, len(data)),
            **inspect(model),
            **buffers_moved(model, seen),
            **known,
            **given,
            "start": self._start_fact(task, seen[0], seed),
            "start_norm": enforced(float(flatten(seen[0], trainable(model)).double().norm()), "norm of theta_0"),
            **prepared(data),
            "dtype": enforced(_type_of(model), "of the trainable weights"),
        }

    def _start_fact(self, task: Task, start: Mapping[str, Tensor], seed: int) -> Fact:
        if self.start is None:
            return start_fact(task, start, seed)
        return declared("independent" if self.start_origin == "public" else "unknown", "pretrained weights")


def for_comparison(recipe: Any) -> Any:
    """``recipe`` without constants that are sampled for certificates: the same weights, for models that only measure."""
    return replace(recipe, estimate=False) if type(recipe) is GradientDescent else recipe


def _type_of(model: nn.Module) -> str:
    """The types of the trainable weights, for example ``float32``."""
    return "+".join(sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad}))


# What a user can vouch for about training code of their own: the start owes nothing to the rows, no setting was chosen by
# looking at rows that may go, no random augmentation, no buffer that follows the data.
USER_FACTS = ("start", "selection", "augmentation", "buffers_moved")


def without_buffers(model: nn.Module) -> dict[str, Fact]:
    """A module that has nothing but trainable weights cannot move anything else; otherwise it is the user's word."""
    if set(dict(model.state_dict())) - set(trainable(model)):
        return {}
    return {"buffers_moved": enforced(False, "the module has none")}


@dataclass(frozen=True)
class UserFit:
    """The user's own training: ``fit(data, seed) → module``. Retraining is possible; the rest is what the user declares.

    ``data`` are :class:`~expunge.data.rows.Rows`: ``data.x`` is a tensor (n, …) as the job's data section prepares it, in
    memory whatever its size, ``data.y`` its labels (n,), ``data.ids`` and ``data.columns`` say which rows they are and whose.
    ``seed`` is a whole number; torch's generators are set from it before the call.

    Attributes:
        function: the callable.
        name: what identifies it in records (module and name of the callable by default).
        declares: facts that the user vouches for, among :data:`USER_FACTS`; certificates that rest on them say so, and
            a fact that nobody gives counts as violated wherever a theorem needs it.
    """

    function: Callable[[Any, int], nn.Module]
    name: str = ""
    declares: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if unknown := sorted(self.declares.keys() - set(USER_FACTS)):
            raise InputError(f"Expected declarations among {', '.join(USER_FACTS)}; got {', '.join(unknown)}.")
        try:
            signature(self.function).bind(None, 0)
        except TypeError as error:
            raise InputError(
                f"Expected a training function that can be called as fit(data, seed): the rows (data.x, data.y) and a whole "
                f"number, returning the trained module; {self.describe()['name']} cannot ({error})."
            ) from None
        except ValueError:  # of some functions in C nothing is known before they are called
            pass

    def describe(self) -> dict[str, Any]:
        """The callable's name."""
        function = self.function
        name = self.name or f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"
        return {"recipe": "user", "name": name}

    def fit(self, task: Task, data: Rows, *, seed: int = 0, watch: Any = None) -> Trained:
        """Call the user's function."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # every kind of device: the function may train on any
            model = self.function(data.in_memory() if isinstance(data, Rows) else data, seed)
        if not isinstance(model, nn.Module):
            raise InputError(f"Expected the training function to return a torch module; it returned {type(model)}.")
        tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        task.build(tensors)  # refuses another architecture before anything is lost
        vouched = {name: declared(value) for name, value in self.declares.items()}
        facts = {
            "rows": enforced(len(data), "counted"),
            **prepared(data),
            **vouched,
            **inspect(model),
            **without_buffers(model),
        }
        return Trained(task, Artifact(tensors), data, self, None, facts, seed=seed)

    def adopted(self, trained: Trained, seed: int = 0) -> Trained:
        """``trained``, weights that came from elsewhere, as a model that this function is said to have made.

        It can then be retrained and compared. That the function made it is the user's word, as what it declares is.
        """
        vouched = {name: declared(value) for name, value in self.declares.items()}
        data, model = trained.data, trained.task.build(trained.artifact.tensors)
        known = {} if data is None else {"rows": enforced(len(data), "counted"), **prepared(data)}
        facts = {**known, **inspect(model), **without_buffers(model), **trained.facts, **vouched}
        return replace(trained, recipe=self, facts=facts, seed=seed)


def example_gradients(trained: Trained, examples: int) -> int | None:
    """Gradients of single examples in one training on ``examples`` examples, by its steps or epochs; ``None``: unknown."""
    if "steps" in trained.facts:
        return int(trained.fact("steps")) * examples
    steps, epochs = (getattr(trained.recipe, name, None) for name in ("steps", "epochs"))
    if steps is not None:
        return int(steps) * min(examples, int(getattr(trained.recipe, "batch_size", examples)))
    return None if epochs is None else int(epochs) * examples
