"""A Newton-style correction that every peer of a network subtracts from its model, with one draw of noise.

"Certified Unlearning in Decentralized Federated Learning" (Wu, Tao et al., arXiv 2601.06436): training is gossip; a deletion is
one correction, built from the curvature at the model as it is, and broadcast. Its printed formulas are UNKNOWN to us; what is
computed is derived in ``network.correction``.

Formal guarantee: (epsilon, delta) retrain-indistinguishability for strongly convex objectives, where all peers hold one model
and the bound that is evaluated at the corrected model stays within a distance that was agreed before any request. Without a
published budget, or for ``stacked``: none.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from expunge.core.allowed import Count, Positive, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.digest import canonical_json, digest_arrays, finite
from expunge.core.errors import ExpungeError, InputError, RefusedError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale, Unlearned
from expunge.core.trained import Artifact, Budget, Fact, Origin, Tensors, Trained
from expunge.curvature.weighted_head import WeightedHead
from expunge.methods.agreed_distance import Agreed
from expunge.methods.release import noisy_release
from expunge.methods.stages import stage_once
from expunge.network.correction import (
    Correction,
    Objective,
    correct,
    correct_stacked,
    network_objective,
    residual_bound,
)
from expunge.network.gossip import Gossip
from expunge.network.peers import Peers
from expunge.network.topology import Topology
from expunge.tasks.closed_forms import closed_form
from expunge.training.descent import trainable
from expunge.training.flat import flatten, unflatten

NO_CERTIFICATE = (
    "network_newton certifies linear heads alone: of no other network is it known that one minimum is all there is, and a "
    "declared constant does not make it so."
)
EXACT = ("gauss_newton", "hessian")
REJECTED = 1.0  # relative residual from which a correction leaves more, to first order, than doing nothing


@dataclass(frozen=True, kw_only=True)
class NetworkNewton:
    """The correction of a network that was trained by gossip.

    Attributes:
        correction: ``horizon``, ``difference``, ``full`` or ``stacked``; see ``network.correction``. Default: its target is a
            retraining of the same length, and it was never worse than doing nothing where ``difference`` was up to 44 times
            (measured there); the paper's form is UNKNOWN.
        curvature: ``gauss_newton``, for any network, the true Fisher matrix of its outputs; of a linear head it is the
            ``hessian``. For linear heads also ``hessian_diagonal``, ``kfac``, ``fisher_empirical`` or ``fisher_diagonal``.
            Default: the only one that never did harm in our measurements; the paper's is UNKNOWN.
        distance: B_max, by how much a corrected model may differ from a retrained one; agreed before any request, because the
            bound itself depends on what is forgotten. Noise is derived from it; a run that cannot keep it is refused.
        tau: the gradient norm at the network's mean model at which the reference retraining stops; 1e-4: our choice. With
            a budget, training itself must have got there (gossip with a constant step stopped at 5e-4 to 8e-3 in our
            measurements). It enters the bound as tau / mu.
        tolerance: relative residual of the conjugate gradients; 1e-8: small against any tau.
        max_products: of them; 1000: d products suffice in exact arithmetic.
        iterations: Newton steps of ``difference`` and ``full``; 1, the paper's. More bring the gradient, and with it the bound,
            down where a whole client leaves and one step does not reach.
    """

    name: ClassVar[str] = "network_newton"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class", "client"),
        tasks=("classification",),
        needs=("retained data", "forgotten data", "recipe", "peers"),
        certified=True,
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Certified Unlearning in Decentralized Federated Learning", "Wu, Tao et al. 2026", "2601.06436"),
    )
    small: ClassVar[SmallScale] = SmallScale(fit={"distance": 0.05, "tau": 2e-3})
    correction: Literal["horizon", "difference", "full", "stacked"] = "horizon"
    curvature: Literal["gauss_newton", "hessian", "hessian_diagonal", "kfac", "fisher_empirical", "fisher_diagonal"] = (
        "gauss_newton"
    )
    distance: Positive | None = None
    tau: Positive = 1e-4
    tolerance: Positive = 1e-8
    max_products: Count = 1000
    iterations: Count = 1

    def __post_init__(self):
        must_be_allowed(self)
        if self.curvature not in EXACT and self.correction in ("horizon", "stacked"):
            raise InputError(f"Expected curvature gauss_newton for {self.correction}; got {self.curvature}.")
        if self.iterations > 1 and self.correction not in ("difference", "full"):
            raise InputError(
                f"Expected one iteration for {self.correction}, and more for difference and full only; got {self.iterations}."
            )

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a network trained by gossip; with a budget, ``stacked`` and most curvatures also a linear head."""
        trained = context.trained
        if type(trained.recipe) is not Gossip or not trained.views:
            return Refusal(
                "network_newton corrects a network of peers; this model was not trained by gossip.",
                "Train with network.gossip.Gossip, or use newton for one model.",
            )
        try:
            topology = trained.recipe.network_of(context.deletion.after)
            objective = network_objective(
                context.task, context.deletion.after, topology, trained.recipe.l2, trained.secret
            )
        except ExpungeError as error:
            return Refusal(str(error))
        if not isinstance(objective, WeightedHead) and trained.budget is not None:
            return Refusal(NO_CERTIFICATE, "Train a linear head (SoftmaxHead) by gossip with l2 > 0.")
        if not isinstance(objective, WeightedHead) and (
            self.correction == "stacked" or self.curvature != "gauss_newton"
        ):
            return Refusal(
                "stacked and curvatures other than gauss_newton are written out for linear heads (SoftmaxHead) alone.",
                "Use horizon, difference or full with curvature gauss_newton.",
            )
        if refusal := self._uncertified(trained) if trained.budget is not None else None:
            return refusal
        if self.correction == "stacked" and trained.recipe.batch_size is not None:
            return Refusal("stacked knows where gossip with full batches stands still; this network drew batches.")
        rows = len(context.deletion.after)
        removed = len(trained.removed | context.deletion.ids)
        promises = {} if trained.budget is None else self.agreed.promises(trained, removed)
        return Estimate((self._most_products(trained) + 3) * rows, trained.recipe.rounds * rows, promises)

    def _most_products(self, trained: Trained) -> int:
        return min(self.max_products, sum(t.numel() for t in trained.secret.values())) * self.iterations

    def _uncertified(self, trained: Trained) -> Refusal | None:
        """Why a network with a published budget cannot be served."""
        if self.correction == "stacked":
            return Refusal(
                "stacked leaves every peer a model of its own, and one draw of noise covers one.",
                "Use difference, horizon or full on a network that ends with a consensus.",
            )
        return self.agreed.refusal(trained)

    @property
    def agreed(self) -> Agreed:
        """The distance that noise was made for."""
        return Agreed("network-newton", self.name, self.distance, self.tau)

    def calibrate(self, trained: Trained, budget: Budget) -> float:
        """sigma for ``budget`` from the agreed distance.

        Raises:
            InputError: for a network that is no linear head, or whose training is not what a retraining is compared with.
        """
        form = closed_form(trained.task, trained.task.build(trained.secret))
        if form is None or len(form.layers) > 1:
            raise InputError(NO_CERTIFICATE)
        return self.agreed.sigma(trained, budget)

    def run(self, context: Context) -> Unlearned:
        """Correct the mean model, or every peer's; with a budget bound the distance, add noise once, and hand it to all."""
        trained, recipe = context.trained, context.trained.recipe
        assert isinstance(recipe, Gossip)
        topology = recipe.network_of(context.deletion.after)
        made = functools.cache(lambda: self._corrected(context, topology))
        notes = json.loads(
            context.journal.once(
                "found", lambda: canonical_json({name: finite(value) for name, value in made()[1].items()})
            )
        )
        stored = stage_once(
            context.journal, "corrected",
            lambda: {f"{i}/{name}": t for i, tensors in enumerate(made()[0]) for name, t in tensors.items()},
        )  # fmt: skip
        # how many products it took follows from the model before: what is promised may not say it
        products = notes["products"] if trained.budget is None else self._most_products(trained)
        count = len({name.partition("/")[0] for name in stored})
        final = [{n.partition("/")[2]: t for n, t in stored.items() if n.startswith(f"{i}/")} for i in range(count)]
        common = {
            "purged": ("the correction as it was before noise",),
            "remains": ("models from before at peers that kept a copy, and the messages of training",),
            "gradient_evaluations": (products + 3) * len(context.deletion.before),
            "details": notes,
        }  # fmt: skip
        budget = trained.budget
        if budget is None:
            views = {peer: Artifact(dict(final[i % count])) for i, peer in enumerate(topology.peers)}
            return Unlearned(views, **common)
        assert budget.sigma is not None
        released = Artifact(noisy_release(context.task.build(), final[0], budget.sigma, context.noise, context.journal))
        matrix = recipe.matrix(topology)
        removed = len(trained.removed | context.deletion.ids)
        parameters = {
            **self.agreed.parameters(removed), "sigma": budget.sigma, "peers": len(topology), "rounds": recipe.rounds,
            "mixing": digest_arrays({"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}),
        }  # fmt: skip
        kept = Fact(
            True, Origin.ENFORCED, "the bound was evaluated on the retained data; a run that exceeds it is refused"
        )
        claim = Claim("network-newton", parameters, {"residual_within": kept}, context.deletion.after.digest)
        return Unlearned(dict.fromkeys(topology.peers, released), claim, final[0], **common)

    def replay(self, context: Context) -> Tensors:
        """The corrected mean model again, from the secret weights, the forgotten and the retained data."""
        recipe = context.trained.recipe
        assert isinstance(recipe, Gossip)
        return self._corrected(context, recipe.network_of(context.deletion.after))[0][0]

    def _corrected(self, context: Context, topology: Topology) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
        """The corrected model, or each peer's, and what it rests on.

        Raises:
            RefusedError: where the correction would do harm, or the agreed distance cannot be kept.
        """
        trained, deletion, recipe = context.trained, context.deletion, context.trained.recipe
        assert isinstance(recipe, Gossip)
        names, like = trainable(context.task.build()), trained.secret
        earlier = recipe.network_of(deletion.before)
        before, after = (
            network_objective(context.task, rows, network, recipe.l2, like)
            for rows, network in ((deletion.before, earlier), (deletion.after, topology))
        )
        models = torch.stack([flatten(trained.view(peer).tensors, names) for peer in earlier.peers])
        agreed = len({trained.view(peer).digest for peer in earlier.peers}) == 1
        mean = flatten(like, names) if agreed else models.mean(0)
        if self.correction == "stacked":
            pairs = [
                (network, Peers.of(context.task, rows, network, recipe.l2, like))
                for rows, network in ((deletion.before, earlier), (deletion.after, topology))
            ]
            found = correct_stacked(
                pairs[0], pairs[1], models, recipe.lr, tolerance=self.tolerance, mixing=recipe.matrix
            )
        else:
            found = correct(
                self.correction, before, after, mean, curvature=self.curvature, lr=recipe.lr, rounds=recipe.rounds,
                tolerance=self.tolerance, most=self.max_products, iterations=self.iterations,
            )  # fmt: skip
        notes = self._guard(trained, before, after, mean, found)
        stay = [earlier.peers.index(peer) for peer in topology.peers]
        corrected = mean - found.step if agreed and found.step.ndim == 1 else models[stay] - found.step
        each = [corrected] if corrected.ndim == 1 else list(corrected)
        return [_own(unflatten(theta, like, names)) for theta in each], notes

    def _guard(
        self, trained: Trained, before: Objective, after: Objective, mean: Tensor, found: Correction
    ) -> dict[str, Any]:
        """What was found; raises RefusedError where the correction must not be released."""
        notes = {"products": found.products, "relative_residual": found.residual}
        if not math.isfinite(found.residual):
            raise RefusedError(
                "The correction has weights that are no numbers: with the step size of this network's training, rounds grow "
                "along its steepest direction instead of settling. Train with a smaller lr."
            )
        if not found.residual < REJECTED:
            raise RefusedError(
                f"With curvature {self.curvature} the correction leaves {found.residual:.3g} times the gradient that it was to "
                "remove: it would do more harm than good. Use "
                f"{'more max_products' if self.curvature in EXACT else 'curvature gauss_newton, or more max_products'}."
            )
        if found.left is not None:
            notes["left_of_distance"] = found.left
        if found.left is not None and not found.left < REJECTED and trained.budget is None:
            raise RefusedError(
                f"This network stopped before it had taken up what difference takes away: {found.left:.3g} times the distance "
                "to a retraining of the same length would be left. Use correction horizon."
            )
        start = float(before.gradient(mean).norm())
        if self.correction == "full" and trained.budget is None and not start <= self.tau:
            raise RefusedError(
                f"The full step leads to the minimiser, and this model is none: its gradient norm is {start:.3g}, above tau = "
                f"{self.tau:.3g}. A retraining of the same length would stop elsewhere. Use difference or horizon, or train on."
            )
        if found.step.ndim > 1:
            return notes
        mu = float(trained.fact("strong_convexity", 0.0) or 0.0)
        gradient = float(after.gradient(mean - found.step).norm())
        notes |= {"gradient_before": start, "gradient_after": gradient}
        if trained.budget is None:
            return notes
        assert self.distance is not None
        bound = residual_bound(gradient, self.tau, mu)
        if not bound <= self.distance:
            raise RefusedError(
                f"The corrected model may be {bound:.3g} from a retrained one, more than the agreed {self.distance:.3g}: "
                "retraining is required. Nothing was released."
            )
        return notes | {"bound": bound}


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
