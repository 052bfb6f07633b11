"""Training of graph networks on record: whole-graph steps, one model alone or several stacked in one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.func import stack_module_state, vmap

from expunge.core.errors import InputError
from expunge.core.task import HasClosedForm, Task
from expunge.core.trained import Artifact, Trained
from expunge.tasks.graphs.dropout import drawn_from
from expunge.training.batches import LAYERS, epoch_generator
from expunge.training.stochastic import Stochastic

WHOLE = 2**31 - 1  # examples of a step: all there are
# Nodes up to which models are stacked. What stacking saves is the calls, which are most of a step on small graphs. On large
# ones a stack's matrices leave the processor's cache, and it costs 1.3 to 2 times as much (bench/graph_nulls.py).
STACKED = 2000  # by autograd: 1.5 to 2 times as fast on 60 to 700 nodes, as fast on 2,000
STACKED_WITH_CLOSED_FORM = 300  # where a model alone has one: 1.4 times as fast on 60 nodes, 1.1 on 300, .8 on 700


@dataclass(frozen=True, kw_only=True)
class GraphTraining:
    """Every step on all examples of the graph; the last step counts, and no validation node chooses among them.

    Attributes:
        epochs, lr, l2: 200, .01 and 5e-4 with Adam, as for citation graphs (Kipf and Welling 2017, arXiv 1609.02907, section
            5.2); there the decay is on the first layer only, here on every weight.
        optimizer: ``adam`` or ``sgd``.

    Formal guarantee: none.
    """

    epochs: int = 200
    lr: float = 0.01
    l2: float = 5e-4
    optimizer: str = "adam"

    def __post_init__(self):
        self._steps()  # checks

    def _steps(self) -> Stochastic:
        return Stochastic(epochs=self.epochs, lr=self.lr, l2=self.l2, optimizer=self.optimizer, batch_size=WHOLE)

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "whole-graph descent", **asdict(self)}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train one model. Formal guarantee: none."""
        return replace(self._steps().fit(task, data, seed=seed, watch=watch), recipe=self)

    def fit_together(self, task: Task, data: Any, seeds: Sequence[int]) -> list[Trained]:
        """A model for each of ``seeds``; each is what :meth:`fit` makes of its seed, up to rounding.

        On small graphs all take a step together. Models that ``torch.func.vmap`` does not take, single ones and those on graphs
        on which stacking does not pay are trained one after another.

        Raises:
            InputError: where training diverges.
        """
        if len(seeds) < 2 or not _pays(task, data) or not stackable(task, data):
            return [self.fit(task, data, seed=seed) for seed in seeds]
        models = [task.build(seed=seed).train() for seed in seeds]
        params = {name: nn.Parameter(each.detach()) for name, each in stack_module_state(models)[0].items()}
        batch = task.batch(data)
        optimizer = self._steps().make_optimizer(_Held(params))
        losses = torch.zeros(len(seeds))
        for epoch in range(1, self.epochs + 1):
            with drawn_from([epoch_generator(seed, epoch, LAYERS) for seed in seeds]):
                losses = vmap(lambda own: task.losses(models[0], own, batch).mean())(params)
            optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()
            optimizer.step()
        if not bool(torch.isfinite(losses).all()):
            at = int((~torch.isfinite(losses)).nonzero()[0])
            raise InputError(
                f"The loss of the model with seed {seeds[at]} was not finite; take a smaller learning rate."
            )
        return [
            Trained(
                task, Artifact({name: each[r].detach().clone() for name, each in params.items()}), data, self, seed=seed
            )
            for r, seed in enumerate(seeds)
        ]


def _pays(task: Task, data: Any) -> bool:
    form = task.closed_form(task.build(seed=0)) if isinstance(task, HasClosedForm) else None
    return len(getattr(data, "graph", data).nodes) <= (STACKED if form is None else STACKED_WITH_CLOSED_FORM)


class _Held(nn.Module):
    """Stacked weights as an optimizer takes them."""

    def __init__(self, params: Mapping[str, nn.Parameter]):
        super().__init__()
        self.held = nn.ParameterList(list(params.values()))


def stackable(task: Task, data: Any) -> bool:
    """Whether two models of ``task`` go through one stacked step, each with the loss that it has alone."""
    models = [task.build(seed=seed).train() for seed in (0, 1)]
    if (
        task.device != "cpu"
        or any(True for _ in models[0].buffers())
        or any(not w.requires_grad for w in models[0].parameters())
    ):
        return False
    params, _ = stack_module_state(models)
    batch = task.batch(data)

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(number) for number in (3, 4)]

    try:
        with drawn_from(generators()):
            together = vmap(lambda own: task.losses(models[0], own, batch).mean())(params)
        torch.autograd.grad(together.sum(), list(params.values()))
    except (RuntimeError, ValueError, NotImplementedError, TypeError):
        return False
    alone = []
    for model, number in zip(models, (3, 4), strict=True):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(number)
            alone.append(float(task.losses(model, dict(model.named_parameters()), batch).mean()))
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-5) for a, b in zip(alone, together.tolist(), strict=True))
