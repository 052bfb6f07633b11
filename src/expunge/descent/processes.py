"""Several processes as one run: each computes its share of every batch, and gradients are added up.

``accelerate`` is the only boundary: it starts the processes, knows the devices, and carries numbers between them. A loss that
is a mean must divide by what all processes have together (:meth:`Processes.mean`, :meth:`Processes.total`); the sum of the
gradients is then the gradient of one process that has the whole batch, whatever the shares are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import ExtraMissingError, InputError
from expunge.descent.schedule import Turn


class Processes:
    """The one process that there usually is."""

    count = 1
    rank = 0

    def share(self, turn: Turn) -> Turn:
        """This process's rows of a step."""
        return turn

    def total(self, number: Tensor | int) -> float:
        """The sum of a count over all processes."""
        return float(number)

    def mean(self, values: Tensor) -> Tensor:
        """What this process adds to the mean over all rows of all processes.

        Shapes:
            (b,) → scalar.
        """
        return values.sum() / self.total(len(values))

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sums over all processes."""
        return list(tensors)

    def from_first(self, value: Any) -> Any:
        """What the first process has."""
        return value


ALONE = Processes()


class Accelerated(Processes):
    """The processes of ``accelerate launch``.

    Every process keeps the whole model: rows are shared out, weights are not. Sharded weights (FSDP) and DeepSpeed are
    refused, since optimizer states here are addressed weight by weight, and DeepSpeed owns a single optimizer.

    Raises:
        InputError: under FSDP or DeepSpeed. ``ExtraMissingError`` without the extra ``llm``.
    """

    def __init__(self) -> None:
        try:
            from accelerate import PartialState
        except ImportError:
            raise ExtraMissingError("llm", "accelerate") from None
        for switch, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
            if os.environ.get(switch, "false").lower() in ("1", "true"):
                raise InputError(
                    f"Unlearning shares out rows among processes and keeps the model whole in each; {name} shares out weights. "
                    "Take a plain multi-process configuration (accelerate config)."
                )
        state = PartialState(cpu=not torch.cuda.is_available())
        self.count, self.rank, self.device = state.num_processes, state.process_index, state.device

    def share(self, turn: Turn) -> Turn:
        """Every ``count``-th row, from the process's own number on.

        Raises:
            InputError: where a batch has fewer rows than there are processes.
        """
        if few := [name for name, index in turn.index.items() if len(index) < self.count]:
            raise InputError(
                f"The {few[0]} batch of step {turn.step + 1} has {len(turn.index[few[0]])} row(s) for {self.count} processes. "
                "Take larger batches or fewer processes."
            )
        return replace(turn, index={name: index[self.rank :: self.count] for name, index in turn.index.items()})

    def total(self, number: Tensor | int) -> float:
        """The sum of a count over all processes."""
        return float(self.add_up([torch.as_tensor(float(number), device=self.device)])[0])

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sums over all processes, through ``accelerate``."""
        from accelerate.utils import reduce

        return [torch.as_tensor(reduce(tensor.detach().clone(), "sum")) for tensor in tensors]

    def from_first(self, value: Any) -> Any:
        """What the first process has; anything that can be pickled, between our own processes."""
        from accelerate.utils import broadcast_object_list

        box = [value]
        broadcast_object_list(box)
        return box[0]


def processes() -> Processes:
    """Those that ``accelerate launch`` (or ``torchrun``) started together with this one, or this one alone."""
    return Accelerated() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ALONE
