"""One influence step for a batch of edges on a perturbed loss; its gradient residual is measured and held within a budget.

CEU, certified edge unlearning (Wu et al., KDD 2023).

Formal guarantee: as claimed where the model was the minimum of its perturbed loss, by the tail argument of certified removal
(arXiv 1911.03030); void away from a minimum, as graph networks with activations are. The residual that counts is the gradient
of the perturbed loss on what is left, measured after the step: it is below the published bound wherever that holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import Positive, Probability
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.methods.by_influence import InfluenceMethod, as_released
from expunge.methods.cgu import RESIDUALS, minimum_residual, must_have_left, removed
from expunge.methods.stages import stage_once
from expunge.privacy.newton import guo_budget
from expunge.training.descent import trainable
from expunge.training.flat import flatten
from expunge.training.graph_minimiser import GraphMinimiser
from expunge.training.perturbed import PERTURBATION


@dataclass(frozen=True, kw_only=True)
class CEUGraph(InfluenceMethod):
    """The step; how the system is solved is in :class:`~expunge.methods.by_influence.InfluenceMethod`.

    Attributes:
        epsilon, delta: what the residuals of all requests may come to. 1 and 1e-4: as of CGU; the paper's differ by table.
    """

    name: ClassVar[str] = "ceu_graph"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("edge",), tasks=("graph",), needs=("retained data", "forgotten data", "recipe", "perturbed training"),
        certified=True,
    )  # fmt: skip
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Certified edge unlearning for graph neural networks", "Wu et al., KDD 2023"),
    )
    epsilon: Positive = 1.0
    delta: Probability = 1e-4

    def __post_init__(self):
        super().__post_init__()
        guo_budget(1.0, self.epsilon, self.delta)

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a model that was trained on a perturbed loss."""
        if not isinstance(context.trained.recipe, GraphMinimiser) or PERTURBATION not in context.trained.secret:
            return Refusal(
                "ceu_graph takes edges out of a perturbed loss; this model was not trained on one, or it is lost.",
                "Train with training: {kind: minimum, sigma: 0.1}, or use gif or retrain.",
            )
        return super().check(context)

    def run(self, context: Context) -> Unlearned:
        """Step, measure, and go no further than the budget.

        Raises:
            RefusedError: where the residuals exceed it: retrain.
        """
        trained, before, details = context.trained, context.trained.artifact.tensors, {}
        recipe = trained.recipe
        assert isinstance(recipe, GraphMinimiser)

        def stepped() -> dict[str, Tensor]:
            found = self.influence(context, before)
            details.update(found.details)
            final = as_released(found.tensors, before)
            return {**final, RESIDUALS: self._residual(context, recipe, final)}

        stored = stage_once(context.journal, "stepped", stepped)
        used = stored.pop(RESIDUALS)
        allowed = guo_budget(recipe.sigma, self.epsilon, self.delta)
        must_have_left(used, allowed, self.epsilon)
        return removed(
            self, context, recipe, stored, {RESIDUALS: used}, {**details, "residual_sum": float(used), "share": allowed}
        )

    def _residual(self, context: Context, recipe: GraphMinimiser, final: dict[str, Tensor]) -> Tensor:
        """Of the summed loss on what is left; it is that of the model as it is now, earlier requests included, (1,)."""
        task, after = context.task, context.deletion.after
        model = task.build(final).eval()
        loss = recipe.objective(task, model, final, task.batch(after), context.trained.secret[PERTURBATION])
        gradient = loss.gradient(flatten(final, trainable(model)))
        reached = len(after) * float(gradient.norm()) + minimum_residual(context, recipe) / 2
        return torch.tensor([reached if math.isfinite(reached) else math.inf], dtype=torch.float64)
