"""Go on with noisy descent on the retained rows until the noise has washed the rest out.

Langevin unlearning (Chien et al. 2024, arXiv 2401.10371).

Formal guarantee: the paper's Rényi bound, taken as published (verdict ``as-claimed``): it presumes that training had
reached its stationary law, which nobody can check here. The authors call their nonconvex bound unusable; so it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Probability, Whole, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale, Unlearned
from expunge.core.trained import Artifact, Fact, Origin
from expunge.methods.release import noisy_once
from expunge.training.noisy import NoisyGradientDescent


@dataclass(frozen=True, kw_only=True)
class Langevin:
    """K noisy steps on the retained rows.

    Attributes:
        steps: K. Default 100: UNKNOWN as a default in the paper, which sweeps it.
        delta: of the statement. ``None``: 1/n, the paper's choice (arXiv 2401.10371).
    """

    name: ClassVar[str] = "langevin"
    capabilities: ClassVar[Capabilities] = Capabilities(
        needs=("retained data", "recipe", "convex loss", "noisy training"), certified=True
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Langevin unlearning: a new perspective of noisy gradient descent for machine unlearning",
            "Chien et al., NeurIPS 2024",
            "2401.10371",
        ),
    )
    small: ClassVar[SmallScale] = SmallScale(quick={"steps": 5})
    steps: Whole = 100
    delta: Probability | None = None
    __post_init__ = must_be_allowed

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a strongly convex loss that was trained with noise in every step; serves the first request."""
        trained = context.trained
        if not isinstance(trained.recipe, NoisyGradientDescent):
            return Refusal(
                "langevin goes on from noisy training; this model was trained without noise in its steps.",
                "Train with NoisyGradientDescent, or use noisy_fine_tune, which needs nothing of training.",
            )
        if not (trained.fact("strong_convexity") and trained.fact("smoothness")):
            return Refusal(
                "langevin's bound is vacuous unless the loss is strongly convex.", "Use a SoftmaxHead with l2 > 0."
            )
        if trained.recipe.lr * trained.fact("smoothness") > 1 + 1e-12:
            return Refusal(
                f"langevin's bound is stated for steps of at most 1/L = {1 / trained.fact('smoothness'):.4g}; this model "
                f"was trained with lr {trained.recipe.lr:g}.",
                "Train with a smaller step, or use noisy_fine_tune.",
            )
        if trained.spent:
            return Refusal("langevin serves the first request on a model here.", "Retrain for the next one.")
        rows = len(context.deletion.after)
        return Estimate(self.steps * rows, trained.recipe.steps * rows)

    def run(self, context: Context) -> Unlearned:
        """K noisy steps; the result is released as it is."""
        task, trained, deletion = context.task, context.trained, context.deletion
        recipe = trained.recipe
        assert isinstance(recipe, NoisyGradientDescent)
        rows = trained.fact("rows")
        start = trained.artifact.tensors
        final = noisy_once(
            context.journal, "release", context.noise,
            lambda source: recipe.descend(
                task, start, deletion.after, rows, self.steps, noise=source, watch=context.watch
            ),
        )  # fmt: skip
        facts = {
            # the law of training is stationary only in the limit: what the paper presumes, we pass on as its claim
            "noisy_training": Fact(trained.fact("noisy_training", False), Origin.CLAIMED, "stationarity is presumed"),
        }
        parameters = {
            "rows": rows, "forget": deletion.size, "lr": recipe.lr, "clip": recipe.clip, "sigma": recipe.sigma,
            "unlearn_steps": self.steps, "delta": self.delta or 1 / rows,
        }  # fmt: skip
        return Unlearned(
            views={"model": Artifact(final)},
            claim=Claim("langevin", parameters, facts, deletion.after.digest),
            state=final,
            gradient_evaluations=self.steps * len(deletion.after),
        )
