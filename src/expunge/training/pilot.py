"""What a gradient costs here and now: a few steps on a model, timed, where no formula knows the machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.tasks.passes import MEAN_GRADIENT

STEPS = 3  # timed after one that loads kernels; the fastest counts, since what disturbs a step only makes it slower


@dataclass(frozen=True)
class Pilot:
    """A few steps, timed.

    Attributes:
        seconds: of the gradient of one example, in batches of ``examples``.
        examples: of one step.
        memory_bytes: weights, gradients, one moment of each weight, and what the forward pass kept for the backward pass.
    """

    seconds: float
    examples: int
    memory_bytes: int


def pilot(task: Task, tensors: Mapping[str, Tensor], data: Any, batch_size: int | None = None) -> Pilot:
    """Time a few steps (forward, backward, SGD with momentum and a rate of 0) of a copy of a model.

    Args:
        task: how the model is run.
        tensors: its weights; they stay as they are.
        data: examples to take steps on.
        batch_size: examples of a step; all of ``data`` where not given, as methods on the whole batch take them.

    Returns:
        The time of one example's gradient and the memory of a step. No random number of the caller is drawn.

    Raises:
        InputError: for data without examples, or a batch size below 1.

    Formal guarantee: none; another machine, or a busy one, takes another time.
    """
    size = min(len(data), batch_size or MEAN_GRADIENT, MEAN_GRADIENT)
    if size < 1:
        raise InputError(f"Expected examples to take steps on, and a batch size of at least 1; got {size}.")
    model = task.build(tensors)
    model.train(size > 1)  # one example has no variance for batch normalisation
    batch = task.batch(data, torch.arange(size))
    params = dict(model.named_parameters())
    moving = [tensor for tensor in params.values() if tensor.requires_grad]
    if not moving:
        raise InputError("The model has no trainable weight: there is no step to time.")
    optimizer = torch.optim.SGD(moving, lr=0.0, momentum=0.9)
    weights = {tensor.untyped_storage().data_ptr() for tensor in params.values()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    taken = []
    with torch.random.fork_rng(devices=[batch.device] if batch.device.type == "cuda" else []):
        for _ in range(1 + STEPS):
            _wait(batch.device)
            started = time.perf_counter()
            optimizer.zero_grad()
            if taken:
                loss = task.losses(model, params, batch).mean()
            else:
                with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                    loss = task.losses(model, params, batch).mean()
            loss.backward()
            optimizer.step()
            _wait(batch.device)
            taken.append(time.perf_counter() - started)
    size_of = sum(tensor.numel() * tensor.element_size() for tensor in params.values())
    moved = sum(tensor.numel() * tensor.element_size() for tensor in moving)
    return Pilot(min(taken[1:]) / size, size, size_of + 2 * moved + sum(kept.values()))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
