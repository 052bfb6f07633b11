"""Work that survives a crash: stages whose result is stored before anything depends on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from expunge.core.batch import Batch
from expunge.core.method import Context, Once
from expunge.training.descent import Step, descend


def stage_once(journal: Once, name: str, compute: Any) -> dict[str, Tensor]:
    """Named tensors of a stage, computed once however often the run is started again."""
    return load_tensors(journal.once(name, lambda: save_tensors(contiguous(compute()))))


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached contiguous CPU copies, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


# Row gradients x weights between two stored iterates: about a minute of a CPU core at 50 GFLOP/s and 6 FLOP each.
WORK_PER_STAGE = 500e9


def descend_in_stages(
    context: Context, model: Any, start: Mapping[str, Tensor], batch: Batch, step: Step, steps: int
) -> dict[str, Tensor]:
    """Full-batch descent that a killed run goes on with: long ones are stored about every minute, short ones at the end.

    Where the cuts are follows from sizes alone and changes no bit of the result.
    """
    weights = sum(tensor.numel() for tensor in start.values())
    stages = max(1, min(steps, math.ceil(len(batch) * weights * steps / WORK_PER_STAGE)))
    tensors, done = dict(start), 0
    for i in range(stages):
        until = steps * (i + 1) // stages
        name = "descended" if i == stages - 1 else f"descended-{until}"
        part = functools.partial(_part, context, model, tensors, batch, step, done, until, steps)
        tensors = {key: tensor.to(start[key].device) for key, tensor in stage_once(context.journal, name, part).items()}
        done = until
    return tensors


def _part(
    context: Context, model: Any, start: Mapping[str, Tensor], batch: Batch, step: Step, done: int, until: int, steps: int
) -> dict[str, Tensor]:  # fmt: skip
    """Steps ``done`` to ``until`` of ``steps``."""

    def watch(stage: str, now: int, total: int) -> None:
        context.watch(stage, done + now, steps)

    return descend(context.task, model, start, batch, step, until - done, watch=watch, stage="unlearn")[0]
