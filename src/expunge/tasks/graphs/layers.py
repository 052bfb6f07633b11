"""Graph convolutions. Each maps features of all nodes to others by ``(x, graph)``, where ``graph`` says who hears whom.

Shapes:
    x (n, d), dense or compressed → (n, k). Everything can be differentiated twice and stacked over models (``torch.func``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from expunge.tasks.graphs.dropout import Drops, dropped
from expunge.tasks.graphs.sparse import Pattern, entries_of, product, remembered


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The directed messages of a graph with ``n`` nodes: from ``source`` to ``target``, (e,) each, without self-loops.

    Attributes:
        weight: a factor on each message, (e,), for explanations that ask what an edge contributes; ``None``: all 1.
    """

    source: Tensor
    target: Tensor
    n: int
    weight: Tensor | None = None

    @classmethod
    def of(cls, edge_index: Tensor, n: int, weight: Tensor | None = None) -> Neighbours:
        """From (2, e) as PyTorch Geometric has it; what is derived from it is made once for as long as it lives."""
        plain = remembered(edge_index, f"neighbours of {n}", lambda index: cls(index[0], index[1], n))
        if weight is None:
            return plain
        weighted = cls(plain.source, plain.target, n, weight)
        weighted.__dict__["_bare"], weighted.__dict__["_looped"] = plain._bare, plain._looped
        return weighted

    @cached_property
    def _bare(self) -> tuple[Pattern, Tensor]:
        return Pattern.of(self.target, self.source, (self.n, self.n))

    @cached_property
    def _looped(self) -> tuple[Pattern, Tensor]:
        own = torch.arange(self.n, device=self.source.device)
        both = torch.cat([self.target, own]), torch.cat([self.source, own])
        return Pattern.of(*both, (self.n, self.n))

    @cached_property
    def _counts(self) -> Tensor:
        return torch.bincount(self.target, minlength=self.n)

    def _factors(self, plain: Tensor, order: Tensor, loops: bool) -> Tensor:
        """Values of the messages in the pattern's order, with the weights on those that are edges."""
        if self.weight is None:
            return plain
        ones = self.weight.new_ones(self.n if loops else 0)
        return plain * torch.cat([self.weight, ones]).index_select(0, order)

    def symmetric(self, x: Tensor) -> Tensor:
        """D^-1/2 (A + I) D^-1/2 x, D the degrees with the self-loop (Kipf and Welling 2017, arXiv 1609.02907, equation 2)."""
        pattern, order = self._looped
        return pattern.times(self._factors(self._scaled(x.dtype), order, True), x)

    def _scaled(self, dtype: torch.dtype) -> Tensor:
        pattern, _ = self._looped
        scale = (self._counts + 1).to(dtype).rsqrt()
        return scale.index_select(0, pattern.rows) * scale.index_select(0, pattern.columns)

    def spread(self, x: Tensor, bias: Tensor | None = None, back: bool = False) -> Tensor:
        """:meth:`symmetric` without weights on messages, plus ``bias``, (k,), where nobody differentiates.

        ``back``: the transpose times ``x``.
        """
        if (x.dtype, back) not in self._made:
            (pattern, _), values = self._looped, self._scaled(x.dtype)
            other, order = pattern.transposed
            self._made[x.dtype, back] = (other, values.index_select(0, order)) if back else (pattern, values)
        pattern, values = self._made[x.dtype, back]
        return product(values, x, pattern, bias)

    @cached_property
    def _made(self) -> dict[tuple[torch.dtype, bool], tuple[Pattern, Tensor]]:
        return {}

    def mean(self, x: Tensor) -> Tensor:
        """The mean over neighbours; zero for a node without any."""
        pattern, order = self._bare
        values = 1 / self._counts.clamp_min(1).to(x.dtype).index_select(0, pattern.rows)
        return pattern.times(self._factors(values, order, False), x)

    def total(self, x: Tensor) -> Tensor:
        """The sum over neighbours."""
        pattern, order = self._bare
        values = torch.ones(len(pattern.columns), dtype=x.dtype, device=x.device)
        return pattern.times(self._factors(values, order, False), x)

    @property
    def looped(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Source, target and weight of all messages and of one self-loop a node, (e + n,) each."""
        own = torch.arange(self.n, device=self.source.device)
        weight = None if self.weight is None else torch.cat([self.weight, self.weight.new_ones(self.n)])
        return torch.cat([self.source, own]), torch.cat([self.target, own]), weight


def glorot(*shape: int) -> nn.Parameter:
    """Uniform in ±sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010), as the published graph networks start."""
    bound = math.sqrt(6 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class Projection(Drops):
    """``x W``, where ``x`` may be compressed and loses entries at random in training first."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0, bias: bool = False):
        super().__init__()
        self.weight = glorot(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.p = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) → (n, outputs)."""
        if x.layout is torch.sparse_csr:
            pattern, values = entries_of(x)
            found = pattern.times(dropped(values, self.p, self.training, self.weight), self.weight)
        else:
            found = dropped(x, self.p, self.training, self.weight) @ self.weight
        return found if self.bias is None else found + self.bias


class GCNConv(nn.Module):
    """``D^-1/2 (A + I) D^-1/2 x W + b`` (Kipf and Welling 2017, arXiv 1609.02907)."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0):
        super().__init__()
        self.project = Projection(inputs, outputs, dropout)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, graph: Neighbours) -> Tensor:
        """(n, inputs) → (n, outputs)."""
        return graph.symmetric(self.project(x)) + self.bias


class SAGEConv(nn.Module):
    """``x W + mean over neighbours of x V + b`` (Hamilton et al. 2017, arXiv 1706.02216, mean aggregator)."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0):
        super().__init__()
        self.own, self.others = Projection(inputs, outputs, dropout), Projection(inputs, outputs, dropout)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, graph: Neighbours) -> Tensor:
        """(n, inputs) → (n, outputs)."""
        return self.own(x) + graph.mean(self.others(x)) + self.bias


class GINConv(nn.Module):
    """``MLP((1 + eps) x + sum over neighbours)`` with two linear layers (Xu et al. 2019, arXiv 1810.00826, equation 4.1).

    The first linear layer stands before the sum, which is the same function and leaves wide features compressed.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0, width: int | None = None):
        super().__init__()
        width = width or outputs
        self.first = Projection(inputs, width, dropout)
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = nn.Parameter(torch.zeros(()))
        self.second = Projection(width, outputs, bias=True)

    def forward(self, x: Tensor, graph: Neighbours) -> Tensor:
        """(n, inputs) → (n, outputs)."""
        h = self.first(x)
        return self.second(torch.relu((1 + self.eps) * h + graph.total(h) + self.bias))


class GATConv(Drops):
    """Neighbours weighed by attention, ``heads`` times (Veličković et al. 2018, arXiv 1710.10903, equations 1 to 6).

    Attributes:
        concatenate: whether heads stand one after another, (n, heads × width), or are averaged, (n, width).
    """

    def __init__(self, inputs: int, width: int, heads: int, *, dropout: float = 0.0, concatenate: bool = True):
        super().__init__()
        self.project = Projection(inputs, heads * width, dropout)
        self.hears, self.heard = glorot(heads, width), glorot(heads, width)  # what a node hears with, and is heard by
        self.bias = nn.Parameter(torch.zeros(heads * width if concatenate else width))
        self.heads, self.p, self.concatenate = heads, dropout, concatenate

    def forward(self, x: Tensor, graph: Neighbours) -> Tensor:
        """(n, inputs) → (n, heads × width or width)."""
        h = self.projected(x, graph.n)
        attention, (source, target) = self.attention(h, graph)
        attention = dropped(attention, self.p, self.training, self.bias)
        heard = h.index_select(0, source) * attention[:, :, None]
        out = torch.zeros_like(h).index_add(0, target, heard)
        out = out.flatten(1) if self.concatenate else out.mean(1)
        return out + self.bias

    def projected(self, x: Tensor, n: int) -> Tensor:
        """(n, inputs) → (n, heads, width)."""
        return self.project(x).reshape(n, self.heads, -1)

    def attention(self, h: Tensor, graph: Neighbours) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """How much of each message a node takes, (e + n, heads), and the messages' sources and targets.

        Weights of edges multiply what is taken after the shares were made: with all 1 nothing changes.
        """
        source, target, weight = graph.looped
        score = (h * self.heard).sum(-1).index_select(0, source) + (h * self.hears).sum(-1).index_select(0, target)
        score = nn.functional.leaky_relu(score, 0.2)
        top = torch.full_like(score[: graph.n], -math.inf)
        top = top.scatter_reduce(0, target[:, None].expand(-1, self.heads), score.detach(), "amax")
        raised = (score - top.index_select(0, target)).exp()
        shares = raised / torch.zeros_like(top).index_add(0, target, raised).index_select(0, target)
        return (shares if weight is None else shares * weight[:, None]), (source, target)


def propagated(x: Tensor, graph: Neighbours, steps: int) -> Tensor:
    """``x`` after so many symmetric steps, dense (Wu et al. 2019, arXiv 1902.07153)."""
    found = x.to_dense() if x.layout is torch.sparse_csr else x
    for _ in range(steps):
        found = graph.symmetric(found)
    return found
