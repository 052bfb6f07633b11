"""Take changed rows out of a ridge regression on averaged features and put them back as they are now.

GraphEditor (Cong and Mahdavi, submission to ICLR 2023). Linear networks only: layers with an activation or
attention between them have no such closed form.

Formal guarantee: none is certified; the result solves the normal equations on what is left up to rounding, which is measured in
every run. The inverse that is kept for later requests depends on the training data and must stay secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from expunge.core.allowed import Positive, must_be_allowed
from expunge.core.errors import FailedError, InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.trained import Artifact
from expunge.curvature.ridge import Ridge, cost_of_change, cost_of_fit, residual
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.reach import affected
from expunge.methods.stages import stage_once
from expunge.training.graph_ridge import INVERSE, SOLUTION, WEIGHT, GraphRidge, rows_of, secret_of, steps_of


@dataclass(frozen=True, kw_only=True)
class GraphEditor:
    """The closed-form edit, or the same weights by a new fit where that is predicted to take less.

    Attributes:
        way: ``cheaper`` (by flops, whose weights are measured in ``bench/graph_editor.py``), ``edit`` or ``refit``.
        tolerance: relative residual of the normal equations above which an edit is given up for a new fit: 1e-8, our choice.
            Measured: 1e-10.
    """

    name: ClassVar[str] = "graph_editor"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("node", "edge", "feature"), tasks=("graph",), needs=("retained data", "forgotten data", "ridge training")
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "GraphEditor: an efficient graph representation learning and unlearning approach",
            "Cong and Mahdavi, submission to ICLR 2023",
        ),
    )
    way: Literal["cheaper", "edit", "refit"] = "cheaper"
    tolerance: Positive = 1e-8

    def __post_init__(self):
        must_be_allowed(self)

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a linear network that ridge regression made."""
        try:
            steps_of(context.task.build())
        except InputError:
            return Refusal(
                "graph_editor edits linear networks (sgc without bias) in closed form; layers with an activation or attention "
                f"between them, as of {type(context.task.build()).__name__}, have none.",
                "Use gnn_delete, gif or retrain.",
            )
        if not isinstance(context.trained.recipe, GraphRidge):
            return Refusal(
                "graph_editor edits the solution of a ridge regression; this model was trained otherwise.",
                "Train with training: {kind: ridge}, or use gif or retrain.",
            )
        return Estimate(len(context.deletion.after), len(context.deletion.after))

    def run(self, context: Context) -> Unlearned:
        """Edit or fit, and look at the residual."""
        details: dict[str, Any] = {}

        def solved() -> dict[str, Tensor]:
            ridge = self._solved(context, details)
            return secret_of({WEIGHT: ridge.weights.to(context.trained.artifact.tensors[WEIGHT].dtype)}, ridge)

        final = stage_once(context.journal, "edited", solved)
        return Unlearned(
            views={"model": Artifact({WEIGHT: final[WEIGHT]})},
            state=final,
            remains=("the order of rounding errors, which is all that differs from a new fit",),
            gradient_evaluations=len(context.deletion.after),
            details=details,
        )

    def _solved(self, context: Context, details: dict[str, Any]) -> Ridge:
        trained, deletion = context.trained, context.deletion
        before: Graph = deletion.before
        after: Graph = deletion.after
        recipe = trained.recipe
        assert isinstance(recipe, GraphRidge)
        steps, classes = steps_of(context.task.build()), trained.artifact.tensors[WEIGHT].shape[1]
        gone, moved = changed_rows(before, after, deletion.ids, steps)
        known = INVERSE in trained.secret
        edit = cost_of_change(len(gone) + len(moved), before.width) + cost_of_change(len(moved), before.width)
        fit = cost_of_fit(len(after), before.width)
        way = self.way if self.way != "cheaper" else "edit" if known and edit < fit else "refit"
        details |= {
            "rows_removed": len(gone) + len(moved),
            "rows_added": len(moved),
            "predicted_edit_over_refit": edit / fit,
        }
        whole = rows_of(after, steps, after.examples, classes)
        if way == "edit":
            if known:
                ridge = Ridge(trained.secret[INVERSE], trained.secret[SOLUTION])
            else:
                ridge = Ridge.fit(*rows_of(before, steps, before.examples, classes), recipe.l2)
            ridge = edited(ridge, before, after, gone, moved, steps)
            details |= {"way": "edit", "residual": residual(ridge.weights, *whole, recipe.l2)}
            if details["residual"] <= self.tolerance:
                return ridge
        ridge = Ridge.fit(*whole, recipe.l2)
        details |= {"way": "refit", "residual": residual(ridge.weights, *whole, recipe.l2)}
        if not details["residual"] <= self.tolerance:
            raise FailedError(
                f"The normal equations are solved up to {details['residual']:.1g} only. Train with a larger l2."
            )
        return ridge


def changed_rows(before: Graph, after: Graph, ids: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of training nodes that go, and of those that stay and whose averaged features change."""
    near = before.nodes[affected(before, ids, steps, True)]
    return np.setdiff1d(before.examples, after.examples), np.intersect1d(after.examples, near)


def edited(
    ridge: Ridge,
    before: Graph,
    after: Graph,
    gone: np.ndarray,
    moved: np.ndarray,
    steps: int,
    come: np.ndarray | None = None,
) -> Ridge:
    """The regression on ``after``: rows ``gone`` and ``moved`` leave as they were, ``moved`` and ``come`` join as they are.

    Args:
        ridge: of ``before``. come: ids of training nodes that are new in ``after``; none where not given.
    """
    classes = ridge.weights.shape[1]
    come = np.empty(0, dtype=np.int64) if come is None else come
    fewer = ridge.removed(*rows_of(before, steps, np.union1d(gone, moved), classes))
    return fewer.added(*rows_of(after, steps, np.union1d(moved, come), classes))
