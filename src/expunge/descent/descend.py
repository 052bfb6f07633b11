"""Four choices make a gradient method, and nothing else is in the loop: objective, schedule, parameters, optimizer.

A run is a function of its inputs and the number of the step: batches, random labels and dropout follow from the seed and
the step, so a killed run that is started again ends with the same bits (on one machine with one number of threads).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.errors import FailedError, InputError
from expunge.core.journal import cuts
from expunge.core.method import Once, Watch, silent
from expunge.descent.guard import Guard
from expunge.descent.optimizer import NonFiniteError, Optimizers, Stepper
from expunge.descent.parameters import All, Parameters, Selection
from expunge.descent.schedule import FORGET, JOINT, RETAIN, Schedule, Turn
from expunge.descent.streams import mixed_seed
from expunge.descent.work import Objective, Prepared, Work
from expunge.tasks.seeds import seed_global
from expunge.training.annealing import factor
from expunge.training.optimizers import laid_out_like, state_bytes


@dataclass(frozen=True)
class Descended:
    """What came of a run.

    Attributes:
        tensors: the weights and buffers, which are those of the model that was changed.
        steps: role → steps made.
        gradient_evaluations: per-row gradients, preparing included.
        seconds: spent on preparing (masks, neighbours, teachers) and on the steps, by this process.
        state_bytes: of all optimizer states at the end.
        losses: of each step, over the rows of all processes.
        scores: what the guard saw: (steps done, score).
        stopped: why the run ended early, or ``None``.
    """

    tensors: Mapping[str, Tensor]
    steps: Mapping[str, int]
    gradient_evaluations: int
    seconds: Mapping[str, float]
    state_bytes: int
    losses: tuple[float, ...] = ()
    scores: tuple[tuple[int, float], ...] = ()
    stopped: str | None = None


@dataclass(frozen=True)
class Descend:
    """A gradient method as the choices that make it.

    Attributes:
        objective: what is minimised.
        schedule: whose turn it is.
        optimizer: ``Shared`` or ``Dual``.
        parameters: what may move.
        guard: keeps the best state; ``None``: the last one counts.
        clip: role → largest gradient norm.
        anneal: ``constant``; ``cosine``: learning rates times (1 + cos(pi progress)) / 2; ``linear``: times 1 - progress.
        warmup: share of the steps in which learning rates rise linearly from zero, at which the first step is made, as
            ``transformers`` counts; annealing has the rest.
        milestones: epochs, from 0, from each of which on learning rates are a tenth.
        training_mode: whether BatchNorm uses the batch and dropout drops, as in training.

    Formal guarantee: none.
    """

    objective: Objective
    schedule: Schedule
    optimizer: Optimizers
    parameters: Parameters = field(default_factory=All)
    guard: Guard | None = None
    clip: Mapping[str, float] = field(default_factory=dict)
    anneal: str = "constant"
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    training_mode: bool = True

    def __post_init__(self):
        if self.anneal not in ("constant", "cosine", "linear"):
            raise InputError(f"Expected annealing constant, cosine or linear; got {self.anneal!r}.")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"Expected warmup as a share of the steps from 0 to 1; got {self.warmup}.")
        if bad := {role: limit for role, limit in self.clip.items() if not limit > 0}:
            raise InputError(f"Expected gradient norms above 0 to clip to; got {bad}.")
        self.optimizer.check(self.schedule.roles)

    def run(self, work: Work, journal: Once, watch: Watch = silent) -> Descended:
        """Change ``work.model`` in place, storing how far it is in ``journal``.

        Raises:
            FailedError: if a loss or gradient is not finite: it says where; the model then holds the last good state.
        """
        return _Run(self, work).go(journal, watch)


class _Run:
    """One run of a :class:`Descend`."""

    def __init__(self, method: Descend, work: Work):
        started = time.perf_counter()
        self.method, self.work = method, work
        work.lay_out(work.model)
        self.selection: Selection = method.parameters.select(work)
        work.processes.spread(work.model)
        self.prepared: Prepared = method.objective.prepare(work)
        named = dict(work.model.named_parameters())
        self.weights = [named[name] for name in self.selection.names]
        self.moving = {name: work.processes.own(named[name]) for name in self.selection.names}
        self.frozen = [(tensor, tensor.requires_grad) for name, tensor in named.items() if name not in self.moving]
        self.stepper: Stepper = method.optimizer.build(self.moving, method.clip)
        self.masks = self._factors()
        always = self.selection.strict and self.masks.keys() == method.schedule.roles
        self.base = [laid_out_like(weight, work.base[name]) for name, weight in self.moving.items()] if always else []
        used = {name for role in method.schedule.roles for name in ((FORGET, RETAIN) if role == JOINT else (role,))}
        self.sizes = {name: len(self.prepared.streams[name]) for name in used}
        self.steps = {role: 0 for role in sorted(method.schedule.roles)}
        self.evaluations = self.prepared.gradient_evaluations + self.selection.gradient_evaluations
        self.done = 0
        self.ahead: Iterator[Turn] | None = None
        self.losses: list[float] = []
        self.scores: list[tuple[int, float]] = []
        self.best: dict[str, Tensor] = {}
        self.stopped: str | None = None
        self.preparing = time.perf_counter() - started

    def _factors(self) -> dict[str, list[Tensor]]:
        """Masks as factors 0 and 1, in the order of the moving weights; roles that share a mask share its factors."""
        used = {role: masks for role, masks in self.selection.masks.items() if role in self.method.schedule.roles}
        factors = {
            id(masks): [laid_out_like(weight, masks[name].to(weight)) for name, weight in self.moving.items()]
            for masks in used.values()
        }
        return {role: factors[id(masks)] for role, masks in used.items()}

    def go(self, journal: Once, watch: Watch) -> Descended:
        started = time.perf_counter()
        length = self.method.schedule.length(self.sizes, self.work.batch_size)
        self.work.model.train(self.method.training_mode)
        for tensor, _ in self.frozen:
            tensor.requires_grad_(False)
        try:
            device = next(iter(self.moving.values())).device
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                for until in self._cuts(length):
                    self._stage(journal, watch, until, length)
        finally:
            for tensor, required in self.frozen:
                tensor.requires_grad_(required)
        self._must_be_worth_it()
        if self.best:
            self._put_back(self.best)
        self.work.processes.gather(self.work.model)
        return Descended(
            {name: tensor.detach() for name, tensor in self.work.model.state_dict().items()},
            dict(self.steps),
            self.evaluations,
            {"preparing": self.preparing, "steps": time.perf_counter() - started},
            self.stepper.state_bytes,
            tuple(self.losses),
            tuple(self.scores),
            self.stopped,
        )

    def _cuts(self, length: int) -> list[int]:
        """Step counts at which the run is stored: from sizes alone, and without an effect on any bit of the result."""
        return cuts(length, self.work.processes.shares * state_bytes(self.moving.values()))

    def _stage(self, journal: Once, watch: Watch, until: int, length: int) -> None:
        """Everything up to step ``until``: taken from the journal, or done and written there."""
        together = self.work.processes
        shares = "" if together.shares == 1 else f"-{together.shares}-shares"
        name = f"descended{shares}" if until == length else f"descended{shares}-{until}"
        computed = False

        def compute() -> Mapping[str, Tensor]:
            nonlocal computed
            computed = True
            self._steps(watch, until, length)
            self._must_be_finite()
            return together.kept(self._stored())

        def first() -> bytes:
            together.from_first(True)  # nothing is stored: all compute
            return save_tensors(dict(compute()))

        if together.rank:  # the first process keeps the journal
            stored = compute() if together.from_first(None) else {}
        else:
            content = journal.once(name, first)
            stored = {} if computed else load_tensors(content)
            if not computed:
                together.from_first(False)
        if not computed:
            self._take_up(together.handed(stored))

    def _steps(self, watch: Watch, until: int, length: int) -> None:
        if self.stopped:
            return
        work, guard = self.work, self.method.guard
        if guard and not self.scores:
            self._look(guard, 0)
        stride = max(1, length // 100)
        for turn in self._turns(until):
            if self.prepared.refresh and turn.step == self.done and self._starts_epoch(turn):
                self._seed("refresh", turn.epoch)
                self.evaluations += self.prepared.refresh(turn.epoch)
                work.model.train(self.method.training_mode)
            self._step(turn)
            self.done = turn.step + 1
            if guard and (guard.looks(self.done, turn.ends_epoch) or (guard.at_end and self.done == length)):
                self._look(guard, self.done)
            if self.done % stride == 0 or self.done == length:
                watch("unlearn", self.done, length)
            if self.stopped:
                return

    def _turns(self, until: int) -> Iterator[Turn]:
        """The turns from where the run is; after a stage from the journal, those before are drawn and passed over."""
        if self.ahead is None:
            self.ahead = self.method.schedule.turns(self.sizes, self.work.batch_size, self.work.seed)
            self.last_epoch = -1
            for turn in islice(self.ahead, self.done):
                self.last_epoch = turn.epoch
        return islice(self.ahead, until - self.done)

    def _starts_epoch(self, turn: Turn) -> bool:
        first = turn.epoch != self.last_epoch
        self.last_epoch = turn.epoch
        return first

    def _seed(self, purpose: str, number: int) -> None:
        """Seed the global state, which dropout draws from."""
        seed_global(mixed_seed(self.work.seed, purpose, number), next(iter(self.moving.values())).device)

    def _step(self, turn: Turn) -> None:
        self._seed("layers", turn.step)
        turn, together = self.work.processes.share(turn), self.work.processes
        buffers = [(buffer, buffer.clone()) for buffer in self.work.model.buffers()]
        kept = self._kept(turn.role)
        try:
            loss = self._loss(turn)
            value = float(together.add_up([loss.detach()])[0])
            if not math.isfinite(value):
                raise NonFiniteError(f"the {turn.role} loss is not finite")
            gradients = together.gradients(loss, self.weights)
            masks = self.masks.get(turn.role)
            if masks:
                torch._foreach_mul_(gradients, masks)  # pyright: ignore[reportPrivateImportUsage]
            self.stepper.step(turn.role, gradients, self._factor(turn), together.norm(gradients))
        except NonFiniteError as error:
            for buffer, before in buffers:  # a forward pass on bad weights has moved running statistics
                buffer.copy_(before)
            rate = self.stepper.rates[turn.role]
            raise FailedError(
                f"Stopped at step {turn.step + 1} of {turn.steps} (epoch {turn.epoch + 1}): {error}. That step was not "
                f"made: the model is as it was after step {turn.step}, and nothing was released. Take a smaller learning "
                f"rate than {rate:g} for {turn.role} steps, clip gradients, or look at the rows."
            ) from None
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"The {turn.role} batch of step {turn.step + 1} is a single row, which has no variance for BatchNorm to "
                "divide by. Forget several rows together, or take a method that does not train on forgotten rows alone."
            ) from None
        if kept:
            with torch.no_grad():
                for before, weight, mask in zip(kept, self.moving.values(), masks or (), strict=True):
                    moved = self.stepper.masters.of(weight)
                    # exact at 0 and 1, and several times as fast as where
                    torch.lerp(before.to(moved), moved, mask.to(moved), out=moved)
            self.stepper.masters.settle(self.moving.values())
        self.steps[turn.role] += 1
        self.losses.append(value)

    def _kept(self, role: str) -> list[Tensor]:
        """What masked weights are put back to: what they were at first, or before this step where other steps move them."""
        if not self.selection.strict or role not in self.masks:
            return []
        return self.base or [self.stepper.masters.of(weight).detach().clone() for weight in self.moving.values()]

    def _loss(self, turn: Turn) -> Tensor:
        total: Tensor | None = None
        for name, index in turn.index.items():
            batch = self._batch(name, index, turn)
            part = self.prepared.loss(name, batch, turn)
            self.evaluations += len(batch) * (1 + self.prepared.beside.get(name, 0))
            total = part if total is None else total + part
        assert total is not None
        return total

    def _batch(self, name: str, index: Tensor, turn: Turn) -> Batch:
        batch = self.prepared.streams[name].take(index)
        if self.work.augment is None or "x" not in batch.columns:
            return batch
        return batch.with_columns(x=self.work.augment(batch["x"], self.work.draw(f"augment-{name}", turn.step)))

    def _factor(self, turn: Turn) -> float:
        method = self.method
        fallen = 0.1 ** sum(turn.epoch >= epoch for epoch in method.milestones)
        return fallen * factor(method.anneal, method.warmup, turn.step, turn.steps, turn.progress)

    def _look(self, guard: Guard, done: int) -> None:
        score = guard.score(self.work)
        self.work.model.train(self.method.training_mode)  # a score may look in evaluation mode
        best = max((seen for at, seen in self.scores if at), default=-math.inf)  # the start is no candidate
        self.scores.append((done, score))
        if guard.keep and score > best and done:
            self.best = {name: tensor.clone() for name, tensor in self._moved().items()}
        if guard.max_drop is not None and score < self.scores[0][1] - guard.max_drop:
            self.stopped = f"the guard's score fell from {self.scores[0][1]:.4g} to {score:.4g} at step {done}"

    def _moved(self) -> dict[str, Tensor]:
        """Everything that a step can change: the moving weights and the buffers. Frozen backbones are not copied."""
        frozen = {name for name, _ in self.work.model.named_parameters(remove_duplicate=False)} - self.moving.keys()
        own = self.work.processes.own
        return {name: own(tensor) for name, tensor in self.work.model.state_dict().items() if name not in frozen}

    @torch.no_grad()
    def _put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo of :meth:`_moved`."""
        for name, now in self._moved().items():
            now.copy_(tensors[name])

    def _must_be_worth_it(self) -> None:
        """A guard that names the least score it accepts must have seen it."""
        guard = self.method.guard
        best = max((score for at, score in self.scores if at), default=-math.inf)
        if guard and guard.least is not None and best < guard.least:
            raise FailedError(
                f"{guard.unmet or 'No state reached the least score that was asked for.'} Best score {best:.4g} over "
                f"{max(0, len(self.scores) - 1)} looks, at least {guard.least:.4g} was asked for; nothing was released."
            )

    def _must_be_finite(self) -> None:
        """A finite gradient times a huge rate can overflow, and after the last step no loss would tell."""
        bad = [name for name, tensor in self.moving.items() if not torch.isfinite(tensor).all()]
        if self.work.processes.total(len(bad)):
            rates = ", ".join(f"{role} {rate:g}" for role, rate in self.stepper.rates.items())
            raise FailedError(
                f"Stopped after step {self.done}: {bad[0] if bad else 'a weight'} is not finite, and nothing was released. "
                f"Take smaller learning rates than {rates}."
            )

    # --- what is stored, and how it is taken up -----------------------------------------------------------------------

    def _stored(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        parts = {
            "model": self._moved(),
            "optimizer": self.stepper.state(),
            "objective": self.prepared.state,
            "best": self.best,
        }
        for part, named in parts.items():
            for name, tensor in named.items():
                tensors[f"{part}:{name}"] = tensor.detach().cpu().contiguous().clone()
        facts: dict[str, Any] = {
            "done": self.done, "steps": self.steps, "evaluations": self.evaluations, "stopped": self.stopped,
            "scores": self.scores, "losses": self.losses,
        }  # fmt: skip
        tensors["facts"] = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
        return tensors

    def _take_up(self, tensors: Mapping[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            return {key.partition(":")[2]: t for key, t in tensors.items() if key.startswith(f"{name}:")}

        self._put_back(part("model"))
        self.stepper.load(part("optimizer"))
        device = next(iter(self.moving.values())).device
        self.prepared.state.clear()
        self.prepared.state.update({name: tensor.to(device) for name, tensor in part("objective").items()})
        self.best = part("best")
        facts = json.loads(bytes(tensors["facts"].tolist()))
        self.done, self.evaluations = facts["done"], facts["evaluations"]
        self.ahead = None
        self.steps, self.losses, self.stopped = facts["steps"], facts["losses"], facts["stopped"]
        self.scores = [(int(done), float(score)) for done, score in facts["scores"]]
