"""A trained model with everything that decides what can be promised about forgetting from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from expunge.core.data import Data, Ids
from expunge.core.digest import digest_arrays, digest_json, finite
from expunge.core.errors import InputError
from expunge.core.task import Task


class Origin(StrEnum):
    """Where a fact comes from, strongest first."""

    PROVED = "proved"  # follows from a closed form
    ENFORCED = "enforced"  # the code that ran made it so (clipping, projection, a loop that only does this)
    DECLARED = "declared"  # the user says so
    CLAIMED = "claimed"  # a paper says so and nobody here re-proved it
    ESTIMATED = "estimated"  # sampled: for a supremum only ever a lower bound
    UNREPLAYED = "unreplayed"  # code that is not ours says so, and nothing here did its steps again


@dataclass(frozen=True)
class Fact:
    """A recorded circumstance of training and how it is known.

    Attributes:
        value: the circumstance itself, for example a smoothness constant or ``"fixed"``.
        origin: where it is known from; the weakest origin among the assumptions decides a certificate's verdict.
        note: a sentence for the reader of the record.
    """

    value: Any
    origin: Origin
    note: str = ""

    @property
    def record(self) -> list[Any]:
        """As JSON has it; infinity has no form there: ``None`` stands for it."""
        value = finite(self.value) if isinstance(self.value, float) else self.value
        return [value, self.origin.value, self.note]

    @classmethod
    def of_record(cls, record: Sequence[Any]) -> Fact:
        """Undo of :attr:`record`."""
        value, origin, note = record
        return cls(value, Origin(origin), note)


Facts = Mapping[str, Fact]
Tensors = Mapping[str, Any]  # name → tensor


@dataclass(frozen=True)
class Artifact:
    """What is released: weights, an adapter, weights with deletion operators or masks, shards, a closed-form state.

    Attributes:
        tensors: everything that leaves the house, by name.
        form: ``weights``, ``adapter``, ``operator``, ``shards`` or ``state``.
        extra: JSON-like parts that belong to the release (an adapter's configuration, mask names).
        adapter: the same release as low-rank factors beside the weights of before, by the names of PEFT's files, with its
            configuration under ``extra["adapter"]``; ``tensors`` hold it merged. ``None``: there is no such form.
    """

    tensors: Tensors
    form: str = "weights"
    extra: Mapping[str, Any] = field(default_factory=dict)
    adapter: Tensors | None = field(default=None, repr=False)

    @cached_property
    def digest(self) -> str:
        """Content digest of tensors, form and extra."""
        return digest_json([digest_arrays(self.tensors), self.form, dict(self.extra)])

    @property
    def shape(self) -> dict[str, list[int]]:
        """Names and shapes: what an architecture is known by."""
        return {name: list(tensor.shape) for name, tensor in sorted(self.tensors.items())}


@dataclass(frozen=True)
class Trail:
    """Un-noised iterates of training, kept secret: they contain what later requests remove.

    Attributes:
        iterates: step → tensors; step 0 is the start.
        length: T, how many steps training made.
        data: digest of the data that made the latest part of the trail.
        rows: n, how many rows training began with: the denominator of every sensitivity.
        recovery_error: distance bound (L2) between a recovered iterate and the true one; 0 for stored ones.
    """

    iterates: Mapping[int, Tensors] = field(repr=False)
    length: int
    data: str
    rows: int
    recovery_error: float = 0.0

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps whose iterate is at hand, ascending."""
        return tuple(sorted(self.iterates))

    def at(self, step: int) -> Tensors:
        """The iterate after ``step`` steps; raises InputError naming the stored ones."""
        if step not in self.iterates:
            stored = ", ".join(map(str, self.steps)) or "none"
            raise InputError(f"Expected a stored iterate at step {step}; stored are {stored}. Rewind to one of these.")
        return self.iterates[step]

    def until(self, step: int) -> Trail:
        """The trail without everything after ``step``."""
        return replace(self, iterates={at: tensors for at, tensors in self.iterates.items() if at <= step})


@dataclass(frozen=True)
class Budget:
    """What is promised before any request arrives.

    Attributes:
        epsilon, delta: the guarantee against an observer of all releases until ``capacity`` is used up; ``epsilon=None``
            promises no level (``sigma`` is then given by hand and the report says what it comes to).
        capacity: m, how many records may go in all before the model must be trained anew.
        sigma: noise standard deviation of every released weight; ``publish`` fixes it before requests come.
        by_hand: whether somebody picked ``sigma`` instead of deriving it from a bound.
        method: name and settings of the method that ``sigma`` was computed for.
        releases: over how many releases ``epsilon`` must last, each at full capacity in the worst case; the noise grows
            with its square root. 1: one request uses the promise up.
        unnoised: the explicit wish to publish with ``sigma=0``; every certificate is then void.
    """

    epsilon: float | None
    delta: float
    capacity: int
    sigma: float | None = None
    by_hand: bool = False
    method: Mapping[str, Any] = field(default_factory=dict)
    unnoised: bool = False
    releases: int = 1

    def __post_init__(self):
        if self.releases < 1:
            raise InputError(f"Expected at least one release; got {self.releases}.")
        if self.epsilon is not None and not self.epsilon > 0:
            raise InputError(f"Expected epsilon > 0; got {self.epsilon}. Smaller is stronger; 1 is a common choice.")
        if not 0 < self.delta < 1:
            raise InputError(f"Expected delta strictly between 0 and 1; got {self.delta}. 1e-5 is a common choice.")
        if self.capacity < 1:
            raise InputError(f"Expected a capacity of at least 1 record; got {self.capacity}.")
        if self.sigma is not None and not self.sigma >= 0:
            raise InputError(f"Expected a noise level sigma >= 0; got {self.sigma}.")
        if self.epsilon is None and self.sigma is None:
            raise InputError(
                "A budget needs an epsilon to derive its noise from, or a sigma given by hand; it has neither."
            )


@dataclass(frozen=True)
class Spent:
    """One release that an observer may have seen.

    Attributes:
        request: whose release it was.
        removed: records removed in all so far.
        mu: what it adds to the composition; infinite where nothing bounds it.
        theorem: which guarantee it was made under; empty for none. Some theorems hold only after releases of certain kinds.
    """

    request: str
    removed: int
    mu: float
    theorem: str = ""


class ReleaseBook(Protocol):
    """Counts what was released of one model, so that every new release is composed with all earlier ones.

    Attributes:
        beside_model: whether it is a ledger on disk that belongs to the model and outlives this process. Only then does a
            certificate rest on what was recorded; otherwise on the word of whoever holds the model.
    """

    @property
    def beside_model(self) -> bool:
        """See the class's attributes."""
        ...

    def spent(self) -> tuple[Spent, ...]:
        """All releases since the model was last trained from scratch."""
        ...

    def begin(self, record: Mapping[str, Any]) -> None:
        """A request is about to be carried out; called before any noise is drawn for it."""
        ...

    def add(
        self, release: Spent, *, afresh: bool = False, digest: str = "", made_from: str = "",
        views: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Count a release.

        Args:
            afresh: it was trained from scratch, so that what came before no longer composes with it.
            digest, made_from: the released model, and the one that it was made from.
            views: of a network, view → digest of what it was given.
        """
        ...

    def void(self, request: str) -> None:
        """What was counted for ``request`` turned out to be void: it has spent everything."""
        ...

    def published_before(self, request: str) -> bool:
        """Whether the record shows that noise and capacity were fixed before ``request`` was filed."""
        ...


class InMemoryBook:
    """A book that lasts as long as the process. It cannot show what happened in another one."""

    beside_model = False

    def __init__(self) -> None:
        self._spent: list[Spent] = []

    def spent(self) -> tuple[Spent, ...]:
        """See :class:`ReleaseBook`."""
        return tuple(self._spent)

    def begin(self, record: Mapping[str, Any]) -> None:
        """See :class:`ReleaseBook`."""

    def add(
        self, release: Spent, *, afresh: bool = False, digest: str = "", made_from: str = "",
        views: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """See :class:`ReleaseBook`."""
        if afresh:
            self._spent.clear()
        else:
            self._spent.append(release)

    def void(self, request: str) -> None:
        """See :class:`ReleaseBook`."""
        self._spent = [replace(item, mu=math.inf) if item.request == request else item for item in self._spent]

    def published_before(self, request: str) -> bool:
        """See :class:`ReleaseBook`."""
        return False


class Recipe(Protocol):
    """How a model comes from data, deterministically given a seed. Ours, or the user's own callable in a wrapper."""

    def fit(self, task: Task, data: Any, *, seed: int, watch: Any = None) -> Trained:
        """Train on ``data`` and return the un-published model with its facts and trail."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-like settings: equal descriptions on equal data and seed give equal models."""
        ...


@runtime_checkable
class OnRecord(Protocol):
    """A recipe that says which facts of training follow from its settings: a record that says otherwise is of another one."""

    def on_record(self) -> Mapping[str, Any]:
        """Fact → value."""
        ...


@dataclass(frozen=True)
class Trained:
    """A model as expunge knows it.

    Attributes:
        task: how this kind of model is run.
        artifact: the released (published) weights; before ``publish``, the un-noised ones.
        data: the data it stands for now; ``None`` where unknown (adopted).
        recipe: how it was made; ``None`` means that retraining is impossible.
        trail: stored iterates, or ``None``.
        facts: circumstances of training with their origins.
        budget: the published promise, or ``None``.
        removed: ids of all requests so far.
        spent: releases so far, for composition.
        seed: the seed that the recipe was run with.
        state: secret un-noised form of ``artifact`` (``None`` where they are the same).
        views: who holds what, for a network of peers (``artifact`` is then the first peer's); empty for one model.
        book: counts the releases of this model and of all that came from it; shared by them.
    """

    task: Task
    artifact: Artifact
    data: Data | None
    recipe: Recipe | None = None
    trail: Trail | None = None
    facts: Facts = field(default_factory=dict)
    budget: Budget | None = None
    removed: Ids = field(default_factory=Ids.none)
    spent: tuple[Spent, ...] = ()
    seed: int = 0
    state: Tensors | None = field(default=None, repr=False)
    views: Mapping[str, Artifact] = field(default_factory=dict, repr=False)
    book: ReleaseBook = field(default_factory=InMemoryBook, repr=False, compare=False)

    def view(self, name: str) -> Artifact:
        """What ``name`` holds."""
        return self.views.get(name, self.artifact)

    @property
    def secret(self) -> Tensors:
        """The un-noised weights; never to be released."""
        return self.artifact.tensors if self.state is None else self.state

    def fact(self, name: str, default: Any = None) -> Any:
        """The value of a recorded fact, or ``default``."""
        return self.facts[name].value if name in self.facts else default
