"""Cut what goes out of the graph and keep every weight.

Formal guarantee: none. Whatever training put into the weights is still there: the released model is ``unchanged``, and only the
graph that it is used on differs. Its paper argues that this is enough where a model is only ever used on the cut graph; read on
the graph as it was, the model answers as before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.methods.no_op import NoOp


@dataclass(frozen=True, kw_only=True)
class UtU:
    """Unlink to unlearn (Tan et al. 2024): the graph without the nodes, edges or features, under the same weights.

    The paper does it for edges; for nodes all their edges go, and for features zeros stand in their place (our choice).
    """

    name: ClassVar[str] = "utu"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("node", "edge", "feature"), tasks=("graph", "links"), needs=("retained data",), effect="graph"
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Unlink to unlearn: simplifying edge unlearning in GNNs", "Tan et al., WWW 2024 companion", "2402.10695"),
    )

    def check(self, context: Context) -> Estimate | Refusal:
        """Always runs."""
        return Estimate(0)

    def run(self, context: Context) -> Unlearned:
        """The weights as they are; the planner keeps the cut graph as the data of the next request."""
        remains = ("every weight, as trained on what was cut out of the graph",)
        return replace(NoOp().run(context), remains=remains)
