"""One influence step that also counts the retained nodes which a deletion reaches.

GIF (Wu et al. 2023, arXiv 2304.02835).

Formal guarantee: none. At the minimum of a strongly convex loss it is one Newton step towards the minimum on what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Configurations, Context, Paper, Unlearned
from expunge.core.trained import Artifact
from expunge.methods.by_influence import InfluenceMethod, as_released
from expunge.methods.stages import stage_once


@dataclass(frozen=True, kw_only=True)
class GIF(InfluenceMethod):
    """The step, released as it is; settings in :class:`~expunge.methods.by_influence.InfluenceMethod`.

    The released code takes positions among training nodes for ids of nodes and lets labels of test nodes enter; neither is
    reproduced.
    """

    name: ClassVar[str] = "gif"
    capabilities: ClassVar[Capabilities] = Capabilities(kinds=("node", "edge", "feature"), tasks=("graph",))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("GIF: a general graph unlearning strategy via influence function", "Wu et al., WWW 2023", "2304.02835"),
    )
    configurations: ClassVar[Configurations] = {
        "gif_published": {"solver": "iteration", "hessian": "before"},
        "influence": {"neighbours": False},
    }

    def run(self, context: Context) -> Unlearned:
        """Take the step."""
        before, details = context.trained.artifact.tensors, {}

        def stepped() -> dict:
            found = self.influence(context, before)
            details.update(found.details)
            return as_released(found.tensors, before)

        final = stage_once(context.journal, "stepped", stepped)
        return Unlearned(
            views={"model": Artifact(final)},
            state=final,
            remains=("whatever one step leaves of what was forgotten: nothing bounds it here",),
            gradient_evaluations=(details.get("products", 0) + 3) * len(context.deletion.after),
            details=details,
        )
