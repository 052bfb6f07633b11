"""Rewind to an earlier iterate, descend on the retained rows, add noise once (R2D, Mu and Klabjan, arXiv 2409.09778).

Formal guarantee: (epsilon, delta) retrain-indistinguishability where every assumption of the certificate holds (Theorem
3.1, with the tighter bounds derived in ``privacy.sensitivity``): L-smooth losses, row gradients bounded by G, full-batch
descent with one step size, noise fixed before the request. With sampled constants: none (``heuristic-noise``).

Needs: a trail (a model trained on record) and a published budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from expunge.core.allowed import Fraction, Positive, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, Unlearned
from expunge.core.trained import Artifact, Budget, Fact, Origin, Tensors, Trail, Trained
from expunge.methods.release import noisy_release
from expunge.methods.stages import descend_in_stages
from expunge.training.descent import descend
from expunge.training.recipes import rewind_step
from expunge.training.recovery import recover


@dataclass(frozen=True, kw_only=True)
class R2D:
    """Rewind-to-delete.

    Attributes:
        rewind: K/T, how much of training is undone and done again. Default 0.1: the paper's practical advice is to fix K
            from the compute budget, for example at 10 % of T.
        recover: compute the iterate backwards where it was not stored (Algorithm 3); its error enters the bound.
        recovery_tolerance: distance (weights) within which a recovered iterate must be. The bound is computed with it and not
            with the error that was reached, which depends on the forgotten rows. 1e-6: ours; on a small tanh network the
            error is 1e-10 after 100 backward steps and 4e-8 after 200 (measured by us).
    """

    name: ClassVar[str] = "r2d"
    capabilities: ClassVar[Capabilities] = Capabilities(needs=("retained data", "trail", "budget"), certified=True)
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Rewind-to-Delete: certified machine unlearning for nonconvex functions",
            "Mu and Klabjan, NeurIPS 2025",
            "2409.09778",
        ),
    )
    rewind: Fraction = 0.1
    recover: bool = False
    recovery_tolerance: Positive = 1e-6

    def __post_init__(self):
        must_be_allowed(self)
        if self.recover:  # walking back reads the forgotten rows
            can = type(self).capabilities
            object.__setattr__(self, "capabilities", replace(can, needs=(*can.needs, "forgotten data")))

    def _allowed(self, error: float) -> float:
        """What the bound is computed with: nothing for stored iterates, else the tolerance, infinite where it is exceeded."""
        if error == 0:
            return 0.0
        return self.recovery_tolerance if error <= self.recovery_tolerance else float("inf")

    def check(self, context: Context) -> Estimate | Refusal:
        """Whether the model has what rewinding needs, and what it will cost."""
        trained = context.trained
        if trained.trail is None or trained.recipe is None:
            return Refusal(
                "r2d needs the iterates of training; this model has no trail.",
                "Train it with expunge.train or a Recorder, or use retrain, fine_tune or noisy_fine_tune.",
            )
        if trained.budget is None or trained.budget.sigma is None:
            return Refusal("r2d needs a published budget: noise is fixed before requests come.", "Call publish first.")
        steps = trained.trail.length
        at = rewind_step(steps, self.rewind)
        if at not in trained.trail.iterates and not self.recover:
            stored = ", ".join(f"{1 - step / steps:g}" for step in trained.trail.steps)
            return Refusal(
                f"No iterate is stored for rewind={self.rewind:g} (step {at} of {steps}).",
                f"Stored rewinds: {stored}. Choose one of them, or set recover to compute the iterate backwards.",
            )
        if at not in trained.trail.iterates and (reason := self._cannot_recover(trained)):
            return Refusal(reason, "Store the iterate while training (rewinds), or retrain.")
        from expunge.privacy.certify import promise

        rows, removed = len(context.deletion.after), len(trained.removed | context.deletion.ids)
        parameters = self.parameters(trained, removed, 0.0 if at in trained.trail.iterates else self.recovery_tolerance)
        promises = promise("rewind-to-delete", parameters, trained.facts, trained.budget, trained.spent)
        return Estimate((steps - at) * rows, steps * rows, promises)

    def _cannot_recover(self, trained: Trained) -> str:
        """Why the iterate cannot be computed backwards; empty where nothing is known to prevent it."""
        if len(trained.removed):
            return "An iterate can be recovered for the first request only: later ones no longer hold the path."
        if {tensor.dtype for tensor in trained.secret.values() if tensor.is_floating_point()} != {torch.float64}:
            return "Recovering an iterate needs double precision; train the model with dtype float64."
        stretch = trained.fact("lr", 0.0) * (trained.fact("smoothness") or 0.0)
        if stretch >= 1:
            return f"Recovering an iterate needs eta * L below 1; here it is {stretch:.3g}."
        return ""

    def parameters(self, trained: Trained, removed: int, recovery_error: float = 0.0) -> dict[str, Any]:
        """The theorem's inputs: n and m in records, T and K in steps."""
        assert trained.trail is not None
        steps = trained.trail.length
        return {
            "rows": trained.trail.rows,
            "forget": removed,
            "steps": steps,
            "rewind": steps - rewind_step(steps, self.rewind),
            "lr": trained.fact("lr"),
            "l2": trained.fact("l2", 0.0),
            "clip": trained.fact("clip"),
            "recovery_error": recovery_error,
        }

    def calibrate(self, trained: Trained, budget: Budget) -> float:
        """sigma for ``budget`` at full capacity.

        Raises:
            InputError: without trail, with a missing constant, or with an infinite bound.
        """
        from expunge.privacy.certify import calibrate

        if trained.trail is None:
            raise InputError("r2d is calibrated on a model trained on record; this one has no trail.")
        if budget.capacity >= trained.trail.rows:
            raise InputError(
                f"Expected a capacity below the {trained.trail.rows} training rows; got {budget.capacity}."
            )
        stored = rewind_step(trained.trail.length, self.rewind) in trained.trail.iterates
        parameters = self.parameters(trained, budget.capacity, 0.0 if stored else self.recovery_tolerance)
        return calibrate("rewind-to-delete", parameters, trained.facts, budget)

    def run(self, context: Context) -> Unlearned:
        """Algorithm 2."""
        task, trained, deletion = context.task, context.trained, context.deletion
        trail, budget = trained.trail, trained.budget
        assert trail is not None and budget is not None and budget.sigma is not None
        model = task.build()
        steps, at = trail.length, rewind_step(trail.length, self.rewind)
        rows = len(deletion.after)

        # 1. theta''_0 = theta_{T-K}, un-noised
        start, error, passes = self._rewound(context, model, at)

        # 2. K full-batch steps on the retained rows
        step = trained.recipe.step  # type: ignore[union-attr]
        final = descend_in_stages(context, model, start, task.batch(deletion.after), step, steps - at)

        # 3. fresh noise, once
        released = noisy_release(model, final, budget.sigma, context.noise, context.journal)
        removed = len(trained.removed | deletion.ids)
        claim = Claim(
            "rewind-to-delete",
            {**self.parameters(trained, removed, self._allowed(error)), "sigma": budget.sigma},
            descended_on=deletion.after.digest,
        )
        kept = trail.until(at)
        remains = tuple(f"un-noised iterate at step {s} of {steps} (secret; later requests rewind to it)"
                        for s in kept.steps if s > 0)  # fmt: skip
        return Unlearned(
            views={"model": Artifact(released)},
            claim=claim,
            state=final,
            trail=Trail(kept.iterates, trail.length, deletion.after.digest, trail.rows, trail.recovery_error),
            purged=(f"un-noised weights and iterates after step {at}, trained on the removed records",),
            remains=remains,
            gradient_evaluations=(steps - at) * rows,
            details={
                "steps": steps,
                "rewound_to": at,
                "descended": steps - at,
                "recovery_error": error,
                "recovery_passes": passes,
            },
        )

    def replay(self, context: Context) -> Tensors:
        """theta''_K again, from the trail and the retained rows."""
        task, trained = context.task, context.trained
        assert trained.trail is not None
        model, at = task.build(), rewind_step(trained.trail.length, self.rewind)
        start, _, _ = self._rewound(context, model, at)
        batch = task.batch(context.deletion.after)
        return descend(
            task, model, start, batch, trained.recipe.step, trained.trail.length - at, watch=context.watch, stage="replay"  # type: ignore[union-attr]
        )[0]  # fmt: skip

    def _rewound(self, context: Context, model: Any, at: int) -> tuple[Any, float, int]:
        """The iterate at step ``at``, its error bound (infinite where none can be given), and gradient passes spent."""
        from expunge.privacy.sensitivity import recovery_error

        trained, trail = context.trained, context.trained.trail
        assert trail is not None
        if at in trail.iterates:
            return trail.at(at), trail.recovery_error, 0
        if reason := self._cannot_recover(trained):
            raise InputError(reason)
        back = trail.length - at
        batch = context.task.batch(context.deletion.before)
        found = recover(
            context.task, model, trained.secret, batch, trained.recipe.step, back, watch=context.watch  # type: ignore[union-attr]
        )  # fmt: skip
        smoothness = trained.facts.get("smoothness", Fact(None, Origin.DECLARED)).value
        error = (
            float("inf") if smoothness is None else recovery_error(found.residual, trained.fact("lr"), smoothness, back)
        )
        return found.tensors, error, found.gradient_passes
