"""Whose turn it is: the order in which a method takes forget and retain steps. Part of the method, not of the optimizer.

Every schedule is a frozen record that yields :class:`Turn`s, a function of sizes and seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from expunge.core.errors import InputError
from expunge.descent.streams import batches_per_pass, endless

FORGET, RETAIN, JOINT, MIXED = "forget", "retain", "joint", "mixed"


@dataclass(frozen=True)
class Turn:
    """One step.

    Attributes:
        role: ``forget`` or ``retain``; ``joint`` for one step on the sum of both losses; ``mixed`` for one step on a batch
            that was drawn from both kinds of rows together.
        step: its number, from 0.
        steps: how many there are.
        epoch: its epoch, from 0.
        ends_epoch: whether it is the last of its epoch.
        index: stream → positions of its rows.
        clock: steps done and to do, as annealing counts them; ``None``: ``step`` of ``steps``.
    """

    role: str
    step: int
    steps: int
    epoch: int
    ends_epoch: bool
    index: Mapping[str, Tensor]
    clock: tuple[int, int] | None = None

    @property
    def progress(self) -> float:
        """Share of the steps that were made before this one: what every annealing goes by."""
        done, steps = self.clock or (self.step, self.steps)
        return done / steps


class Schedule(Protocol):
    """Whose turn it is."""

    @property
    def roles(self) -> frozenset[str]:
        """The roles it hands out."""
        ...

    def length(self, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> int:
        """How many steps it makes on streams of these sizes."""
        ...

    def turns(self, sizes: Mapping[str, int], batch_size: Mapping[str, int], seed: int) -> Iterator[Turn]:
        """The steps in order."""
        ...


def _at_least(value: int, least: int, name: str) -> None:
    if value < least:
        raise InputError(f"Expected {name} of at least {least}; got {value}.")


@dataclass(frozen=True)
class Passes:
    """Per epoch whole passes over the forget stream, then whole passes over the retain stream (SalUn, SCRUB).

    Attributes:
        epochs: how many.
        forget, retain: passes over each stream in an epoch; 0 leaves a stream out.
        forget_until: forget passes only in the first so many epochs (SCRUB's msteps); ``None``: in all.
    """

    epochs: int
    forget: int = 1
    retain: int = 1
    forget_until: int | None = None

    def __post_init__(self):
        _at_least(self.epochs, 1, "epochs")
        if self.forget < 0 or self.retain < 0 or not self.forget + self.retain:
            raise InputError(f"Expected passes over at least one stream; got {self.forget} and {self.retain}.")
        if self.forget_until is not None:
            _at_least(self.forget_until, 0, "forget_until")

    @property
    def roles(self) -> frozenset[str]:
        """Both, or the one with passes."""
        return frozenset(role for role, count in ((FORGET, self.forget), (RETAIN, self.retain)) if count)

    def _forgets(self, epoch: int) -> int:
        return self.forget if self.forget_until is None or epoch < self.forget_until else 0

    def _in_epoch(self, epoch: int, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> list[str]:
        counts = {FORGET: self._forgets(epoch), RETAIN: self.retain}
        return [r for r, n in counts.items() if n for _ in range(n * batches_per_pass(sizes[r], batch_size[r]))]

    def length(self, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> int:
        """All batches of all passes."""
        return sum(len(self._in_epoch(epoch, sizes, batch_size)) for epoch in range(self.epochs))

    def turns(self, sizes: Mapping[str, int], batch_size: Mapping[str, int], seed: int) -> Iterator[Turn]:
        """Forget passes, retain passes, epoch after epoch."""
        epochs = [self._in_epoch(epoch, sizes, batch_size) for epoch in range(self.epochs)]
        return _walk(epochs, sizes, batch_size, seed)


@dataclass(frozen=True)
class Interleave:
    """``forget`` forget steps, then ``retain`` retain steps, over and over (DualOptim's Algorithm 1; SFRon; LLMs).

    The stream that runs out is shuffled anew and used again. How long: ``retain_steps`` in all, or ``epochs`` passes over
    the forget stream (DualOptim's sampler: the shorter stream defines the epoch); exactly one of the two.

    Attributes:
        clock: the role whose steps annealing counts; ``None``: all steps. SFRon's code counts retain steps: a forget step
            has the rate of the retain step that follows it.
    """

    forget: int = 1
    retain: int = 1
    retain_steps: int | None = None
    epochs: int | None = None
    clock: str | None = None

    def __post_init__(self):
        _at_least(self.forget, 1, "forget steps per round")
        _at_least(self.retain, 1, "retain steps per round")
        given = [count for count in (self.retain_steps, self.epochs) if count is not None]
        if len(given) != 1 or given[0] < 1:
            raise InputError(
                f"Expected either retain_steps or epochs, at least 1; got {self.retain_steps} and {self.epochs}."
            )

    @property
    def roles(self) -> frozenset[str]:
        """Both."""
        return frozenset((FORGET, RETAIN))

    def _epochs(self, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> list[list[str]]:
        one_round = [FORGET] * self.forget + [RETAIN] * self.retain
        if self.epochs is not None:
            rounds = -(-batches_per_pass(sizes[FORGET], batch_size[FORGET]) // self.forget)
            return [one_round * rounds] * self.epochs
        assert self.retain_steps is not None
        rounds = -(-self.retain_steps // self.retain)
        spare = rounds * self.retain - self.retain_steps
        roles = one_round * rounds
        return [roles[: len(roles) - spare]]

    def length(self, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> int:
        """Steps of both roles."""
        return sum(len(roles) for roles in self._epochs(sizes, batch_size))

    def turns(self, sizes: Mapping[str, int], batch_size: Mapping[str, int], seed: int) -> Iterator[Turn]:
        """Round after round."""
        return _walk(self._epochs(sizes, batch_size), sizes, batch_size, seed, clock=self.clock)


@dataclass(frozen=True)
class _Counted:
    """One batch of the same streams at every step, for ``epochs`` passes over the stream ``of``, or for ``steps``.

    Exactly one of the two is given. Streams that run out are shuffled anew.
    """

    epochs: int | None = None
    of: str = RETAIN
    steps: int | None = None

    def __post_init__(self):
        given = [count for count in (self.epochs, self.steps) if count is not None]
        if len(given) != 1 or given[0] < 1:
            raise InputError(f"Expected either epochs or steps, at least 1; got {self.epochs} and {self.steps}.")
        if self.of not in (FORGET, RETAIN):
            raise InputError(f"Expected epochs of the forget or the retain stream; got {self.of!r}.")

    def length(self, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> int:
        """The steps, or the batches of the stream that counts."""
        return sum(map(len, self._epochs("", sizes, batch_size)))

    def _epochs(self, role: str, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> list[list[str]]:
        if self.steps is not None:
            return [[role] * self.steps]
        assert self.epochs is not None
        return [[role] * batches_per_pass(sizes[self.of], batch_size[self.of])] * self.epochs


@dataclass(frozen=True)
class Joint(_Counted):
    """Every step on the sum of a forget and a retain loss, one batch each."""

    @property
    def roles(self) -> frozenset[str]:
        """One step for both."""
        return frozenset((JOINT,))

    def turns(self, sizes: Mapping[str, int], batch_size: Mapping[str, int], seed: int) -> Iterator[Turn]:
        """Both streams side by side."""
        return _walk(self._epochs(JOINT, sizes, batch_size), sizes, batch_size, seed, {JOINT: (FORGET, RETAIN)})


@dataclass(frozen=True)
class Alone(_Counted):
    """Every step on a batch of one stream: methods with a single loss."""

    of: str = FORGET

    @property
    def roles(self) -> frozenset[str]:
        """The one."""
        return frozenset((self.of,))

    def turns(self, sizes: Mapping[str, int], batch_size: Mapping[str, int], seed: int) -> Iterator[Turn]:
        """Batch after batch."""
        return _walk(self._epochs(self.of, sizes, batch_size), sizes, batch_size, seed)


@dataclass(frozen=True)
class Mixed:
    """Passes over one shuffled stream that holds forget and retain rows together."""

    epochs: int

    def __post_init__(self):
        _at_least(self.epochs, 1, "epochs")

    @property
    def roles(self) -> frozenset[str]:
        """One stream, one role."""
        return frozenset((MIXED,))

    def length(self, sizes: Mapping[str, int], batch_size: Mapping[str, int]) -> int:
        """Batches of the one stream."""
        return self.epochs * batches_per_pass(sizes[MIXED], batch_size[MIXED])

    def turns(self, sizes: Mapping[str, int], batch_size: Mapping[str, int], seed: int) -> Iterator[Turn]:
        """Pass after pass."""
        return _walk(
            [[MIXED] * batches_per_pass(sizes[MIXED], batch_size[MIXED])] * self.epochs, sizes, batch_size, seed
        )


def _walk(
    epochs: list[list[str]],
    sizes: Mapping[str, int],
    batch_size: Mapping[str, int],
    seed: int,
    streams_of: Mapping[str, tuple[str, ...]] | None = None,
    clock: str | None = None,
) -> Iterator[Turn]:
    """Turns for the roles of each epoch, every stream going on where it stopped."""
    streams_of = streams_of or {}
    used = {name for roles in epochs for role in set(roles) for name in streams_of.get(role, (role,))}
    draws = {name: endless(sizes[name], batch_size[name], seed, name) for name in used}
    steps, step = sum(map(len, epochs)), 0
    counted, of = 0, sum(roles.count(clock) for roles in epochs) if clock else 0
    for epoch, roles in enumerate(epochs):
        for at, role in enumerate(roles):
            index = {name: next(draws[name]) for name in streams_of.get(role, (role,))}
            yield Turn(role, step, steps, epoch, at == len(roles) - 1, index, (counted, of) if clock else None)
            step += 1
            counted += role == clock
