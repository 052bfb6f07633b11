"""Training of graph networks on record in mini-batches whose steps read sampled neighbourhoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Trained
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.tasks.graphs.sampling import SampledNodes
from expunge.training.stochastic import Stochastic


@dataclass(frozen=True, kw_only=True)
class SampledGraphTraining:
    """Adam on the losses of a batch of examples, each step on neighbourhoods drawn anew (``tasks.graphs.sampling``).

    Attributes:
        batch_size, fan_out, epochs, lr: 64, 5 neighbours and then 10, 100 and .005: the released code of Forget and Explain
            (arXiv 2512.07450), which takes the loss of every node that is sampled; here it is that of training nodes alone.
        l2: weight decay: none, as there.

    Formal guarantee: none.
    """

    batch_size: int = 64
    fan_out: Sequence[int] = (5, 10)
    epochs: int = 100
    lr: float = 0.005
    l2: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "fan_out", tuple(self.fan_out))
        if not self.fan_out or min(self.fan_out) < 1:
            raise InputError(f"Expected a fan-out of at least one neighbour for each hop; got {list(self.fan_out)}.")
        self._steps()  # checks

    def _steps(self) -> Stochastic:
        return Stochastic(epochs=self.epochs, lr=self.lr, l2=self.l2, optimizer="adam", batch_size=self.batch_size)

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "descent on sampled neighbourhoods", **asdict(self), "fan_out": list(self.fan_out)}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train one model.

        Raises:
            InputError: where the fan-out is for another number of hops than the model gathers over.
        """
        assert isinstance(task, NodeClassification)
        if task.depth is not None and task.depth != len(self.fan_out):
            raise InputError(
                f"Expected one fan-out for each of the {task.depth} hops that the model gathers over; got {list(self.fan_out)}."
            )
        trained = self._steps().fit(SampledNodes.around(task, self.fan_out), data, seed=seed, watch=watch)
        return replace(trained, task=task, recipe=self)
