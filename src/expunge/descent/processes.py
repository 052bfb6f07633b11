"""Several processes as one run: each computes its share of every batch, and gradients are added up.

``accelerate`` is the only boundary: it starts the processes, knows the devices, and carries numbers between them. A loss that
is a mean must divide by what all processes have together (:meth:`Processes.mean`, :meth:`Processes.total`); the sum of the
gradients is then the gradient of one process that has the whole batch, whatever the shares are. Weights are whole in every
process here; :mod:`expunge.descent.sharded` shares them out too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExtraMissingError, InputError
from expunge.descent.schedule import Turn
from expunge.tasks.half_precision import is_half


class Processes:
    """The one process that there usually is."""

    count = 1
    rank = 0
    shares = 1  # that each weight is cut into

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

    # --- weights ------------------------------------------------------------------------------------------------------

    def spread(self, model: nn.Module) -> None:
        """Share the weights of ``model`` out, where that is asked for; before anything looks at its parameters."""

    def gather(self, model: nn.Module) -> None:
        """Make the weights of ``model`` whole again: after the last step, to be read and not to be run."""

    def own(self, weight: Tensor) -> Tensor:
        """This process's part of a weight, in the weight's storage."""
        return weight

    def gradients(self, loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Of the sum of all processes' losses, with respect to :meth:`own` parts; zero where ``loss`` does not reach."""
        found = torch.autograd.grad(loss, list(weights), allow_unused=True, materialize_grads=True)
        return self.add_up(found)

    def norm(self, gradients: Sequence[Tensor]) -> float:
        """L2 norm of the whole gradient."""
        return float(norm_of(gradients))

    # --- what is stored -----------------------------------------------------------------------------------------------

    def kept(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What the first process stores for all of them, from what each would store."""
        return tensors

    def handed(self, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What this process had given to :meth:`kept`, from what the first process has stored."""
        return stored


ALONE = Processes()


class Accelerated(Processes):
    """The processes of ``accelerate launch``, each with the whole model: rows are shared out, weights are not.

    Raises:
        InputError: under DeepSpeed, which owns a single optimizer. ``ExtraMissingError`` without the extra ``llm``.
    """

    part = ""  # marks this process's tensors among those that are stored

    def __init__(self) -> None:
        try:
            from accelerate import PartialState
        except ImportError:
            raise ExtraMissingError("llm", "accelerate") from None
        if _on("ACCELERATE_USE_DEEPSPEED"):
            raise InputError(
                "DeepSpeed owns the optimizer, and unlearning may need two. Take a plain multi-process configuration, or FSDP "
                "to share out weights (accelerate config)."
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

    def handed(self, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Tensor by tensor, so that nobody holds more than its own and one of another."""
        mine = {}
        for name in self.from_first(list(stored)):
            tensor = self.from_first(stored.get(name))
            if name.startswith(self.part):
                mine[name.removeprefix(self.part)] = tensor
        return mine


def processes() -> Processes:
    """Those that ``accelerate launch`` (or ``torchrun``) started together with this one, or this one alone.

    Raises:
        InputError: under a configuration that cannot be followed. ``ExtraMissingError`` without the extra ``llm``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return ALONE
    return _started(_on("ACCELERATE_USE_FSDP"))


@cache
def _started(fsdp: bool) -> Processes:
    if not fsdp:
        return Accelerated()
    from expunge.descent.sharded import Sharded

    return Sharded()


def _on(switch: str) -> bool:
    return os.environ.get(switch, "false").lower() in ("1", "true")


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm over all tensors, a scalar; of half precision in single precision, which float16 would overflow."""
    if any(is_half(tensor) for tensor in tensors):
        return torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]).norm()
    return torch.stack(torch._foreach_norm(list(tensors))).norm()  # pyright: ignore[reportPrivateImportUsage]
