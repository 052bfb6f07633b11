"""What influence methods on graphs share: one step from the minimiser on all of the graph towards the one on what is left.

With S the sum of losses on the graph as it was and S' on what is left, each with m l2 / 2 ||theta||² of m or m' examples,
``theta + (S'')^-1 (grad S - grad S')``. Only examples that go, or that the deletion reaches, enter the difference; labels of
other nodes never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from expunge.core.allowed import Count, NonNegative, Positive, Probability, must_be_allowed
from expunge.core.batch import Batch
from expunge.core.errors import FailedError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale
from expunge.core.trained import Tensors
from expunge.curvature.conjugate_gradient import conjugate_gradient
from expunge.curvature.hessian import hessian_products, spectral_norm
from expunge.curvature.neumann import neumann
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.reach import affected
from expunge.tasks.graphs.operators import rounds_in
from expunge.training.descent import trainable
from expunge.training.flat import flatten, unflatten
from expunge.training.graph_minimiser import LOSSES, GraphMinimiser
from expunge.training.perturbed import PERTURBATION

DAMPINGS = (1e-3, 1e-2, 0.1, 1.0)  # tried in turn after none, of the Hessian's largest eigenvalue; ours
POWER_STEPS = 15


@dataclass(frozen=True, eq=False)
class Influence:
    """A step and what it rests on.

    Attributes:
        step: in the trainable weights, (d,). tensors: the weights after it, in double precision.
        gradient: norm of the gradient of the mean objective before, at the weights as they were.
        changed: how many examples go or are reached. gone: how many go. examples: m, of the graph as it was.
        left: H step - right-hand side, (d,), of the sums on what is left: what the solver did not reach.
        details: for the report.
    """

    step: Tensor
    tensors: dict[str, Tensor]
    gradient: float
    changed: int
    gone: int
    examples: int
    left: Tensor
    details: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class InfluenceMethod:
    """Settings of the step; subclasses say what is done with it.

    Attributes:
        solver: ``cg`` (conjugate gradients, our choice: it stops by its residual) or ``iteration`` (the papers' code: a fixed
            number of steps, which for a large ``scale`` is hardly any change).
        tolerance, most: of conjugate gradients, relative residual 1e-6 and products 300: our choice.
        damping: added to the Hessian's diagonal; where not given the least of 0, 1e-3, .01, .1 and 1 times its largest
            eigenvalue under which no direction bends downwards.
        hessian: on what is ``after`` (our choice; measured to be 3 to 500 times as close) or was ``before`` (IDEA, Theorem 1).
        neighbours: whether retained examples that the deletion reaches count; without them it is the plain influence function.
        iterations, scale: of ``iteration``: 100 and 500, GIF's description and IDEA's settings for Cora.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    papers: ClassVar[tuple[Paper, ...]]
    small: ClassVar[SmallScale] = SmallScale()
    solver: Literal["cg", "iteration"] = "cg"
    tolerance: Probability = 1e-6
    most: Count = 300
    damping: NonNegative | None = None
    hessian: Literal["after", "before"] = "after"
    neighbours: bool = True
    iterations: Count = 100
    scale: Positive = 500.0

    def __post_init__(self):
        must_be_allowed(self)

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs weights that are no deletion operators."""
        if rounds_in(context.trained.artifact.tensors):
            return Refusal(
                f"{self.name} steps from a minimum; an earlier request left deletion operators, and their weights are none.",
                "Use gnn_delete again, or retrain.",
            )
        return Estimate(self.planned_evaluations(context))

    def planned_evaluations(self, context: Context) -> int:
        """What the step is expected to take, from settings and sizes alone.

        How many products it did take follows from what is forgotten: a run that promises something states this number.
        """
        products = self.most if self.solver == "cg" else self.iterations
        return (2 * products + POWER_STEPS + 3) * len(context.deletion.after)

    def influence(self, context: Context, tensors: Tensors) -> Influence:
        """The step from ``tensors``, in double precision, on the loss that the model was trained on.

        Raises:
            FailedError: where an iteration cannot converge, or its result is not finite.
        """
        deletion, task = context.deletion, replace(context.task, dtype=torch.float64)  # type: ignore[type-var]
        before: Graph = deletion.before
        like = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        model = task.build(like).eval()
        names, recipe = trainable(model), context.trained.recipe
        of_each = LOSSES[recipe.loss if isinstance(recipe, GraphMinimiser) else "softmax"]
        theta, l2 = flatten(like, names).detach(), float(getattr(recipe, "l2", 0.0))
        full, rest = task.batch(before), task.batch(deletion.after)

        def total(batch: Batch) -> Callable[[Tensor], Tensor]:
            return lambda at: of_each(task, model, unflatten(at, like, names), batch).sum()

        gone = np.isin(before.examples, deletion.ids["node"])
        moved = self._moved(deletion, task) & ~gone
        stay = np.isin(deletion.after.examples, before.examples[moved])
        right = l2 * int(gone.sum()) * theta
        for batch, chosen, sign in ((full, gone | moved, 1.0), (rest, stay, -1.0)):
            if chosen.any():
                right = right + sign * grad(total(batch.take(torch.from_numpy(np.flatnonzero(chosen)))))(theta)
        of_hessian = rest if self.hessian == "after" else full
        count = len(of_hessian)

        def mean(at: Tensor) -> Tensor:
            return total(of_hessian)(at) / count + l2 / 2 * at.square().sum()

        products = hessian_products(mean, theta)
        step, details = self._solved(products, mean, theta, right / count, count)
        if not bool(torch.isfinite(step).all()):
            raise FailedError(f"The step of {self.name} is not finite. Give a damping, or use the solver cg.")
        gradient = grad(total(full))(theta) / len(full) + l2 * theta
        if (b := context.trained.secret.get(PERTURBATION)) is not None:
            gradient = gradient + b.to(theta) / len(full)
        after = unflatten(theta + step, like, names)
        return Influence(
            step, after, float(gradient.norm()), int((gone | moved).sum()), int(gone.sum()), len(full),
            count * products(step) - right, {**details, "step": float(step.norm()), "reached": int(moved.sum())},
        )  # fmt: skip

    def _moved(self, deletion: Any, task: Any) -> np.ndarray:
        """Which examples the deletion reaches, (k,) bool."""
        before: Graph = deletion.before
        if not self.neighbours:
            return np.zeros(len(before.examples), dtype=bool)
        depth = len(before.nodes) if task.depth is None else task.depth
        return affected(before, deletion.ids, depth, task.symmetric)[before.positions(before.examples)]

    def _solved(
        self,
        products: Callable[[Tensor], Tensor],
        loss: Callable[[Tensor], Tensor],
        theta: Tensor,
        right: Tensor,
        count: int,
    ) -> tuple[Tensor, dict[str, Any]]:
        def largest() -> float:
            return spectral_norm(loss, theta, torch.Generator().manual_seed(0), POWER_STEPS)

        if self.solver == "iteration":
            bend = count * largest()  # of the sums, as in the papers' code
            if bend >= 2 * self.scale:
                raise FailedError(
                    f"The iteration of {self.name} cannot converge: the Hessian of the summed loss has an eigenvalue of "
                    f"{bend:.3g}, and scale must be above half of it; got {self.scale:g}. Raise it, or use the solver cg."
                )
            step = neumann(
                lambda v: count * products(v), count * right, self.scale, self.iterations, self.damping or 0.0
            )
            return step, {"products": self.iterations, "largest_eigenvalue": bend}
        used = 0
        for damping in self._dampings(largest):
            found = conjugate_gradient(lambda v, d=damping: products(v) + d * v, right, self.tolerance, self.most)
            used += found.products
            if found.definite:
                return found.solution, {"products": used, "residual": found.residual, "damping": damping}
        raise FailedError(
            f"The Hessian bends downwards in some direction whatever damping is added: {self.name} has no step to take here. "
            "Give a larger damping, or use another method."
        )

    def _dampings(self, largest: Callable[[], float]) -> Iterator[float]:
        if self.damping is not None:
            yield self.damping
            return
        yield 0.0
        size = largest()
        yield from (share * size for share in DAMPINGS)


def as_released(tensors: Mapping[str, Tensor], like: Tensors) -> dict[str, Tensor]:
    """``tensors`` in the precision of ``like``."""
    return {name: tensor.detach().to(like[name].dtype).cpu().contiguous() for name, tensor in tensors.items()}
