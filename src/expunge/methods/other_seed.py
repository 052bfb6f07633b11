"""A control: train anew on everything, what is to be forgotten included, from another seed.

The code that was released with Forget and Explain (arXiv 2512.07450) has this under the name of IDEA, with fewer epochs.

Formal guarantee: none, ever. Whoever measures must see that nothing was forgotten although every weight is another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Count, must_be_allowed
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.trained import Artifact
from expunge.methods.stages import stage_once
from expunge.training.graph_minimiser import GraphMinimiser
from expunge.training.graph_ridge import GraphRidge


@dataclass(frozen=True, kw_only=True)
class OtherSeed:
    """The model's own recipe on all of the graph.

    Attributes:
        seed: added to the model's own; above 0, or the model would come out as it is. 1: our choice.
    """

    name: ClassVar[str] = "other_seed"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("node", "edge", "feature"),
        tasks=("graph", "links"),
        needs=("retained data", "forgotten data", "random start"),
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Forget and Explain, whose released code calls it IDEA", "Ahsan et al., WSDM 2026", "2512.07450"),
    )
    seed: Count = 1

    def __post_init__(self):
        must_be_allowed(self)

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a recipe."""
        if context.trained.recipe is None:
            return Refusal("other_seed needs the recipe the model was made with; this model was adopted without one.")
        if isinstance(context.trained.recipe, GraphRidge | GraphMinimiser):
            return Refusal("other_seed has nothing to show here: from every seed this recipe ends at one minimum.")
        return Estimate(context.trained.fact("steps", 0) * len(context.deletion.before))

    def run(self, context: Context) -> Unlearned:
        """Fit on everything."""
        trained, before = context.trained, context.deletion.before
        recipe = trained.recipe
        assert recipe is not None
        seed = trained.seed + self.seed + context.generator_seed
        final = stage_once(
            context.journal, "trained", lambda: recipe.fit(context.task, before, seed=seed).artifact.tensors
        )
        return Unlearned(
            views={"model": Artifact(final)},
            state=final,
            remains=("everything: it was trained on what was to be forgotten",),
            gradient_evaluations=trained.fact("steps", 0) * len(before),
        )
