"""What the parts of a gradient method look at, and what an objective must offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.data import Deletion
from expunge.core.task import Autoregressive, Task, autoregressive
from expunge.descent.processes import ALONE, Processes
from expunge.descent.schedule import Turn
from expunge.descent.streams import generator_for
from expunge.training.stochastic import prefer_channels_last

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Work:
    """One run: the model that is being changed, and everything around it that is not.

    Attributes:
        task: how this kind of model is run.
        model: the module; its weights move in place.
        base: the weights before the run.
        deletion: what must go and what stays.
        batch_size: stream → rows per batch.
        seed: of every draw.
        augment: random views of inputs, redrawn at every step as in training; ``None`` where inputs are fixed. Outputs of
            frozen models are computed once only in the second case.
        processes: that share the rows of each step.
    """

    task: Task
    model: nn.Module
    base: Mapping[str, Tensor]
    deletion: Deletion
    batch_size: Mapping[str, int]
    seed: int = 0
    augment: Augment | None = None
    processes: Processes = ALONE

    @cached_property
    def language(self) -> Autoregressive:
        """The task as one that answers token by token; raises InputError where it does not."""
        return autoregressive(self.task)

    @cached_property
    def params(self) -> Mapping[str, Tensor]:
        """The moving weights by name."""
        return dict(self.model.named_parameters())

    def lay_out(self, model: nn.Module) -> None:
        """Give ``model`` the order of memory that this machine's kernels like best; it may end in evaluation mode."""
        few = torch.arange(min(2, len(self.deletion.forget)))
        prefer_channels_last(self.task, model, self.task.batch(self.deletion.forget, few))

    def draw(self, purpose: str, number: int) -> torch.Generator:
        """A generator for draw ``number`` of ``purpose``; the same whenever a run is taken up again."""
        return generator_for(self.seed, purpose, number)


@dataclass
class Prepared:
    """An objective ready for a run.

    Attributes:
        streams: role → examples, looked up for the schedule's roles alone; whatever was computed once for each of them (a
            teacher's outputs, an anchor) is a column, and is sliced with the rest.
        loss: (role, batch, turn) → scalar.
        refresh: called at the start of each epoch with its number; may change ``state``; per-row gradients that it took.
        state: tensors that ``refresh`` made; stored with the run.
        gradient_evaluations: per-row gradients spent on preparing.
        beside: role → further rows that its loss looks at for each row of the batch: joint prompts, second answers.
    """

    streams: Mapping[str, Batch]
    loss: Callable[[str, Batch, Turn], Tensor]
    refresh: Callable[[int], int] | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    gradient_evaluations: int = 0
    beside: Mapping[str, int] = field(default_factory=dict)


class Objective(Protocol):
    """What a method minimises: a frozen record that prepares itself for a run."""

    def prepare(self, work: Work) -> Prepared:
        """Look at model and rows once, and say what each role's loss is."""
        ...
