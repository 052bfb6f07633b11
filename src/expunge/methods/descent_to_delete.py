"""Descend from the trained weights on the retained rows until the old minimiser is forgotten, then add noise.

Descent-to-Delete (Neel, Roth, Sharifi-Malvajerdi, arXiv 2007.02923), in the form whose un-noised state is kept secret.

Formal guarantee: (epsilon, delta) retrain-indistinguishability for strongly convex, smooth losses with bounded row
gradients; the contraction argument is spelled out in ``privacy.descent_to_delete``. None for deep networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.core.allowed import Count, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale, Unlearned
from expunge.core.trained import Artifact, Budget, Tensors, Trained
from expunge.methods.release import noisy_release
from expunge.methods.stages import descend_in_stages
from expunge.training.descent import Step, descend


@dataclass(frozen=True, kw_only=True)
class DescentToDelete:
    """K descent steps of size 2 / (L + lambda) from the trained weights (Neel et al. 2021, arXiv 2007.02923).

    Attributes:
        steps: K. Default 100: UNKNOWN in the paper, which derives it from a target noise; more steps need less noise.
    """

    name: ClassVar[str] = "descent_to_delete"
    capabilities: ClassVar[Capabilities] = Capabilities(
        needs=("retained data", "recipe", "budget", "convex loss", "gradient descent"), certified=True
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Descent-to-Delete: gradient-based methods for machine unlearning", "Neel et al., ALT 2021", "2007.02923"
        ),
    )
    small: ClassVar[SmallScale] = SmallScale(quick={"steps": 20})
    steps: Count = 100
    __post_init__ = must_be_allowed

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a strongly convex loss trained by full-batch descent, and a published budget."""
        trained = context.trained
        known = [trained.fact(name) for name in ("convex", "strong_convexity", "smoothness")]
        if not all(known):
            return Refusal(
                "descent_to_delete needs a smooth, strongly convex loss; this model's is not known to be.",
                "Use a SoftmaxHead with l2 > 0, or r2d, noisy_fine_tune or retrain.",
            )
        if trained.fact("optimizer", "gradient descent") != "gradient descent":
            return Refusal(
                f"descent_to_delete goes on where full-batch gradient descent stopped; this model was trained by "
                f"{trained.fact('optimizer')}.",
                "Use noisy_fine_tune, retrain, or for a network of peers network_newton.",
            )
        if trained.budget is None or trained.budget.sigma is None:
            return Refusal(
                "descent_to_delete needs a published budget: noise is fixed before requests come.", "Call publish."
            )
        if other := sorted({item.theorem or "none" for item in trained.spent} - {"descent-to-delete"}):
            return Refusal(
                "descent_to_delete counts on earlier requests having been served by itself: its induction does not cover "
                f"releases under {', '.join(other)}.",
                "Use retrain, which starts afresh.",
            )
        step, most = trained.fact("lr", float("inf")), self.step(trained).lr
        if step > most * (1 + 1e-12):
            return Refusal(
                f"descent_to_delete needs training steps of at most 2/(L + lambda) = {most:.6g}, which contract; this model "
                f"was trained with lr {step:g}.",
                "Train with a smaller step, or use r2d, noisy_fine_tune or retrain.",
            )
        from expunge.privacy.certify import promise

        rows, removed = len(context.deletion.after), len(trained.removed | context.deletion.ids)
        parameters = self.parameters(trained, removed)
        promises = promise("descent-to-delete", parameters, trained.facts, trained.budget, trained.spent)
        return Estimate(self.steps * rows, trained.fact("steps", 0) * rows, promises)

    def parameters(self, trained: Trained, removed: int) -> dict[str, Any]:
        """The bound's inputs."""
        return {
            "rows": trained.fact("rows"),
            "forget": removed,
            "steps": trained.fact("steps"),
            "lr": trained.fact("lr"),
            "unlearn_steps": self.steps,
            "start_norm": trained.fact("start_norm"),
            "earlier": len(trained.spent),
            "removed_before": len(trained.removed),
        }

    def calibrate(self, trained: Trained, budget: Budget) -> float:
        """sigma for ``budget`` at full capacity."""
        from expunge.privacy.certify import calibrate

        return calibrate("descent-to-delete", self.parameters(trained, budget.capacity), trained.facts, budget)

    def run(self, context: Context) -> Unlearned:
        """K contracting steps, then noise."""
        task, trained, after = context.task, context.trained, context.deletion.after
        budget = trained.budget
        assert budget is not None and budget.sigma is not None
        model = task.build()
        batch, step = task.batch(after), self.step(trained)
        final = descend_in_stages(context, model, trained.secret, batch, step, self.steps)
        released = noisy_release(model, final, budget.sigma, context.noise, context.journal)
        parameters = self.parameters(trained, len(trained.removed | context.deletion.ids))
        return Unlearned(
            views={"model": Artifact(released)},
            claim=Claim("descent-to-delete", {**parameters, "sigma": budget.sigma}, {}, after.digest),
            state=final,
            purged=("iterates of training, which hold the removed records",) if trained.trail else (),
            remains=("the secret un-noised weights, within the certified distance of a retrained model's",),
            gradient_evaluations=self.steps * len(after),
            details={"steps": self.steps, "step_size": self.step(trained).lr},
        )

    def step(self, trained: Trained) -> Step:
        """The step that contracts fastest; the regulariser is the one of training."""
        return Step(2 / (trained.fact("smoothness") + trained.fact("strong_convexity")), trained.fact("l2", 0.0))

    def replay(self, context: Context) -> Tensors:
        """K steps on the retained rows from the secret weights."""
        task, trained = context.task, context.trained
        batch, step = task.batch(context.deletion.after), self.step(trained)
        return descend(
            task, task.build(), trained.secret, batch, step, self.steps, watch=context.watch, stage="replay"
        )[0]  # fmt: skip
