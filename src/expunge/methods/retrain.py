"""Train anew without the forgotten rows: the reference for everything else.

Formal guarantee: exact (epsilon 0): the release is what the recipe makes of the retained rows, provided that neither its
start nor its settings nor the preparation of rows looked at what is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from expunge.core.certificate import Claim, Status
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.trained import Artifact, Tensors, Trained
from expunge.methods.release import noisy_release
from expunge.methods.stages import stage_once
from expunge.privacy.preconditions import RULES
from expunge.privacy.theorems import theorem
from expunge.training.facts import declared
from expunge.training.recipes import USER_FACTS, UserFit, example_gradients

_DECLARED = {"start": "independent", "selection": "fixed"}  # what a user says where it is so


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Retraining from scratch on the retained rows."""

    name: ClassVar[str] = "retrain"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class", "node", "edge", "feature", "client"),
        needs=("retained data", "recipe"),
        certified=True,
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Making AI forget you: data deletion in machine learning",
            "Ginart et al., NeurIPS 2019, which defines deletion by retraining",
            "1907.05012",
        ),
    )

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a recipe; costs what training costs."""
        recipe = context.trained.recipe
        if recipe is None:
            return Refusal(
                "retrain needs the recipe the model was made with; this model was adopted without one.",
                "Name the function that trains it: training: {kind: user, function: package.module:fit, path: …}, or function: "
                "package.module:fit next to kind: stored (UserFit in Python); or use fine_tune or noisy_fine_tune.",
            )
        cost = example_gradients(context.trained, len(context.deletion.after))
        if unsaid := _unsaid(context.trained):
            return Estimate(cost or 0, cost, cautions=(_voided(unsaid),))
        return Estimate(cost or 0, cost, {"epsilon": 0.0})

    def run(self, context: Context) -> Unlearned:
        """Fit on what stays; with a published budget, release with its noise like any model of this house."""
        trained, after = context.trained, context.deletion.after
        assert trained.recipe is not None
        recipe, fitted = trained.recipe, []

        def fit() -> Tensors:
            fitted.append(recipe.fit(context.task, after, seed=trained.seed, watch=context.watch))
            return fitted[0].artifact.tensors

        final = stage_once(context.journal, "retrained", fit)
        if (trained.trail is not None or trained.views) and not fitted:  # a run that was started again
            fit()
        budget = trained.budget
        sigma = budget.sigma if budget and budget.sigma else 0.0
        released = dict(final)
        if sigma:
            released = noisy_release(context.task.build(), final, sigma, context.noise, context.journal)
        delta = budget.delta if budget else 1e-5  # mu is zero: the statement is true at every delta
        return Unlearned(
            views=_views(fitted[0].views if fitted else {}, released, sigma),
            claim=Claim("retrain", {"sigma": sigma, "delta": delta, "forget": context.deletion.size}, {}, after.digest),
            state=final,
            trail=fitted[0].trail if fitted else None,
            purged=("every weight and iterate trained on the removed records",),
            gradient_evaluations=example_gradients(trained, len(after)) or 0,
        )


def _unsaid(trained: Trained) -> list[str]:
    """What the certificate needs to hear of somebody's own training, and does not."""
    recipe = trained.recipe
    if not isinstance(recipe, UserFit):
        return []
    facts = {**trained.facts, **{name: declared(value) for name, value in recipe.declares.items()}}
    rules = [name for name in theorem("retrain").rules if name in USER_FACTS]
    return [name for name in rules if RULES[name].check(facts).status is Status.VIOLATED]


def _voided(unsaid: Sequence[str]) -> str:
    meanings = "; ".join(f"{name} (that {RULES[name].statement})" for name in unsaid)
    example = ", ".join(f"{name}: {_DECLARED[name]}" for name in unsaid)
    return (
        f"The certificate will be void and the result held back: nobody vouches for {meanings}. If it is true of your training "
        f"function, add training.declares: {{{example}}}."
    )


def _views(fitted: Mapping[str, Artifact], released: Tensors, sigma: float) -> dict[str, Artifact]:
    """The model, or of a network what each peer gets: the one that all hold, or without noise its own."""
    whole = Artifact(released)
    if len({view.digest for view in fitted.values()}) == 1:
        return dict.fromkeys(fitted, whole)
    if fitted and sigma:
        raise InputError(
            "Expected peers that all hold one model: noise that is drawn once covers one. Use a consensus."
        )
    return dict(fitted) or {"model": whole}
