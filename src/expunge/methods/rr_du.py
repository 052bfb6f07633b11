"""RR-DU: a token walks from peer to peer; at the client that forgets it takes a noisy gradient, elsewhere it descends.

"Fully Decentralized Certified Unlearning" (Lamri and Maniatakos, arXiv 2512.08443): randomised restarts at the client u,
a trust region around the model at the start, gradient alignment exact (descent on what u retains) or lightweight (ascent on
what it forgets, weighed by m / n_u).

Formal guarantee: as claimed (tier T2). What everybody together sees of u's gradients after the request is (epsilon, delta)
close to what they would see of other gradients within the clipping norm. That the walk *starts* from a model that was trained
on the forgotten records is masked by nothing; ``masked_rr_du`` masks it where a bound of the start is known. Compare with
``weight=0`` (noise alone), ``weight=0, sigma=0`` (the others alone) and ``everywhere`` (noise at every hop: DDP, differential
privacy on the network for the whole group; it promises nothing here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from expunge.core.allowed import Count, NonNegative, Positive, Probability, Share, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.data import Deletion
from expunge.core.errors import ExpungeError
from expunge.core.method import Capabilities, Configurations, Context, Estimate, Paper, Refusal, SmallScale, Unlearned
from expunge.core.trained import Artifact, Budget
from expunge.data.partition import Partition
from expunge.methods.release import noisy_once
from expunge.network.gossip import Gossip
from expunge.network.topology import Topology
from expunge.network.walk import Token, Walk, walk, walk_with_restarts
from expunge.privacy import token_walk as accounts


@dataclass(frozen=True, kw_only=True)
class RRDU:
    """Random-walk unlearning with restarts.

    Attributes:
        alignment: ``lightweight`` (the paper's choice where m / n_u is small) or ``exact``.
        hops: T_u, 100. lr: eta, 0.005. clip: L, 0.5. radius: rho of the trust region, 10.82. batches: s mini-batches averaged
            at a hop, 4: the paper's for MNIST.
        restart: p; 1 / N where not given, which makes the walk unbiased.
        weight: of the ascent; m / n_u where not given. 0: u adds noise alone, or does nothing without noise.
        sigma: noise of each coordinate of u's gradient; where not given the published scale with constant 1, which is UNKNOWN.
        epsilon, delta: 1 and 1e-5, the paper's.
        adjacency: ``query`` (with and without u's gradient), ``replace`` or ``forgotten``; see ``privacy.token_walk``.
        accountant: ``conservative``, or ``as-claimed``, whose network amplification nobody here can derive.
        optimizer: of the peers that descend, ``adam`` (the paper's) or ``sgd``; its moments stay at each peer.
        batch_size: 64: our choice, UNKNOWN in the paper.
        everywhere: every holder takes a clipped step down its own retained loss with noise: a plain walk without restarts.
        group: of how many examples the noise of ``everywhere`` hides the presence; all that are forgotten where not given
            (DDP), 1 for DP-SGD on a walk. How the paper ran these baselines is UNKNOWN.
    """

    name: ClassVar[str] = "rr_du"
    capabilities: ClassVar[Capabilities] = Capabilities(
        needs=("retained data", "forgotten data", "recipe", "peers"), tasks=("classification",), certified=True
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Fully Decentralized Certified Unlearning", "Lamri and Maniatakos, CVPR 2026", "2512.08443"),
    )
    configurations: ClassVar[Configurations] = {
        "rr_du_exact": {"alignment": "exact"},
        "rr_du_no_ascent": {"weight": 0.0, "sigma": 0.0},
        "rr_du_noise_only": {"weight": 0.0},
        "ddp": {"everywhere": True},
        "dp_sgd": {"everywhere": True, "group": 1},
    }
    small: ClassVar[SmallScale] = SmallScale(quick={"hops": 12, "batch_size": 8, "batches": 1, "restart": 0.5})
    alignment: Literal["lightweight", "exact"] = "lightweight"
    hops: Count = 100
    lr: Positive = 0.005
    clip: Positive = 0.5
    radius: Positive = 10.82
    batches: Count = 4
    restart: Share | None = None
    weight: NonNegative | None = None
    sigma: NonNegative | None = None
    epsilon: Positive = 1.0
    delta: Probability = 1e-5
    adjacency: Literal["replace", "query", "forgotten"] = "query"
    accountant: Literal["conservative", "as-claimed"] = "conservative"
    optimizer: Literal["adam", "sgd"] = "adam"
    batch_size: Count = 64
    everywhere: bool = False
    group: Count | None = None

    __post_init__ = must_be_allowed

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs a network of peers, and a request for a part of what one client holds."""
        recipe, deletion = context.trained.recipe, context.deletion
        if not isinstance(recipe, Gossip | Walk) or not context.trained.views:
            return Refusal(
                "rr_du walks through a network of peers; this model was not trained by one.",
                "Train with network.walk.Walk or network.gossip.Gossip.",
            )
        if len({view.digest for view in context.trained.views.values()}) > 1:
            return Refusal(
                "rr_du starts from one model; the peers of this network hold different ones.", "Use a consensus."
            )
        owners = deletion.forget.clients
        if len(owners) > 1:
            names = ", ".join(map(deletion.forget.name_of, owners))
            return Refusal(f"rr_du forgets for one client at a time; these rows belong to {names}.")
        if owners[0] not in deletion.after.clients:
            return Refusal(
                "rr_du needs a client that stays; this one would retain nothing.", "Use network_newton or retrain."
            )
        try:
            topology = recipe.network_of(deletion.after)
        except ExpungeError as error:
            return Refusal(str(error))
        if len(topology) < 2:
            return Refusal("rr_du needs at least two peers: a token has nowhere to go in a network of one.")
        cost = self.hops * self.batches * self.batch_size
        return Estimate(cost, context.trained.fact("steps", 0) * len(deletion.after), self._promises(context, topology))

    def _promises(self, context: Context, topology: Topology) -> dict[str, float]:
        """What the visits will come to: the walk follows from the seed and not from data, so it is known before."""
        from expunge.privacy.certify import promise

        (owner,), restart = context.deletion.forget.clients, self.restart or 1 / len(topology)
        u = topology.peers.index(owner)
        sigma = self._sigma(topology, restart, len(context.deletion.forget))
        holders = walk_with_restarts(topology, self.hops, u, restart, np.random.default_rng(context.generator_seed))
        claim = self._claim(context, topology, restart, sigma, holders.count(u), _share(context.deletion, owner))
        if claim is None or self.accountant != "conservative":
            return {}
        budget = Budget(None, self.delta, 1, sigma)
        return promise("rr-du", claim.parameters, context.trained.facts, budget, context.trained.spent)

    def run(self, context: Context) -> Unlearned:
        """Walk; at u a clipped gradient with noise and the trust region, elsewhere a descent step."""
        deletion, trained, topology = context.deletion, context.trained, network_of(context)
        (owner,), restart = deletion.forget.clients, self.restart or 1 / len(topology)
        sigma = self._sigma(topology, restart, len(deletion.forget))
        token, lengths = self.walked(context, topology, trained.secret, sigma)
        whole = Artifact(token.tensors())
        weights, visits = sum(tensor.numel() for tensor in token.weights.values()), len(lengths)
        ratio = accounts.signal_to_noise(max(lengths, default=0.0), sigma, weights) if sigma else None
        return Unlearned(
            dict.fromkeys(topology.peers, whole),
            self._claim(context, topology, restart, sigma, visits, _share(deletion, owner)),
            whole.tensors,
            remains=(
                "the model that the walk started from, which was trained on the forgotten records and nothing masks",
            ),
            gradient_evaluations=self.hops * self.batches * self.batch_size,
            details={"visits": visits, "signal_to_noise": ratio},
        )

    def walked(
        self, context: Context, topology: Topology, tensors: Mapping[str, Tensor], sigma: float
    ) -> tuple[Token, list[float]]:
        """The token at the end of its walk from ``tensors``, and the norm of u's gradient at each of its visits.

        Args:
            sigma: of the noise at a visit; 0: none is drawn, and the walk is deterministic.
        """
        deletion, generator = context.deletion, np.random.default_rng(context.generator_seed)
        (owner,), places = deletion.forget.clients, [deletion.after.at(peer) for peer in topology.peers]
        u, share = topology.peers.index(owner), _share(deletion, owner)
        token = Token.of(context.task, tensors, self.optimizer, self.lr)
        start = {name: tensor.detach().clone() for name, tensor in token.weights.items()}
        optimizers: dict[int, torch.optim.Optimizer] = {}
        holders = walk_with_restarts(topology, self.hops, u, self.restart or 1 / len(topology), generator)
        if self.everywhere:
            holders = walk(topology, self.hops, generator, u)
        lengths: list[float] = []
        for done, holder in enumerate(holders, 1):
            if holder == u or self.everywhere:
                if self.everywhere:
                    gradient = self._clipped(context, token, deletion.after, places[holder], -1.0, generator)
                else:
                    gradient = self._aligned(
                        context, token, deletion.forget, deletion.after, places[u], share, generator
                    )
                noisy = gradient
                if sigma:
                    noisy = noisy_once(
                        context.journal,
                        f"visit-{len(lengths)}",
                        context.noise,
                        lambda source, g=gradient: source.add(g, sigma)[0],
                    )
                lengths.append(_norm(gradient))
                with torch.no_grad():
                    for name, tensor in token.weights.items():
                        tensor.add_(noisy[name].to(tensor), alpha=self.lr)
                    _project(token.weights, start, self.radius)
            else:
                optimizer = optimizers.setdefault(holder, token.local())
                token.descend(deletion.after, places[holder], optimizer, generator, self.batches, self.batch_size)
            context.watch("walk", done, self.hops)
        return token, lengths

    def _sigma(self, topology: Topology, restart: float, forgotten: int) -> float:
        if self.sigma is not None:
            return self.sigma
        if self.everywhere:
            group = forgotten if self.group is None else self.group
            return accounts.group_sigma(self.clip, self.epsilon, self.delta, len(topology), self.hops, group)
        return accounts.published_sigma(self.clip, self.epsilon, self.delta, len(topology), self.hops, restart)

    def _aligned(
        self, context: Context, token: Token, forget: Partition, after: Partition, own: np.ndarray, share: float,
        generator: np.random.Generator,
    ) -> dict[str, Tensor]:  # fmt: skip
        """g_u: what is added to the model at u, of norm at most L."""
        if self.alignment == "exact":
            factor = -1.0 if self.weight is None else -self.weight
            return self._clipped(context, token, after, own, factor, generator)
        factor = share if self.weight is None else self.weight
        return self._clipped(context, token, forget, np.arange(len(forget)), factor, generator)

    def _clipped(
        self, context: Context, token: Token, data: Partition, own: np.ndarray, factor: float, generator: np.random.Generator
    ) -> dict[str, Tensor]:  # fmt: skip
        """``factor`` times a gradient of norm at most L on rows drawn from positions ``own``."""
        at = generator.choice(own, self.batches * self.batch_size)
        if factor == 0:
            return {name: torch.zeros_like(tensor) for name, tensor in token.weights.items()}
        gradient = token.gradient(context.task.batch(data, torch.from_numpy(np.sort(at))))
        shrink = self.clip / max(_norm(gradient), self.clip)
        return {name: tensor * (factor * shrink) for name, tensor in gradient.items()}

    def _claim(
        self, context: Context, topology: Topology, restart: float, sigma: float, visits: int, share: float
    ) -> Claim | None:
        """What the walk can say; nothing without noise, with noise everywhere, or where a weight above 1 exceeds L."""
        if not sigma or self.everywhere or (self.weight or 0.0) > 1:
            return None
        factor = 1.0 if self.alignment == "exact" else share if self.weight is None else self.weight
        parameters = {
            "forget": len(context.trained.removed | context.deletion.ids), "sigma": sigma, "delta": self.delta,
            "visits": visits, "factor": factor, "adjacency": self.adjacency, "clip": self.clip,
            "accountant": self.accountant, "kappa": accounts.inverse_delay(len(topology), restart), "tier": "T2, as claimed",
            "alignment": self.alignment, "peers": len(topology), "hops": self.hops, "restart": restart, "radius": self.radius,
        }  # fmt: skip
        return Claim("rr-du", parameters, {}, context.deletion.after.digest)


def network_of(context: Context) -> Topology:
    """The peers that stay."""
    recipe = context.trained.recipe
    assert isinstance(recipe, Gossip | Walk)
    return recipe.network_of(context.deletion.after)


def _share(deletion: Deletion, owner: str) -> float:
    """m / n_u."""
    return len(deletion.forget) / (len(deletion.forget) + len(deletion.after.at(owner)))


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return float(
        torch.sqrt(sum((t.double().square().sum() for t in tensors.values()), torch.zeros((), dtype=torch.float64)))
    )


def _project(weights: Mapping[str, Tensor], centre: Mapping[str, Tensor], radius: float) -> None:
    """Bring ``weights`` back to the ball around ``centre``, in place."""
    apart = _norm({name: weights[name] - centre[name] for name in centre})
    if apart > radius:
        for name, tensor in weights.items():
            tensor.copy_(centre[name] + (tensor - centre[name]) * (radius / apart))
