"""Classification of nodes: any module that maps features and edges to logits of every node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Derivative, Outputs
from expunge.data.graphs.graph import Graph
from expunge.tasks.classification import its_own, logits_of, must_name_each_weight_once, same_architecture
from expunge.tasks.graphs.operators import attached, operators_of
from expunge.tasks.graphs.sparse import entries_of, remembered
from expunge.tasks.seeds import seed_global
from expunge.tasks.wrappers import unwrapped


@dataclass(frozen=True)
class NodeClassification:
    """Runs ``factory()``'s modules ``(x, edge_index) → (n, classes)`` on a :class:`~expunge.data.graphs.graph.Graph`.

    An example is a node with a label; a batch holds its place in the graph, and shares the whole graph. Of every other node the
    label is never read.

    Attributes:
        factory: makes a fresh module; called under a forked random state.
        dtype, device: of the weights and features; where they lie.
        depth: over how many hops the modules gather; ``None``: unknown.
        symmetric: whether a message is scaled by the degrees at both ends, so that one more hop is reached; where unknown, yes.
        compressed: whether modules take features as a compressed tensor (``torch.sparse_csr``); otherwise they get a dense one.
    """

    factory: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    name: str = "graph"
    depth: int | None = None
    symmetric: bool = True
    compressed: bool = False

    @classmethod
    def of(cls, factory: Callable[[], nn.Module], **settings: Any) -> NodeClassification:
        """With what a module says of itself in ``depth``, ``symmetric`` and ``sparse``, as expunge's own do."""
        model = factory()
        depth, symmetric = getattr(model, "depth", None), getattr(model, "symmetric", True)
        if depth is not None and (type(depth) is not int or depth < 0):
            raise InputError(f"Expected the depth of a model as a whole number of hops; got {depth!r}.")
        found = {"depth": depth, "symmetric": bool(symmetric), "compressed": getattr(model, "sparse", False) is True}
        return cls(factory, **{**found, **settings})

    def build(self, tensors: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> nn.Module:
        """A fresh module drawn from ``seed``, or one that holds ``tensors``, deletion operators included.

        Raises:
            InputError: if ``tensors`` belong to another architecture, naming the first differences.
        """
        with torch.random.fork_rng(devices=[]):
            seed_global(seed, self.device)
            model = self.factory()
        if tensors is not None:
            model = attached(model, tensors)
        model = model.to(self.device, self.dtype)
        if tensors is not None:
            tensors, _ = unwrapped(model.state_dict().keys(), tensors)
            same_architecture(model.state_dict(), tensors)
            model.load_state_dict({name: tensor.to(self.device) for name, tensor in tensors.items()})
        return model

    @staticmethod
    def released(model: nn.Module) -> dict[str, Tensor]:
        """Weights and buffers by name; the tensors themselves."""
        return dict(model.state_dict())

    def batch(self, data: Any, index: Any = None) -> Batch:
        """Columns ``node`` (place in the graph) and ``y``; shared ``x``, ``edge_index`` (2, e), both ways, ``nodes`` (ids).

        ``data`` is a graph here; tasks that predict something else of a graph take that.
        """
        places = data.positions(data.examples)
        columns = {"node": torch.from_numpy(places), "y": torch.from_numpy(data.y[places])}
        batch = Batch({name: each.to(self.device) for name, each in columns.items()}, self.shared(data))
        return batch if index is None else batch.take(torch.as_tensor(index))

    def shared(self, data: Graph) -> dict[str, Tensor]:
        """The tensors of the graph, made once for as long as its arrays live."""
        how = f"{self.dtype} {self.device} {self.compressed} {data.scale}"
        x = remembered(data.x, how, lambda _: self._features(data))
        ends = remembered(data.edges, f"{self.device} of {id(data.nodes)}", lambda _: self._edge_index(data))
        return {"x": x, "edge_index": ends[0], "nodes": ends[1]}

    def _features(self, data: Graph) -> Tensor:
        found = data.features
        if not self.compressed:
            return torch.from_numpy(found.toarray()).to(self.device, self.dtype)
        starts, columns = (torch.from_numpy(part.astype(np.int64)) for part in (found.indptr, found.indices))
        made = torch.sparse_csr_tensor(starts, columns, torch.from_numpy(found.data.copy()).to(self.dtype), found.shape)
        made = made.to(self.device)
        entries_of(made)  # while no transform is on
        return made

    def _edge_index(self, data: Graph) -> tuple[Tensor, Tensor, Any]:
        both = np.concatenate([data.ends, data.ends[:, ::-1]]).T
        # the nodes are kept as well: as long as they live nothing else can have their address
        return (
            torch.from_numpy(np.ascontiguousarray(both)).to(self.device), torch.from_numpy(data.nodes.copy()).to(self.device),
            data.nodes,
        )  # fmt: skip

    def every(
        self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch, weight: Tensor | None = None
    ) -> Tensor:
        """Logits of every node of the graph, (n, classes).

        Args:
            weight: a factor on each message, (e,), for explanations; only expunge's own networks take one.
        """
        more: dict[str, Any] = {} if weight is None else {"weight": weight}
        if (operators := operators_of(model)) is not None:
            more["edit"] = operators.edit(batch["nodes"])
        inputs = (batch["x"], batch["edge_index"])
        if its_own(model, params):
            return logits_of(model(*inputs, **more))
        return logits_of(functional_call(model, dict(params), inputs, more))

    def outputs(
        self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch, weight: Tensor | None = None
    ) -> Outputs:
        """Logits (b, classes); ``weight`` as of :meth:`every`."""
        return Outputs(self.logits_from(self.every(model, params, batch, weight), batch))

    def logits_from(self, every: Tensor, batch: Batch) -> Tensor:
        """Logits of the examples of ``batch``, (b, classes), from what the module gives for every node."""
        return every.index_select(0, batch["node"])

    def losses(
        self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch, weight: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of each example, (b,); ``weight`` as of :meth:`every`."""
        return self.losses_from(self.outputs(model, params, batch, weight).logits, batch)

    @staticmethod
    def losses_from(logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each example, (b,), from their logits."""
        return nn.functional.cross_entropy(logits, batch["y"], reduction="none")

    def closed_form(self, model: nn.Module) -> Derivative | None:
        """See ``tasks.graphs.closed_forms``."""
        from expunge.tasks.graphs.closed_forms import closed_form_of_convolutions  # which knows this task by its type

        return closed_form_of_convolutions(self, model)

    def files(self) -> dict[str, bytes]:
        """Nothing: the module is the user's own code, or expunge's."""
        return {}

    def must_accept(self, model: nn.Module, graph: Graph, batch: Batch, gives: str) -> Tensor:
        """What ``model`` gives for every node, from one forward pass.

        Args:
            gives: what that should be, for the message.

        Raises:
            InputError: where it does not accept the graph.
        """
        try:
            with torch.no_grad():
                return self.every(model, dict(model.named_parameters()), batch)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"The model does not accept a graph of {len(graph.nodes)} nodes with {graph.width} features each: {error}. "
                f"Expected a module (x, edge_index) → {gives}; check its input size."
            ) from error

    def check(self, data: Graph) -> None:
        """Whether the module accepts the graph and has an output for every label; one forward pass.

        Raises:
            InputError: with the shapes or the label that do not fit, or the weights that stand under several names.
        """
        model = self.build().eval()
        must_name_each_weight_once(model)
        if not len(data):
            raise InputError("Expected at least one node whose label is trained on; there is none.")
        logits = self.must_accept(model, data, self.batch(data), "logits of every node")
        if logits.ndim != 2 or len(logits) != len(data.nodes):
            raise InputError(f"Expected logits of shape (nodes, classes); the model gives {tuple(logits.shape)}.")
        if data.label_count > logits.shape[1]:
            raise InputError(
                f"Expected labels below {logits.shape[1]}, the model's number of classes; the graph has label "
                f"{data.label_count - 1}. Widen the model's last layer."
            )
