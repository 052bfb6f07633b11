"""One influence step, then noise for a bound on how far the minimum can have moved.

IDEA (Dong et al. 2024, arXiv 2407.19398).

Formal guarantee: as claimed, and only at the minimum of a strongly convex, bounded, Lipschitz loss; void away from a minimum.
The sensitivity is the length of the step plus a bound on the distance between both minima (triangle inequality): a step only
ever adds to the noise, and a release without one would need least. Where the noise is set by hand, the certificate says which
epsilon it comes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from expunge.core.allowed import Positive, Probability
from expunge.core.certificate import Claim
from expunge.core.method import Capabilities, Configurations, Context, Paper, Unlearned
from expunge.core.trained import Artifact, Fact, Origin
from expunge.methods.by_influence import InfluenceMethod, as_released
from expunge.methods.release import noisy_release
from expunge.methods.stages import stage_once
from expunge.privacy.gaussian import sigma_of
from expunge.privacy.graph_removal import ONE_SIDED, TWO_SIDED, minimum_shift

MEASURED = ("step", "gradient", "changed", "gone", "examples")  # of the step, stored with it


@dataclass(frozen=True, kw_only=True)
class IDEA(InfluenceMethod):
    """The step of GIF with noise on every weight.

    Attributes:
        epsilon, delta: 1 and 1e-4, the paper's.
        strong_convexity, lipschitz, loss_bound: lambda, L and C of the loss: 0.05, 0.25 and 3.0, the paper's appendix. Its
            code has lambda 1.0 and C 0.5.
        factor: 8, of the published proof, or 4, as the theorem prints it (``privacy.graph_removal`` proves it too).
        noise_std: standard deviation of the noise; derived from the bound where not given. The released code has 0.6 (GCN and
            SGC on Cora) whatever the bound says.
        minimum: gradient norm of the mean objective up to which the model counts as its minimiser, 1e-6: our choice. It enters
            the bound.
    """

    name: ClassVar[str] = "idea"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("node", "edge", "feature"), tasks=("graph",), certified=True
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "IDEA: a flexible framework of certified unlearning for graph neural networks",
            "Dong et al., KDD 2024",
            "2407.19398",
        ),
    )
    configurations: ClassVar[Configurations] = {
        "idea_published": {"solver": "iteration", "hessian": "before", "factor": TWO_SIDED, "noise_std": 0.6}
    }
    epsilon: Positive = 1.0
    delta: Probability = 1e-4
    strong_convexity: Positive = 0.05
    lipschitz: Positive = 0.25
    loss_bound: Positive = 3.0
    factor: Literal[8, 4] = ONE_SIDED
    noise_std: Positive | None = None
    minimum: Positive = 1e-6

    def __post_init__(self):
        super().__post_init__()
        sigma_of(1.0, self.epsilon, self.delta)  # refuses a target outside its domain

    def _shift(self, examples: int, gone: int, changed: int) -> float:
        return minimum_shift(
            examples=examples, gone=gone, changed=changed, factor=self.factor, strong_convexity=self.strong_convexity,
            lipschitz=self.lipschitz, loss_bound=self.loss_bound,
        )  # fmt: skip

    def run(self, context: Context) -> Unlearned:
        """Step, bound, noise."""
        before, details = context.trained.artifact.tensors, {}

        def stepped() -> dict[str, Any]:
            secret = context.trained.secret
            found = self.influence(context, {name: secret[name] for name in before})
            details.update(found.details)
            numbers = {"step": float(found.step.norm()), **{name: getattr(found, name) for name in MEASURED[1:]}}
            measured = torch.tensor([numbers[name] for name in MEASURED], dtype=torch.float64)
            return {**as_released(found.tensors, before), "measured": measured}

        stored = stage_once(context.journal, "stepped", stepped)
        seen = dict(zip(MEASURED, stored.pop("measured").tolist(), strict=True))
        whole = {name: int(seen[name]) for name in ("examples", "gone", "changed")}
        sensitivity = seen["step"] + self._shift(**whole) + self.minimum / self.strong_convexity
        sigma = self.noise_std or sigma_of(sensitivity, self.epsilon, self.delta)
        released = noisy_release(context.task.build(), stored, sigma, context.noise, context.journal)
        facts = {
            "converged": Fact(
                seen["gradient"] <= self.minimum, Origin.ENFORCED, "gradient norm against the setting minimum"
            )
        }
        parameters = {
            "sigma": sigma, "delta": self.delta, "epsilon": self.epsilon, "step": seen["step"], "residual": self.minimum,
            "convexity": self.strong_convexity, "lipschitz": self.lipschitz, "loss_bound": self.loss_bound, **whole,
        }  # fmt: skip
        return Unlearned(
            views={"model": Artifact(released)},
            claim=Claim("idea", parameters, facts, context.deletion.after.digest),
            state=stored,
            remains=("the secret un-noised weights",),
            gradient_evaluations=self.planned_evaluations(context),
            details={**details, "gradient": seen["gradient"], "sensitivity": sensitivity, "sigma": sigma},
        )
