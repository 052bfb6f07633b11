"""How a kind of model is run: everything that the rest of expunge asks of it, and what only some kinds offer.

A task of every kind is a :class:`Task`. The small protocols below it say what only some have; ask for one with ``isinstance``
where a task may lack it, or with :func:`autoregressive` and :func:`with_features`, which refuse in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from expunge.core.batch import Batch
from expunge.core.errors import InputError


@dataclass(frozen=True)
class Outputs:
    """What a model says: ``logits``, examples first."""

    logits: Any


class Task(Protocol):
    """Runs one kind of model. ``params`` maps names to tensors; the module itself is never mutated.

    Masks (which tokens count, which vocabulary entries are pushed) travel inside the batch.
    """

    @property
    def name(self) -> str:
        """The kind of model: ``classification``, …; what ``Capabilities.tasks`` speaks of."""
        ...

    @property
    def device(self) -> str:
        """Where modules and batches lie, as PyTorch writes it."""
        ...

    def build(self, tensors: Mapping[str, Any] | None = None, *, seed: int = 0) -> Any:
        """A fresh module drawn from ``seed``, or one that holds ``tensors``; raises InputError on another architecture."""
        ...

    def released(self, model: Any) -> dict[str, Any]:
        """The weights and buffers that are published of ``model``, by name; tied weights once."""
        ...

    def check(self, data: Any) -> None:
        """Raises InputError unless the module accepts ``data``."""
        ...

    def batch(self, data: Any, index: Any = None) -> Batch:
        """The examples ``index`` of ``data`` (all where ``None``)."""
        ...

    def outputs(self, model: Any, params: Mapping[str, Any], batch: Batch) -> Outputs:
        """Logits of each example."""
        ...

    def losses(self, model: Any, params: Mapping[str, Any], batch: Batch) -> Any:
        """Loss of each example, (b,)."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """What must stand beside released weights for other programs to load them, by file name; empty: nothing."""
        ...


@runtime_checkable
class FromFactory(Protocol):
    """A task whose modules come from a callable, by which a cache can tell architectures apart."""

    @property
    def factory(self) -> Callable[[], Any]:
        """Makes a fresh module."""
        ...

    @property
    def dtype(self) -> Any:
        """Floating-point type of the weights."""
        ...


@runtime_checkable
class Initialised(Protocol):
    """A task that can fill a fresh module itself, so that its start is known to owe nothing to any example."""

    @property
    def init(self) -> str:
        """``module``: fresh modules keep what their own code put into them; ``seed``: every weight is filled from the seed."""
        ...

    def with_init(self, init: str) -> Task:
        """The same task under another ``init``."""
        ...

    def seeded(self, seed: int) -> Mapping[str, Any] | None:
        """The weights that ``seed`` stands for; ``None`` for an architecture that it does not know."""
        ...


@runtime_checkable
class Pretrained(Protocol):
    """A task whose training begins with weights that somebody else trained."""

    @property
    def start(self) -> Mapping[str, Any] | None:
        """These weights; ``None``: fresh ones."""
        ...


class Derivative(Protocol):
    """The derivative of a model's mean loss, in closed form."""

    def gradient(self, params: Mapping[str, Any], batch: Batch, training: bool, sign: float = 1.0) -> Mapping[str, Any]:
        """The gradient of ``sign`` times the mean loss over the examples of ``batch``, by the name of every weight.

        Where the loss is not finite, neither is the first of them. ``training``: whether random layers draw, from the global
        state.
        """
        ...


@runtime_checkable
class HasClosedForm(Protocol):
    """A task that knows the derivatives of some of its models in closed form."""

    def closed_form(self, model: Any) -> Derivative | None:
        """Of ``model``; ``None`` for a module that it does not know."""
        ...


@runtime_checkable
class HasFeatures(Task, Protocol):
    """A task whose models have a representation before a classifier head."""

    def features(self, model: Any, params: Mapping[str, Any], batch: Batch) -> Any:
        """What enters the head, (b, …)."""
        ...

    def head_of(self, model: Any) -> str:
        """Name of the head among the modules; raises InputError where the model has none."""
        ...


@runtime_checkable
class Pairable(Task, Protocol):
    """A task whose examples can be joined two by two: the joint prompts of SU."""

    def pair(self, first: Any, second: Any) -> Any:
        """Data of which each example joins one of ``first`` to one of ``second``, and what is learnt is the second's.

        Both data are equally long.
        """
        ...


@runtime_checkable
class Adaptable(Task, Protocol):
    """A task whose modules can hold given weights without a copy: a low-rank adapter beside them is all that moves."""

    def build(self, tensors: Mapping[str, Any] | None = None, *, seed: int = 0, share: bool = False) -> Any:
        """See :class:`Task`; with ``share`` the module holds ``tensors`` themselves."""
        ...


@runtime_checkable
class Autoregressive(Adaptable, Pairable, FromFactory, Pretrained, Protocol):
    """A task whose models answer prompts token by token.

    A batch holds ``input_ids`` and ``labels`` (b, length), and ``lengths`` (b,).
    """

    @property
    def prompts(self) -> Any:
        """How records become tokens."""
        ...

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        ...

    def encode(self, records: Sequence[Any]) -> Batch:
        """Any records as a batch."""
        ...

    def seen(self, model: Any, asked: Sequence[Any], ids: Any) -> Mapping[str, Any]:
        """What the module is given beside the tokens ``ids`` of prompts, by name: the pictures of records that have some."""
        ...

    def answered(self, model: Any, params: Mapping[str, Any], batch: Batch) -> tuple[Any, Any]:
        """Logits where labels are, and the labels, (b, t, vocabulary) and (b, t)."""
        ...

    def token_losses(self, model: Any, params: Mapping[str, Any], batch: Batch) -> tuple[Any, Any]:
        """-log p of each label, 0 where there is none, and where there is one, both (b, t)."""
        ...

    def hidden(self, model: Any, params: Mapping[str, Any], batch: Batch, layer: int) -> Any:
        """What layer ``layer`` gives, (b, length, width)."""
        ...


# What ``Capabilities.tasks`` may ask for instead of a task's name: whatever answers token by token is a language model.
ABILITIES: Mapping[str, Any] = {"language": Autoregressive}


def runs_on(tasks: Sequence[str], task: Task) -> bool:
    """Whether ``task`` is one of ``tasks``: any (``"*"``), by its name, or by what it can do (:data:`ABILITIES`)."""
    return any(each in ("*", task.name) or isinstance(task, ABILITIES.get(each, ())) for each in tasks)


def autoregressive(task: Task) -> Autoregressive:
    """``task``, which must answer token by token; raises InputError where it does not."""
    if not isinstance(task, Autoregressive):
        raise InputError(f"Expected a language model, which answers token by token; the task is {task.name}.")
    return task


def with_features(task: Task) -> HasFeatures:
    """``task``, which must have a representation before its head; raises InputError where it has none."""
    if not isinstance(task, HasFeatures):
        raise InputError(f"Expected a model with a representation before a classifier head; the task is {task.name}.")
    return task
