"""The control: release the model as it is.

Formal guarantee: none, ever. It reports ``unchanged``; whoever measures must see that nothing was forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned


@dataclass(frozen=True, kw_only=True)
class NoOp:
    """Does nothing and says so."""

    name: ClassVar[str] = "no_op"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class", "concept", "node", "edge", "feature", "client"),
        tasks=("*",),
        needs=(),
        effect="none",
        certified=False,
    )
    papers: ClassVar[tuple[Paper, ...]] = ()

    def check(self, context: Context) -> Estimate | Refusal:
        """Always runs."""
        return Estimate(0)

    def run(self, context: Context) -> Unlearned:
        """The model before."""
        trained = context.trained
        return Unlearned(
            views=trained.views or {"model": trained.artifact},
            state=trained.state,
            trail=trained.trail,
            remains=("everything: nothing was forgotten",),
        )
