"""RR-DU whose start is masked: the model of before gets noise once, for its distance from a retrained one, and a token walks on
from there without ever reading a forgotten record.

"Fully Decentralized Certified Unlearning" (Lamri and Maniatakos, arXiv 2512.08443) masks the client's gradients and nothing of
what the start knows. Here the start is masked instead, and alignment is exact. Derived here; no paper has it.

Formal guarantee: (epsilon, delta) retrain-indistinguishability for strongly convex objectives (tier T1), against whoever sees
everything from the masked start on, where the bound of the start stays within a distance that was agreed before any request. No
bound of that distance is known of a deep network, so that none gets this tier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from expunge.core.allowed import Count, Positive, Share, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.errors import ExpungeError, RefusedError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale, Unlearned
from expunge.core.trained import Artifact, Budget, Fact, Origin, Trained
from expunge.methods.agreed_distance import Agreed
from expunge.methods.release import noisy_release
from expunge.methods.rr_du import RRDU, network_of
from expunge.network.correction import head_objective, residual_bound
from expunge.training.descent import trainable
from expunge.training.flat import flatten


@dataclass(frozen=True, kw_only=True)
class MaskedRRDU:
    """The masked start and the walk.

    Attributes:
        distance: by how much the model of before may differ from a retrained one; agreed when the network is published.
        tau: the gradient norm at which the retraining stops; 1e-4, as for ``network_newton``.
        hops, lr, clip, radius, batches, restart, optimizer, batch_size: of the walk, as ``rr_du`` has them and from the same
            sources; the trust region lies around the masked start.
    """

    name: ClassVar[str] = "masked_rr_du"
    capabilities: ClassVar[Capabilities] = Capabilities(
        needs=("retained data", "forgotten data", "recipe", "convex loss", "peers", "budget"),
        tasks=("classification",), certified=True,
    )  # fmt: skip
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Fully Decentralized Certified Unlearning", "Lamri and Maniatakos, CVPR 2026", "2512.08443"),
    )
    small: ClassVar[SmallScale] = SmallScale(
        quick={"hops": 12, "batch_size": 8, "batches": 1, "restart": 0.5}, fit={"distance": 0.05, "tau": 2e-3}
    )
    distance: Positive | None = None
    tau: Positive = 1e-4
    hops: Count = RRDU.hops
    lr: Positive = RRDU.lr
    clip: Positive = RRDU.clip
    radius: Positive = RRDU.radius
    batches: Count = RRDU.batches
    restart: Share | None = None
    optimizer: Literal["adam", "sgd"] = RRDU.optimizer
    batch_size: Count = RRDU.batch_size

    __post_init__ = must_be_allowed

    @property
    def walk(self) -> RRDU:
        """The walk after the mask."""
        names = ("hops", "lr", "clip", "radius", "batches", "restart", "optimizer", "batch_size")
        return RRDU(alignment="exact", sigma=0.0, **{name: getattr(self, name) for name in names})

    @property
    def agreed(self) -> Agreed:
        """The distance that noise was made for."""
        return Agreed("masked-rr-du", self.name, self.distance, self.tau)

    def calibrate(self, trained: Trained, budget: Budget) -> float:
        """sigma for ``budget`` from the agreed distance."""
        return self.agreed.sigma(trained, budget)

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs what ``rr_du`` needs, and a published, strongly convex network with an agreed distance."""
        trained, deletion = context.trained, context.deletion
        able = self.walk.check(context)
        if isinstance(able, Refusal):
            return able
        try:
            head_objective(context.task, deletion.after, network_of(context), 0.0, trained.secret)
        except ExpungeError as error:
            return Refusal(
                f"No deep network gets tier T1: nothing bounds how far its start is from a retrained one. {error}"
            )
        if (refusal := self.agreed.refusal(trained)) is not None:
            return refusal
        promises = self.agreed.promises(trained, len(trained.removed | deletion.ids))
        return Estimate(able.gradient_evaluations + len(deletion.after), able.retrain_gradient_evaluations, promises)

    def run(self, context: Context) -> Unlearned:
        """Bound how far the start may be from a retrained model, mask that once, and walk on from there.

        Raises:
            RefusedError: where the agreed distance cannot be kept.
        """
        trained, deletion, topology = context.trained, context.deletion, network_of(context)
        assert trained.budget is not None and trained.budget.sigma is not None and self.distance is not None
        after = head_objective(context.task, deletion.after, topology, trained.fact("l2"), trained.secret)
        start = {name: tensor.detach().clone() for name, tensor in trained.secret.items()}
        gradient = float(after.gradient(flatten(start, trainable(context.task.build()))).norm())
        bound = residual_bound(gradient, self.tau, float(trained.fact("strong_convexity")))
        if not bound <= self.distance:
            raise RefusedError(
                f"The start of the walk may be {bound:.3g} from a retrained model, more than the agreed {self.distance:.3g}. "
                "Nothing was released. Use network_newton, which corrects it first, or retrain."
            )
        sigma = trained.budget.sigma
        masked = noisy_release(context.task.build(), start, sigma, context.noise, context.journal)
        kept = Fact(True, Origin.ENFORCED, "evaluated on the retained data; a run that exceeds the distance is refused")
        parameters = {
            **self.agreed.parameters(len(trained.removed | deletion.ids)), "sigma": sigma, "tier": "T1, proven",
            "peers": len(topology), "hops": self.hops, "radius": self.radius,
        }  # fmt: skip
        return Unlearned(
            dict.fromkeys(topology.peers, Artifact(self.recover(context, masked))),
            Claim("masked-rr-du", parameters, {"residual_within": kept}, deletion.after.digest),
            start,
            purged=("the start of the walk as it was before noise",),
            remains=("models from before at peers that kept a copy, and the messages of training",),
            gradient_evaluations=len(deletion.after) + self.hops * self.batches * self.batch_size,
            details={"bound": bound, "gradient": gradient},
        )

    def recover(self, context: Context, certified: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The walk from the masked start: post-processing of ``certified``, deterministic, without a forgotten record."""
        return self.walk.walked(context, network_of(context), certified, 0.0)[0].tensors()
