"""One Newton step on the perturbed one-vs-rest losses of a linear graph network; its residual is bounded head by head.

CGU, certified graph unlearning (Chien, Pan and Milenkovic 2022, arXiv 2206.09140).

Formal guarantee: as claimed. While the gradient residuals of all heads together stay within s epsilon / c, c = sqrt(2 ln(1.5 /
delta)), the released model and one trained on what is left are (epsilon, delta)-indistinguishable; the tail argument of
certified removal (arXiv 1911.03030) is taken as published. Each head has a share of its own, so that one cannot use up
another's; the released code compares the sum over heads with as many budgets, which bounds no head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import Positive, Probability
from expunge.core.certificate import Claim
from expunge.core.errors import RefusedError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.trained import Artifact
from expunge.data.graphs.propagation import propagated_rows
from expunge.methods.by_influence import InfluenceMethod, as_released
from expunge.methods.stages import stage_once
from expunge.privacy.graph_removal import residual_of_head, share_of_head
from expunge.privacy.newton import guo_budget
from expunge.tasks.graphs.networks import SGC
from expunge.training.facts import RESIDUAL
from expunge.training.graph_minimiser import GraphMinimiser
from expunge.training.perturbed import PERTURBATION

RESIDUALS = "residuals"  # name among the secret tensors: of all removals so far, one a head


@dataclass(frozen=True, kw_only=True)
class CGU(InfluenceMethod):
    """The step, as often as the budget lasts; its solver: :class:`~expunge.methods.by_influence.InfluenceMethod`.

    The worst-case bounds of the paper are for averages by a node's own degree; SGC's are symmetric, and only the bound that
    follows from the data is used.

    Attributes:
        epsilon, delta: 1 and 1e-4, the paper's.
        tolerance: relative residual 1e-10, which counts like any other residual.
    """

    name: ClassVar[str] = "cgu"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("node", "edge", "feature"), tasks=("graph",),
        needs=("retained data", "forgotten data", "recipe", "perturbed training"), certified=True,
    )  # fmt: skip
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Certified graph unlearning", "Chien, Pan and Milenkovic, NeurIPS 2022 GLFrontiers workshop", "2206.09140"
        ),
        Paper("Certified data removal from machine learning models", "Guo et al., ICML 2020", "1911.03030"),
    )
    tolerance: Probability = 1e-10
    epsilon: Positive = 1.0
    delta: Probability = 1e-4

    def __post_init__(self):
        super().__post_init__()
        guo_budget(1.0, self.epsilon, self.delta)  # refuses a target outside its domain

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a linear network trained on perturbed one-vs-rest losses."""
        trained, model = context.trained, context.task.build()
        recipe = trained.recipe
        if not isinstance(recipe, GraphMinimiser) or recipe.loss != "one_vs_rest" or PERTURBATION not in trained.secret:
            return Refusal(
                "cgu takes parts of a graph out of perturbed one-vs-rest losses; this model was not trained on them, or its "
                "perturbation is gone.",
                "Train with training: {kind: minimum, loss: one_vs_rest, sigma: 0.1}, or use gif or retrain.",
            )
        if type(model) is not SGC or model.linear.bias is not None:
            return Refusal("cgu serves sgc without a bias: its bound is for linear heads.", "Use ceu_graph or retrain.")
        return super().check(context)

    def run(self, context: Context) -> Unlearned:
        """Step, bound the residual of each head, and go no further than its share.

        Raises:
            RefusedError: where a head's share is used up: retrain.
        """
        trained, before, details = context.trained, context.trained.artifact.tensors, {}
        recipe = trained.recipe
        assert isinstance(recipe, GraphMinimiser)

        def stepped() -> dict[str, Tensor]:
            found = self.influence(context, before)
            details.update(found.details)
            return {**as_released(found.tensors, before), RESIDUALS: self._residuals(context, recipe, found)}

        stored = stage_once(context.journal, "stepped", stepped)
        used = stored.pop(RESIDUALS)
        share = share_of_head(recipe.sigma, self.epsilon, self.delta, len(used))
        must_have_left(used, share, self.epsilon)
        return removed(
            self, context, recipe, stored, {RESIDUALS: used}, {**details, "residuals": used.tolist(), "share": share}
        )

    def _residuals(self, context: Context, recipe: GraphMinimiser, found: Any) -> Tensor:
        """Of the summed losses, all requests so far, (heads,)."""
        after, model = context.deletion.after, context.task.build()
        z = torch.from_numpy(propagated_rows(after, model.steps, after.examples))
        step = found.step.view(z.shape[1], -1)
        now = residual_of_head(z, step) + found.left.view(z.shape[1], -1).norm(dim=0)
        carried = context.trained.secret.get(RESIDUALS)
        return now + (minimum_residual(context, recipe) if carried is None else carried)


def minimum_residual(context: Context, recipe: GraphMinimiser) -> float:
    """What the minimiser leaves of the summed gradient, of this model and of the one that it is compared with."""
    left = float(context.trained.fact(RESIDUAL, float("inf")))
    return len(context.deletion.before) * (max(left, recipe.tolerance) + recipe.tolerance)


def must_have_left(used: Tensor, share: float, epsilon: float) -> None:
    """Raise RefusedError where some residual is above its share."""
    if bool((used > share).any()):
        head = int(used.argmax())
        raise RefusedError(
            f"The gradient residuals of all removals come to {float(used.max()):.3g} (head {head}); the perturbation hides "
            f"{share:.3g} of each at epsilon {epsilon:g}. Retrain: that draws a new perturbation."
        )


def removed(
    method: Any,
    context: Context,
    recipe: GraphMinimiser,
    final: dict[str, Tensor],
    residuals: dict[str, Tensor],
    details: Any,
) -> Unlearned:
    """What certified removal on a graph hands back: the statement counts what is allowed and not what was reached."""
    allowed = guo_budget(recipe.sigma, method.epsilon, method.delta)
    parameters = {
        "sigma": recipe.sigma, "delta": method.delta, "epsilon": method.epsilon, "residual": allowed * (1 - 1e-12),
    }  # fmt: skip
    return Unlearned(
        views={"model": Artifact(final)},
        claim=Claim("certified-graph-removal", parameters, {}, context.deletion.after.digest),
        state={**final, PERTURBATION: context.trained.secret[PERTURBATION], **residuals},
        remains=("the secret perturbation, which is no function of the graph",),
        gradient_evaluations=method.planned_evaluations(context),
        details=details,
    )
