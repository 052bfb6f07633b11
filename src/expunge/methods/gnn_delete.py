"""Learn small matrices behind the stages of a frozen graph network that make deleted edges look like random pairs of nodes.

GNNDelete (Cheng et al., arXiv 2302.13406). A matrix acts on the nodes within as many hops of what was deleted as its stage
gathers; all other weights stay. A second request puts further matrices behind those of the first.

Formal guarantee: none. The weights that were trained on what is forgotten are released unchanged, and the nodes that the
matrices act on tell where something was deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from expunge.core.allowed import Count, Fraction, Positive, must_be_allowed
from expunge.core.data import Deletion, Ids
from expunge.core.errors import FailedError
from expunge.core.method import (
    Capabilities,
    Configurations,
    Context,
    Estimate,
    Paper,
    Ranges,
    Refusal,
    SmallScale,
    Unlearned,
)
from expunge.core.trained import Artifact
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.links import graph_of
from expunge.data.graphs.pairs import unlinked
from expunge.data.graphs.reach import within
from expunge.methods.stages import stage_once
from expunge.tasks.graphs.layers import Neighbours
from expunge.tasks.graphs.networks import Edit, GraphNetwork
from expunge.tasks.graphs.operators import PREFIX, operators_of, rounds_in
from expunge.training.optimizers import Adam

START = 1e-3  # of every entry of a matrix (released code): what it acts on begins with rank one


@dataclass(frozen=True, eq=False)
class Region:
    """Where a deletion acts.

    Attributes:
        before: the graph as it was. retained: without edges and features that go; all nodes are there. graph: which of them the
            network runs on while matrices are learnt.
        edges: ends of deleted edges, (k, 2) positions. near: for each stage the nodes that its matrix acts on, (n,) bool.
        kept: for each stage those of them that are no end of a deleted edge, positions.
    """

    before: Graph
    retained: Graph
    graph: Graph
    edges: np.ndarray
    near: list[np.ndarray]
    kept: list[np.ndarray]

    @classmethod
    def of(cls, deletion: Deletion, gathers: tuple[int, ...], which: str) -> Region:
        """Edges that go, alone or with a node; of a node that loses features, all its edges count."""
        before = graph_of(deletion.before)
        ids, known = deletion.ids, names.of_edges(before.edges)
        blank = names.apart(ids["feature"])[0]
        cut = np.isin(known, ids["edge"]) | np.isin(before.edges, ids["node"]).any(1)
        chosen = before.edges[cut | np.isin(before.edges, blank).any(1)]
        near = [within(before, chosen.ravel(), hops) for hops in gathers]
        ends = np.isin(before.nodes, chosen)
        retained = before.without(Ids({"feature": ids["feature"], "edge": known[cut]}))
        read = retained if which == "retained" else before.without(Ids({"feature": ids["feature"]}))
        kept = [np.flatnonzero(each & ~ends) for each in near]
        return cls(before, retained, read, before.positions(chosen), near, kept)


@dataclass(frozen=True, kw_only=True)
class GNNDelete:
    """Deletion operators behind every stage.

    Attributes:
        loss: ``node_embedding`` (the paper's: both ends of a deleted edge as those of a random pair, all others nearby as they
            were) or ``edge_probability`` (the same of inner products of the last stage).
        mode: ``layerwise`` (the paper's: each matrix follows the loss of its own stage) or ``joint`` (all follow the sum); of
            the node embeddings. Edge probabilities are one loss, which all matrices follow.
        lambda_: share of the loss on deleted edges: 0.5. lr: 1e-3, of Adam. epochs: 1,500: the published script.
        graph: what is read while matrices are learnt: ``retained`` edges (our choice), or ``released``: deleted ones too, as
            the released code does.
        pairs: of nodes nearby whose edge probability is kept, drawn anew at each step: 4,096. Our choice; the released code
            takes all pairs, which are 42 million around 100 edges of PubMed.
    """

    name: ClassVar[str] = "gnn_delete"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("node", "edge", "feature"),
        tasks=("graph", "links"),
        needs=("retained data", "forgotten data", "stages"),
        effect="operator",
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "GNNDelete: a general strategy for unlearning in graph neural networks",
            "Cheng et al., ICLR 2023",
            "2302.13406",
        ),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-4, 1e-2)}
    configurations: ClassVar[Configurations] = {"gnn_delete_edges": {"loss": "edge_probability"}}
    small: ClassVar[SmallScale] = SmallScale(quick={"epochs": 3}, visible={"epochs": 200, "lr": 1e-2})
    loss: Literal["node_embedding", "edge_probability"] = "node_embedding"
    mode: Literal["layerwise", "joint"] = "layerwise"
    lambda_: Fraction = 0.5
    lr: Positive = 1e-3
    epochs: Count = 1500
    graph: Literal["retained", "released"] = "retained"
    pairs: Count = 4096

    def __post_init__(self):
        must_be_allowed(self)

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs one of expunge's networks, and at least one edge that goes."""
        model, deletion = context.task.build(), context.deletion
        if not isinstance(model, GraphNetwork):
            return Refusal(
                "gnn_delete puts matrices between the layers of a network, and does not know those of "
                f"{type(model).__name__}.", "Use gcn, gat, graphsage, gin or sgc, or another method.",
            )  # fmt: skip
        if not len(Region.of(deletion, model.gathers, self.graph).edges):
            return Refusal(
                "gnn_delete makes deleted edges look like random pairs; no edge goes with this request: its nodes have none.",
                "Use retrain.",
            )
        return Estimate(self.epochs * len(deletion.after))

    def run(self, context: Context) -> Unlearned:
        """Learn one matrix a stage; the backbone is released as it was."""
        before = context.trained.artifact.tensors
        learnt = stage_once(context.journal, "operators", lambda: self._learnt(context))
        tensors = {**before, **learnt}
        edges = len(self._region(context).edges)
        size = sum(each.numel() * each.element_size() for each in learnt.values())
        return Unlearned(
            views={"model": Artifact(tensors, "operator")},
            state=tensors,
            remains=("every weight of the network, as trained on what was forgotten; matrices stand behind them",),
            gradient_evaluations=self.epochs * len(context.deletion.after),
            details={"deleted_edges": edges, "state_bytes": size, "state_bytes_per_edge": size / edges},
        )

    def _region(self, context: Context) -> Region:
        return Region.of(context.deletion, context.task.build().gathers, self.graph)

    def _learnt(self, context: Context) -> dict[str, Tensor]:
        task: Any = context.task
        tensors = context.trained.artifact.tensors
        model = task.build(tensors).eval().requires_grad_(False)
        region = self._region(context)
        frozen, retained = (Frozen.on(task, model, graph) for graph in (region.graph, region.retained))
        draw = np.random.default_rng(context.generator_seed)
        with torch.no_grad():
            original = retained.stages(_same)
        weights, device = learn(self, frozen, original, region, draw, context.watch), task.device
        number, made = rounds_in(tensors), {}
        for stage, (weight, near) in enumerate(zip(weights, region.near, strict=True)):
            name = f"{PREFIX}.rounds.{number}.{stage}"
            nodes = torch.from_numpy(region.graph.nodes[near]).to(device)
            made |= {f"{name}.weight": weight.detach(), f"{name}.nodes": nodes}
        return made


@dataclass(frozen=True, eq=False)
class Frozen:
    """A network that does not move, on one graph.

    Attributes:
        first: what its first stage gives. edit: the operators of earlier requests.
    """

    model: GraphNetwork
    first: Tensor
    messages: Neighbours
    edit: Edit

    @classmethod
    def on(cls, task: Any, model: Any, graph: Graph) -> Frozen:
        """``model`` on ``graph``."""
        shared, earlier = task.shared(graph), operators_of(model)
        messages = Neighbours.of(shared["edge_index"], len(graph.nodes))
        edit = _same if earlier is None else earlier.edit(shared["nodes"])
        return cls(model, model.first(shared["x"], messages), messages, edit)

    def stages(self, more: Edit) -> list[Tensor]:
        """What each stage gives, changed by ``more`` behind earlier operators."""
        seen: list[Tensor] = []

        def edited(stage: int, h: Tensor) -> Tensor:
            seen.append(more(stage, self.edit(stage, h)))
            return seen[-1]

        self.model.rest(self.first, self.messages, edited)
        return seen


def _same(stage: int, h: Tensor) -> Tensor:
    return h


def learn(
    method: GNNDelete, frozen: Frozen, original: list[Tensor], region: Region, draw: np.random.Generator,
    watch: Callable[[str, int, int], None],
) -> list[Tensor]:  # fmt: skip
    """The matrices, one a stage, (d, d).

    Args:
        original: what each stage gave before, on the retained edges.

    Raises:
        FailedError: where a loss is not finite.
    """
    near = [torch.from_numpy(each).to(h.device)[:, None] for each, h in zip(region.near, original, strict=True)]
    weights = [h.new_full((h.shape[1], h.shape[1]), START).requires_grad_() for h in original]
    optimizers = [Adam([weight], method.lr) for weight in weights]
    target = torch.from_numpy(unlinked(region.before, len(region.edges), draw))  # drawn once (released code)
    for epoch in range(1, method.epochs + 1):
        now = frozen.stages(lambda stage, h: torch.where(near[stage], h @ weights[stage], h))
        if method.loss == "node_embedding":
            losses = [
                embedding_loss(h, h0, region, kept, target, method.lambda_)
                for h, h0, kept in zip(now, original, region.kept, strict=True)
            ]
        else:
            losses = [probability_loss(now[-1], original[-1], region, method, draw)]
        if not all(bool(torch.isfinite(loss)) for loss in losses):
            raise FailedError(f"The loss of gnn_delete was not finite at step {epoch}. Take a smaller learning rate.")
        if method.mode == "layerwise" and len(losses) == len(weights):
            for loss, weight in zip(losses, weights, strict=True):  # each matrix follows its own stage alone
                (weight.grad,) = torch.autograd.grad(loss, [weight], retain_graph=True)
        else:
            found = torch.autograd.grad(torch.stack(losses).sum(), weights)
            for weight, gradient in zip(weights, found, strict=True):
                weight.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
        watch("operators", epoch, method.epochs)
    return weights


def embedding_loss(
    h: Tensor, original: Tensor, region: Region, kept: np.ndarray, target: Tensor, share: float
) -> Tensor:
    """``share`` MSE(ends of deleted edges, ends of random pairs) + (1 - share) MSE(other nodes nearby, as they were).

    Shapes:
        h, original (n, d); kept positions; target (k, 2) positions.

    Source: GNNDelete (arXiv 2302.13406), deleted edge consistency and neighbourhood influence.
    """
    deleted = mse_loss(h[torch.from_numpy(region.edges)], original[target])
    if not len(kept):
        return share * deleted
    at = torch.from_numpy(kept)
    return share * deleted + (1 - share) * mse_loss(h[at], original[at])


def probability_loss(
    h: Tensor, original: Tensor, region: Region, method: GNNDelete, draw: np.random.Generator
) -> Tensor:
    """The same of inner products: logits of deleted edges as those of fresh random pairs, probabilities nearby as they were.

    Source: GNNDelete's released code; pairs nearby are drawn and not enumerated.
    """

    def products(z: Tensor, pairs: np.ndarray) -> Tensor:
        first, second = torch.from_numpy(pairs).T
        return (z[first] * z[second]).sum(1)

    pairs = unlinked(region.before, len(region.edges), draw)
    deleted = mse_loss(products(h, region.edges), products(original, pairs))
    around = draw.choice(np.flatnonzero(region.near[-1]), (method.pairs, 2))
    around = around[(around[:, 0] != around[:, 1]) & ~np.isin(names.of_edges(around), names.of_edges(region.edges))]
    if not len(around):
        return method.lambda_ * deleted
    kept = mse_loss(products(h, around).sigmoid(), products(original, around).sigmoid())
    return method.lambda_ * deleted + (1 - method.lambda_) * kept
