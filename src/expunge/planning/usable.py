"""A model is used once before anyone relies on it: its weights, a small batch through it, and its form on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from expunge.core.data import Deletion
from expunge.core.task import Task
from expunge.core.trained import Artifact
from expunge.tasks.passes import evaluating

ROWS = 4  # of the batch; our choice
SHOWN = 3  # names of a message


def broken(task: Task, artifact: Artifact, deletion: Deletion) -> str:
    """Why ``artifact`` cannot be used, in words; empty where it can.

    Its weights must be finite, a batch of :data:`ROWS` retained examples (forgotten ones, where none are retained) must give
    outputs without NaN and a finite loss of each example, and what safetensors stores of it must load as the same tensors.

    Formal guarantee: none; other examples may still give outputs that are not finite.
    """
    tensors = artifact.tensors
    if bad := [name for name, tensor in tensors.items() if not bool(torch.isfinite(torch.as_tensor(tensor)).all())]:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        return f"{', '.join(bad[:SHOWN])}{more} of {len(tensors)} tensors hold NaN or infinite numbers"
    return _differs_when_stored(tensors) or _fails(task, tensors, deletion)


def _differs_when_stored(tensors: Mapping[str, Tensor]) -> str:
    """One tensor at a time: together they might not fit into memory twice."""
    for name, tensor in tensors.items():
        plain = torch.as_tensor(tensor).detach().cpu().contiguous().clone()
        loaded = load(save({name: plain}))[name]
        if loaded.dtype != plain.dtype or not torch.equal(loaded, plain):
            return f"{name} is another tensor after it was stored and loaded"
    return ""


def _fails(task: Task, tensors: Mapping[str, Any], deletion: Deletion) -> str:
    """What is wrong with the losses of a few examples."""
    rows = deletion.after if deletion.after is not None and len(deletion.after) else deletion.forget
    if rows is None or not len(rows):
        return ""
    batch = task.batch(rows, torch.arange(min(ROWS, len(rows))))
    model = task.build(tensors)
    held = task.released(model)
    if missing := [n for n, t in tensors.items() if n in held and not torch.equal(held[n].cpu(), t.detach().cpu())]:
        return f"the architecture holds {missing[0]} as another tensor than the one that would be released"
    params = dict(model.named_parameters())
    with torch.no_grad(), evaluating(model):
        losses = task.losses(model, params, batch)
        logits = task.outputs(model, params, batch).logits
    if losses.shape != (len(batch),):
        return f"{len(batch)} examples have losses of shape {tuple(losses.shape)}"
    if isinstance(logits, Tensor) and bool(torch.isnan(logits).any()):
        return "its outputs on retained examples are not numbers (NaN)"
    if not bool(torch.isfinite(losses).all()):
        return "its losses on retained examples are not finite"
    return ""
