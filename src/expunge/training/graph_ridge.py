"""Ridge regression of labels on averaged features: a linear graph network in closed form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Tensors, Trained
from expunge.curvature.ridge import Ridge
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.propagation import propagated_rows
from expunge.tasks.graphs.networks import SGC
from expunge.training.facts import enforced, inspect, prepared

WEIGHT = "linear.weight"  # of SGC
INVERSE, SOLUTION = "ridge.inverse", "ridge.weights"  # names among the secret tensors: both in double precision
MOST_COLUMNS = 10_000  # the inverse takes d² numbers: 800 MB


@dataclass(frozen=True, kw_only=True)
class GraphRidge:
    """``W = (Z'Z + lambda I)^-1 Z'Y``, Z the features of training nodes after SGC's averages, Y = 1 at the label, else -1.

    Attributes:
        l2: lambda, of the sum over nodes: 0.1, our choice. GraphEditor's authors have 0 and repair what cannot be inverted,
            which is not exact.
    """

    l2: float = 0.1
    leaves_state: ClassVar[bool] = True

    def __post_init__(self):
        if not self.l2 > 0:
            raise InputError(f"Expected l2 above 0 for ridge regression; got {self.l2}.")

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "ridge regression on a graph", **asdict(self)}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Solve. The seed decides nothing.

        Raises:
            InputError: for another model than SGC without a bias, or too many columns.
        """
        model = task.build(seed=seed)
        steps = steps_of(model)
        if not isinstance(data, Graph) or data.width > MOST_COLUMNS:
            raise InputError(
                f"Ridge regression keeps the inverse of a matrix as wide as the features; it serves graphs with up to "
                f"{MOST_COLUMNS} columns. Project the features first."
            )
        classes = model.linear.weight.shape[1]  # type: ignore[union-attr]
        ridge = Ridge.fit(*rows_of(data, steps, data.examples, classes), self.l2)
        facts = {
            **inspect(model),
            **prepared(data),
            "augmentation": enforced(False),
            "start": enforced("independent", "a closed form has no start"),
            "selection": enforced("fixed"),
            "buffers_moved": enforced(False),
            "rows": enforced(len(data), "counted"),
            "l2": enforced(self.l2),
        }
        released = {WEIGHT: ridge.weights.to(model.linear.weight.dtype)}  # type: ignore[union-attr]
        return Trained(task, Artifact(released), data, self, None, facts, seed=seed, state=secret_of(released, ridge))


def steps_of(model: Any) -> int:
    """How often SGC averages; raises InputError for any other model."""
    if type(model) is not SGC or model.linear.bias is not None:
        raise InputError(
            "Ridge regression has a closed form for linear networks only; expected model: sgc with model_settings: {bias: "
            f"false}}, got {type(model).__name__}."
        )
    return model.steps


def rows_of(graph: Graph, steps: int, ids: np.ndarray, classes: int) -> tuple[Tensor, Tensor]:
    """Averaged features and targets of the nodes ``ids``: (k, d) and (k, classes), in double precision."""
    z = torch.from_numpy(propagated_rows(graph, steps, ids))
    y = 2 * torch.nn.functional.one_hot(torch.from_numpy(graph.labels(ids)), classes).double() - 1
    return z, y


def secret_of(released: Tensors, ridge: Ridge) -> dict[str, Tensor]:
    """What a later request needs: as released, and both closed forms."""
    return {**released, INVERSE: ridge.inverse, SOLUTION: ridge.weights}
