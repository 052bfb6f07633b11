"""One exact Newton step on the perturbed objective of the retained rows; the noise has been in the model since training.

Certified removal (Guo, Goldstein, Hannun, van der Maaten 2020, arXiv 1911.03030).

Formal guarantee: the paper's (epsilon, delta)-certified removal while the summed gradient residuals stay below s epsilon / c,
c = sqrt(2 ln(1.5 / delta)); its tail argument is taken as published (verdict ``as-claimed``). The perturbation b is part of
the residual: the step is taken on the objective that contains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import Positive, Probability, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.errors import InputError, RefusedError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.trained import Artifact, Trained
from expunge.curvature.newton import newton_step
from expunge.methods.newton import too_large
from expunge.methods.stages import stage_once
from expunge.privacy.newton import guo_budget
from expunge.training.descent import trainable
from expunge.training.flat import flatten, unflatten
from expunge.training.perturbed import PERTURBATION, PerturbedMinimiser, perturbed

RESIDUAL = "residual"  # name among the secret tensors: the residuals of all removals so far


@dataclass(frozen=True, kw_only=True)
class CertifiedRemoval:
    """Newton removal on a model trained with a perturbed objective.

    Attributes:
        epsilon, delta: what the sum of all removals may come to. 1 and 1e-4: our choice; the
            constant c is proven up to epsilon 1.
    """

    name: ClassVar[str] = "certified_removal"
    capabilities: ClassVar[Capabilities] = Capabilities(
        needs=("retained data", "recipe", "convex loss", "perturbed training"), certified=True
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Certified data removal from machine learning models", "Guo et al., ICML 2020", "1911.03030"),
    )
    epsilon: Positive = 1.0
    delta: Probability = 1e-4

    def __post_init__(self):
        must_be_allowed(self)
        guo_budget(1.0, self.epsilon, self.delta)  # refuses a target outside its domain

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a model trained by PerturbedMinimiser whose perturbation is still at hand."""
        trained = context.trained
        if not isinstance(trained.recipe, PerturbedMinimiser) or PERTURBATION not in trained.secret:
            return Refusal(
                "certified_removal takes rows out of a perturbed objective; this model was not trained on one, or its "
                "perturbation is gone.",
                "Train with PerturbedMinimiser, or use newton, r2d or retrain.",
            )
        if not context.deletion.member:
            return Refusal("certified_removal takes out rows that were trained on; authored material never was.")
        size = sum(p.numel() for p in context.task.build().parameters() if p.requires_grad)
        if refusal := too_large(self.name, size):
            return refusal
        return Estimate(size * len(context.deletion.after), None)

    def run(self, context: Context) -> Unlearned:
        """Step, bound the residual, and go no further than the budget.

        Raises:
            RefusedError: if the residuals of all removals together exceed the budget: retrain.
        """
        trained, deletion = context.trained, context.deletion
        recipe = trained.recipe
        assert isinstance(recipe, PerturbedMinimiser)
        final = stage_once(context.journal, "stepped", lambda: self._stepped(context, recipe))
        residual = self._residual(context, recipe, final)
        allowed = guo_budget(recipe.sigma, self.epsilon, self.delta)
        if residual > allowed:
            raise RefusedError(
                f"The gradient residuals of all removals come to {residual:.3g}; the perturbation hides {allowed:.3g} at "
                f"epsilon {self.epsilon:g}. Retrain: that draws a new perturbation."
            )
        # the statement counts what is allowed and not what was reached, which depends on the forgotten rows
        parameters = {
            "sigma": recipe.sigma, "delta": self.delta, "epsilon": self.epsilon, "residual": allowed * (1 - 1e-12),
            "forget": len(trained.removed | deletion.ids),
        }  # fmt: skip
        size = sum(tensor.numel() for tensor in final.values())
        return Unlearned(
            views={"model": Artifact(final)},
            claim=Claim("certified-removal", parameters, {}, deletion.after.digest),
            state={
                **final,
                PERTURBATION: trained.secret[PERTURBATION],
                RESIDUAL: torch.tensor([residual], dtype=torch.float64),
            },
            remains=("the secret perturbation, which is no function of any row",),
            gradient_evaluations=size * len(deletion.after),
            details={"residual": residual, "residual_allowed": allowed},
        )

    def _stepped(self, context: Context, recipe: PerturbedMinimiser) -> dict[str, Tensor]:
        model, weights = context.task.build(), dict(context.trained.artifact.tensors)
        names, b = trainable(model), context.trained.secret[PERTURBATION]
        theta = flatten(weights, names)
        if theta.dtype != b.dtype:
            raise InputError("The weights and their perturbation are of different precision; train the model anew.")
        loss = perturbed(context.task, model, weights, context.task.batch(context.deletion.after), recipe.l2, b)
        return unflatten(newton_step(loss, theta), weights, names)

    def _residual(self, context: Context, recipe: PerturbedMinimiser, final: Any) -> float:
        """Bound on the gradient norm of the *sum* objective at the new weights, all removals so far together.

        By Taylor, a Newton step of length s leaves n' M/2 s² on n' rows with M-Lipschitz Hessians, wherever it started. The
        minimiser's own residual counts for this model and for the one it is compared with.
        """
        trained: Trained = context.trained
        names, rows = trainable(context.task.build()), len(context.deletion.after)
        length = float((flatten(final, names) - flatten(trained.artifact.tensors, names)).norm())
        carried = trained.secret.get(RESIDUAL)
        earlier = trained.fact("rows") * 2 * recipe.tolerance if carried is None else float(carried)
        return earlier + rows * trained.fact("hessian_lipschitz") / 2 * length**2
