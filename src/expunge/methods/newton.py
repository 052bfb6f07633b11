"""One exact Newton step from the minimiser on all rows to the one on the retained rows, then noise.

Sekhari et al. 2021 (arXiv 2103.03279); the same step is the heart of certified removal (Guo et al., arXiv 1911.03030).

Formal guarantee: (epsilon, delta) unlearn-indistinguishability for strongly convex losses with Lipschitz Hessians, the
solver's residual included in the bound. Exact for quadratics. None for deep networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import Count, Positive, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.task import Task
from expunge.core.trained import Artifact, Budget, Fact, Origin, Tensors, Trained
from expunge.curvature import newton
from expunge.methods.release import noisy_release
from expunge.methods.stages import stage_once
from expunge.training.descent import trainable
from expunge.training.flat import flatten, objective, unflatten

MOST_PARAMETERS = 5000  # the Hessian takes d² numbers: 200 MB in double precision


@dataclass(frozen=True, kw_only=True)
class Newton:
    """The exact Newton step.

    Attributes:
        tolerance: gradient norm at which the minimiser on all rows counts as found. 1e-9: small against any noise, and
            it enters the bound as it is reached, not as it is hoped for.
        max_steps: of the preliminary solver. 50: quadratic convergence needs a handful.
    """

    name: ClassVar[str] = "newton"
    capabilities: ClassVar[Capabilities] = Capabilities(
        needs=("retained data", "forgotten data", "budget", "convex loss"), certified=True
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Remember what you want to forget: algorithms for machine unlearning",
            "Sekhari et al., NeurIPS 2021",
            "2103.03279",
        ),
        Paper("Certified data removal from machine learning models", "Guo et al., ICML 2020", "1911.03030"),
    )
    tolerance: Positive = 1e-9
    max_steps: Count = 50
    __post_init__ = must_be_allowed

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a strongly convex loss, few parameters and a published budget."""
        trained = context.trained
        if not trained.fact("convex", False) or not trained.fact("strong_convexity", 0):
            return Refusal(
                "newton needs a strongly convex loss; this model's is not known to be.",
                "Use a SoftmaxHead with l2 > 0, or r2d, noisy_fine_tune or retrain.",
            )
        if trained.budget is None or trained.budget.sigma is None:
            return Refusal(
                "newton needs a published budget: noise is fixed before requests come.", "Call publish first."
            )
        model = context.task.build()
        if {p.dtype for p in model.parameters() if p.requires_grad} != {torch.float64}:
            return Refusal("newton needs double precision to reach the minimiser.", "Train with dtype float64.")
        size = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if refusal := too_large(self.name, size):
            return refusal
        from expunge.privacy.certify import promise

        rows, removed = len(context.deletion.after), len(trained.removed | context.deletion.ids)
        parameters = self.parameters(trained, removed, self.tolerance)
        promises = promise("newton", parameters, trained.facts, trained.budget, trained.spent)
        return Estimate(size * rows, trained.fact("steps", 0) * rows, promises)

    def parameters(self, trained: Trained, removed: int, residual: float) -> dict[str, Any]:
        """The bound's inputs."""
        return {"rows": trained.fact("rows"), "forget": removed, "residual": residual}

    def calibrate(self, trained: Trained, budget: Budget) -> float:
        """sigma for ``budget`` at full capacity, with the residual at its tolerance."""
        from expunge.privacy.certify import calibrate

        return calibrate("newton", self.parameters(trained, budget.capacity, self.tolerance), trained.facts, budget)

    def run(self, context: Context) -> Unlearned:
        """Minimise on all rows (to the tolerance), step once on the retained rows, add noise."""
        task, trained, deletion = context.task, context.trained, context.deletion
        budget = trained.budget
        assert budget is not None and budget.sigma is not None
        model = task.build()
        residuals: list[float] = []

        def compute() -> dict[str, Tensor]:
            final, residual = self._stepped(context, model)
            return {**final, "residual": torch.tensor([residual], dtype=torch.float64)}

        stored = stage_once(context.journal, "stepped", compute)
        residuals.append(float(stored.pop("residual")))
        released = noisy_release(model, stored, budget.sigma, context.noise, context.journal)
        facts = {
            "converged": Fact(residuals[0] <= self.tolerance, Origin.ENFORCED, "gradient norm against the tolerance")
        }
        # the bound counts the tolerance and not what was reached, which depends on the forgotten rows
        parameters = self.parameters(trained, len(trained.removed | deletion.ids), self.tolerance)
        size = sum(p.numel() for p in model.parameters())
        return Unlearned(
            views={"model": Artifact(released)},
            claim=Claim("newton", {**parameters, "sigma": budget.sigma}, facts, deletion.after.digest),
            state=stored,
            purged=("iterates of training, which hold the removed records",) if trained.trail else (),
            remains=("the secret un-noised weights, within the certified distance of the new minimiser",),
            gradient_evaluations=size * len(deletion.after),
            details={"residual": residuals[0]},
        )

    def replay(self, context: Context) -> Tensors:
        """The same minimisation and step again, from the secret weights and all rows."""
        return self._stepped(context, context.task.build())[0]

    def _stepped(self, context: Context, model: Any) -> tuple[dict[str, Tensor], float]:
        task, trained, deletion = context.task, context.trained, context.deletion
        l2 = trained.fact("l2", 0.0)
        before, residual = minimise(
            task, model, trained.secret, task.batch(deletion.before), l2, self.tolerance, self.max_steps
        )
        names = trainable(model)
        # from the minimiser on all rows this is Sekhari's update: the gradient there is minus the forgotten rows' share
        loss = objective(task, model, before, task.batch(deletion.after), l2)
        return unflatten(newton.newton_step(loss, flatten(before, names)), before, names), residual


def too_large(name: str, size: int) -> Refusal | None:
    """The refusal of a method that builds the Hessian of ``size`` parameters; ``None`` where it can."""
    if size <= MOST_PARAMETERS:
        return None
    return Refusal(
        f"{name} builds the {size} x {size} Hessian; it serves up to {MOST_PARAMETERS} parameters.",
        "Use r2d or descent_to_delete.",
    )


def minimise(
    task: Task, model: Any, start: Any, batch: Any, l2: float, tolerance: float, max_steps: int
) -> tuple[dict[str, Tensor], float]:
    """The minimiser on ``batch``, and the gradient norm reached (``curvature.newton.minimise``).

    Raises:
        InputError: in single precision.
    """
    names = trainable(model)
    theta = flatten(start, names)
    if theta.dtype != torch.float64:
        raise InputError("The Newton step needs double precision; train the model with dtype float64.")
    found, residual = newton.minimise(objective(task, model, start, batch, l2), theta, tolerance, max_steps)
    return unflatten(found, start, names), residual
