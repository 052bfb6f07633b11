"""Five published graph networks as modules ``(x, edge_index) → logits of every node``.

Their defaults are those of the papers for citation graphs. ``depth`` is over how many hops they gather, ``symmetric`` whether a
message is scaled by the degrees at both ends, and ``sparse`` says that ``x`` may be compressed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.tasks.graphs.layers import GATConv, GCNConv, GINConv, Neighbours, Projection, SAGEConv

Edit = Callable[[int, Tensor], Tensor]  # (stage, what it gives before the activation) → what goes on


class GraphNetwork(nn.Module):
    """A network whose stages can be looked at and changed one by one.

    Attributes:
        symmetric: see the module's first lines.
        gathers: over how many hops what each stage gives has gathered, one number a stage.
    """

    sparse = True
    symmetric = False
    gathers: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Over how many hops a node gathers."""
        return self.gathers[-1]

    def first(self, x: Tensor, graph: Neighbours) -> Tensor:
        """What the first stage gives, (n, d) → (n, k)."""
        raise NotImplementedError

    def rest(self, h: Tensor, graph: Neighbours, edit: Edit | None = None) -> Tensor:
        """Logits, from what the first stage gives."""
        raise NotImplementedError

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor | None = None, edit: Edit | None = None) -> Tensor:
        """Logits of every node.

        Args:
            weight: a factor on each message, (e,); see ``layers.Neighbours``.
            edit: changes what a stage gives, before the activation.

        Shapes:
            x (n, d), edge_index (2, e) with both directions of every edge → (n, classes).
        """
        graph = Neighbours.of(edge_index, x.shape[0], weight)
        return self.rest(self.first(x, graph), graph, edit)


class Layers(GraphNetwork):
    """Convolutions with an activation and dropout in between; each is a stage."""

    activation: Callable[[Tensor], Tensor] = staticmethod(torch.relu)

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.gathers = tuple(range(1, len(layers) + 1))

    def first(self, x: Tensor, graph: Neighbours) -> Tensor:
        """See :class:`GraphNetwork`."""
        return self.layers[0](x, graph)

    def rest(self, h: Tensor, graph: Neighbours, edit: Edit | None = None) -> Tensor:
        """See :class:`GraphNetwork`."""
        for number, layer in enumerate(self.layers):
            h = layer(self.activation(h), graph) if number else h
            h = h if edit is None else edit(number, h)
        return h


def _widths(inputs: int, hidden: int, outputs: int, depth: int) -> list[tuple[int, int]]:
    if depth < 1:
        raise InputError(f"Expected at least one layer; got depth={depth}.")
    widths = [inputs, *[hidden] * (depth - 1), outputs]
    return list(pairwise(widths))


class GCN(Layers):
    """Graph convolutional network (Kipf and Welling 2017, arXiv 1609.02907).

    Args:
        inputs, classes: columns of the features; logits.
        hidden, dropout: 16 and .5, section 5.2; dropout is before every layer.
        depth: 2, as there.
    """

    symmetric = True

    def __init__(self, inputs: int, classes: int, hidden: int = 16, depth: int = 2, dropout: float = 0.5):
        super().__init__([GCNConv(a, b, dropout) for a, b in _widths(inputs, hidden, classes, depth)])


class GraphSAGE(Layers):
    """GraphSAGE with the mean aggregator (Hamilton et al. 2017, arXiv 1706.02216).

    Args:
        inputs, classes: columns of the features; logits.
        hidden, depth, dropout: 64, 2 and .5: our choice for citation graphs.
    """

    def __init__(self, inputs: int, classes: int, hidden: int = 64, depth: int = 2, dropout: float = 0.5):
        super().__init__([SAGEConv(a, b, dropout) for a, b in _widths(inputs, hidden, classes, depth)])


class GIN(Layers):
    """Graph isomorphism network (Xu et al. 2019, arXiv 1810.00826) for nodes.

    Args:
        inputs, classes: columns of the features; logits.
        hidden, depth, dropout: 16, 2 and .5: our choice for citation graphs.
    """

    def __init__(self, inputs: int, classes: int, hidden: int = 16, depth: int = 2, dropout: float = 0.5):
        super().__init__([GINConv(a, b, dropout, hidden) for a, b in _widths(inputs, hidden, classes, depth)])


class GAT(Layers):
    """Graph attention network (Veličković et al. 2018, arXiv 1710.10903).

    Args:
        inputs, classes: columns of the features; logits.
        hidden, heads, dropout: 8, 8 and .6, section 3.3; the last layer has one head, or ``last_heads`` that are averaged
            (1 on Cora and CiteSeer, 8 on PubMed there).
        depth: 2.
    """

    activation = staticmethod(nn.functional.elu)

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: int = 8,
        heads: int = 8,
        last_heads: int = 1,
        depth: int = 2,
        dropout: float = 0.6,
    ):
        wide = [inputs, *[hidden * heads] * (depth - 1)]
        layers: list[nn.Module] = [GATConv(width, hidden, heads, dropout=dropout) for width in wide[:-1]]
        last = GATConv(wide[-1], classes, last_heads, dropout=dropout, concatenate=False)
        super().__init__([*layers, last])


class SGC(GraphNetwork):
    """A linear classifier on features that were averaged ``steps`` times (Wu et al. 2019, arXiv 1902.07153); one stage.

    Args:
        inputs, classes: columns of the features; logits.
        steps: 2, as there.
        bias: whether there is one; without it, the loss with a quadratic penalty is strongly convex in every weight.
    """

    symmetric = True

    def __init__(self, inputs: int, classes: int, steps: int = 2, bias: bool = True):
        super().__init__()
        self.linear, self.steps = Projection(inputs, classes, bias=bias), steps
        self.gathers = (steps,)

    def first(self, x: Tensor, graph: Neighbours) -> Tensor:
        """Logits; the linear part comes before the averages, which is the same function and cheaper."""
        h = self.linear(x)
        for _ in range(self.steps):
            h = graph.symmetric(h)
        return h

    def rest(self, h: Tensor, graph: Neighbours, edit: Edit | None = None) -> Tensor:
        """See :class:`GraphNetwork`."""
        return h if edit is None else edit(0, h)


NETWORKS = {"gcn": GCN, "gat": GAT, "graphsage": GraphSAGE, "gin": GIN, "sgc": SGC}
