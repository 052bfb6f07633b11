"""How far weights moved, and how far they are from the retrained ones."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from expunge.training.descent import trainable
from expunge.training.flat import distance


def change_per_module(model: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """L2 norm of the change of each module's own tensors relative to its norm before (1 where that was zero)."""
    changes: dict[str, float] = {}
    for name, module in model.named_modules():
        own = [f"{name}.{leaf}" if name else leaf for leaf, _ in module.named_parameters(recurse=False)]
        own = [n for n in own if n in after]  # weights that two modules share have one name
        if not own:
            continue
        moved = sum(float((after[n].double().cpu() - before[n].double().cpu()).square().sum()) for n in own) ** 0.5
        size = sum(float(before[n].double().cpu().square().sum()) for n in own) ** 0.5
        changes[name or "model"] = moved / size if size else float(moved > 0)
    return changes


def trainable_distance(model: nn.Module, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """L2 distance over the trainable weights, in double precision."""
    names = trainable(model)
    return distance({n: first[n] for n in names}, {n: second[n] for n in names})
