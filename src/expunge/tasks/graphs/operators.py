"""Deletion operators: matrices that stand behind the stages of a frozen network and act on some nodes only.

Source: GNNDelete (Cheng et al., ICLR 2023, arXiv 2302.13406), section 4. The nodes are those around what was deleted: whoever
holds the model can read from them where that was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.tasks.graphs.networks import Edit, GraphNetwork

PREFIX = "deletion"
_NAME = re.compile(rf"{PREFIX}\.rounds\.(\d+)\.(\d+)\.(weight|nodes)")


class Operator(nn.Module):
    """``h W`` at ``nodes``, ``h`` elsewhere.

    Shapes:
        weight (d, d); nodes (k,) int64, persistent ids.
    """

    nodes: Tensor

    def __init__(self, weight: Tensor, nodes: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("nodes", nodes)

    def forward(self, h: Tensor, ids: Tensor) -> Tensor:
        """(n, d) of the nodes ``ids`` (n,) → (n, d)."""
        return torch.where(torch.isin(ids, self.nodes)[:, None], h @ self.weight, h)


class Operators(nn.Module):
    """One list of operators for each request, one a stage; later requests act on what earlier ones left."""

    def __init__(self, rounds: list[list[Operator]]):
        super().__init__()
        self.rounds = nn.ModuleList([nn.ModuleList(each) for each in rounds])

    def edit(self, ids: Tensor) -> Edit:
        """What goes between the stages of a network that runs on the nodes ``ids``."""

        def edited(stage: int, h: Tensor) -> Tensor:
            for operators in self.rounds:
                assert isinstance(operators, nn.ModuleList)
                h = operators[stage](h, ids)
            return h

        return edited

    def next(self, operators: list[Operator]) -> Operators:
        """These and another round."""
        return Operators([*([op for op in each] for each in self.rounds), operators])  # type: ignore[misc,union-attr]


def rounds_in(tensors: Mapping[str, Tensor]) -> int:
    """How many requests left operators among ``tensors``."""
    return 1 + max((int(found[1]) for name in tensors if (found := _NAME.fullmatch(name))), default=-1)


def attached(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """``model`` with the operators that ``tensors`` name, in place; without any, as it is.

    Raises:
        InputError: for a network whose stages cannot be edited, or operators that miss a stage.
    """
    count = rounds_in(tensors)
    if not count:
        return model
    if not isinstance(model, GraphNetwork):
        raise InputError(
            f"Deletion operators stand behind the stages of expunge's own networks; got {type(model).__name__}."
        )
    made = []
    for number in range(count):
        names = [f"{PREFIX}.rounds.{number}.{stage}" for stage in range(len(model.gathers))]
        if missing := [name for name in names if f"{name}.weight" not in tensors or f"{name}.nodes" not in tensors]:
            raise InputError(f"Expected a deletion operator behind every stage; {missing[0]} is missing.")
        made.append([Operator(tensors[f"{name}.weight"].clone(), tensors[f"{name}.nodes"].clone()) for name in names])
    model.add_module(PREFIX, Operators(made))
    return model


def operators_of(model: nn.Module) -> Operators | None:
    """The operators of a model; ``None`` where it has none."""
    found = getattr(model, PREFIX, None)
    return found if isinstance(found, Operators) else None
