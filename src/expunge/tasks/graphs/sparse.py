"""Products of a sparse and a dense matrix that can be differentiated twice, by both, and stacked over models.

``torch.sparse`` has no derivative by the values of a compressed matrix and no rule for ``torch.func.vmap``: both are here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.autograd import Function
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")
TALL = 2  # rows for each column from which a transposed product goes row by row; measured between 1.9 (Cora) and 39 (PubMed)

with warnings.catch_warnings():  # said once in a process: compressed layouts are called a beta feature of PyTorch
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.empty(0, dtype=torch.int64), torch.empty(0), (1, 1))


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a matrix of shape (n, m) has entries, row by row: ``starts`` (n + 1,) and ``columns`` (e,)."""

    starts: Tensor
    columns: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> tuple[Pattern, Tensor]:
        """From positions in any order, each once; and the order in which their values are to be taken, (e,)."""
        order = torch.argsort(rows * shape[1] + columns)
        starts = torch.zeros(shape[0] + 1, dtype=torch.int64, device=rows.device)
        starts[1:] = torch.bincount(rows, minlength=shape[0]).cumsum(0)
        return cls(starts, columns[order], shape), order

    @classmethod
    def of_matrix(cls, matrix: Tensor) -> Pattern:
        """Of a compressed tensor (``torch.sparse_csr``)."""
        return cls(matrix.crow_indices(), matrix.col_indices(), (matrix.shape[0], matrix.shape[1]))

    @cached_property
    def rows(self) -> Tensor:
        """The row of each entry, (e,)."""
        counts = self.starts.diff()
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)

    @cached_property
    def transposed(self) -> tuple[Pattern, Tensor]:
        """The pattern of the transpose, and the order in which values are to be taken for it."""
        return Pattern.of(self.columns, self.rows, (self.shape[1], self.shape[0]))

    @cached_property
    def tall(self) -> sparse.csr_array:
        """The matrix with ones as SciPy holds it, on the same memory where its indices are short."""
        most = np.int32 if max(*self.shape, len(self.columns)) < 2**31 else np.int64
        starts, columns = (each.cpu().numpy().astype(most, copy=False) for each in (self.starts, self.columns))
        return sparse.csr_array((np.ones(len(columns), dtype=np.float32), columns, starts), shape=self.shape)

    def times(self, values: Tensor, dense: Tensor, transposed: bool = False) -> Tensor:
        """The matrix with ``values`` (e,), or its transpose, times ``dense``: (m, …) → (n, …), or (n, …) → (m, …)."""
        found = _Product.apply(values, dense, self, transposed)
        assert isinstance(found, Tensor)
        return found


@dataclass(frozen=True, eq=False)
class Entries:
    """A compressed matrix on a CPU whose products nobody differentiates: where it has entries, and their values (e,)."""

    pattern: Pattern
    values: Tensor

    def some(self, kept: Tensor, factor: float) -> Entries:
        """The entries where ``kept``, (e,) bool, times ``factor``, and no others."""
        places = np.flatnonzero(kept.numpy())
        whole = self.pattern.tall
        starts = np.searchsorted(places, whole.indptr).astype(whole.indptr.dtype)
        at = torch.from_numpy(places)
        values, columns = (
            self.values.index_select(0, at).mul_(factor),
            torch.from_numpy(whole.indices).index_select(0, at),
        )
        return Entries(Pattern(torch.from_numpy(starts), columns, self.pattern.shape), values)

    def times(self, dense: Tensor) -> Tensor:
        """(m, k) → (n, k)."""
        return product(self.values, dense, self.pattern)

    def transposed_times(self, dense: Tensor) -> Tensor:
        """(n, k) → (m, k), row by row: no transposed pattern is made."""
        starts, columns = self.pattern.starts.numpy(), self.pattern.columns.numpy()
        matrix = sparse.csr_array((self.values.numpy(), columns, starts), shape=self.pattern.shape)
        return torch.from_numpy(matrix.T @ dense.numpy())


def product(values: Tensor, flat: Tensor, pattern: Pattern, bias: Tensor | None = None) -> Tensor:
    """The matrix with ``values`` (e,) times ``flat``, (m, k) → (n, k), plus ``bias``, (k,), without derivatives."""
    matrix = torch.sparse_csr_tensor(pattern.starts, pattern.columns, values, pattern.shape)
    return matrix @ flat if bias is None else torch.addmm(bias, matrix, flat)


def _transposed_product(values: Tensor, flat: Tensor, pattern: Pattern) -> Tensor:
    """Of a tall matrix row by row into the few rows of the result, which stay in the processor's cache: on PubMed's features
    five times as fast as gathering each row of the result from all over ``flat``.
    """
    if pattern.shape[0] > TALL * pattern.shape[1] and values.device.type == "cpu" and values.dtype == flat.dtype:
        ones = pattern.tall
        matrix = sparse.csr_array((values.detach().numpy(), ones.indices, ones.indptr), shape=pattern.shape)
        return torch.from_numpy(matrix.T @ flat.detach().numpy())
    other, order = pattern.transposed
    return product(values.index_select(0, order), flat, other)


class _Product(Function):
    @staticmethod
    def forward(values: Tensor, dense: Tensor, pattern: Pattern, transposed: bool) -> Tensor:  # type: ignore[override]
        flat = dense.reshape(dense.shape[0], -1)
        found = (_transposed_product if transposed else product)(values, flat, pattern)
        return found.reshape(found.shape[0], *dense.shape[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        values, dense, ctx.pattern, ctx.transposed = inputs
        ctx.save_for_backward(values, dense)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        values, dense = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        of_values = of_dense = None
        if ctx.needs_input_grad[0]:
            left, right = (dense, gradient) if ctx.transposed else (gradient, dense)
            at_rows, at_columns = left.index_select(0, pattern.rows), right.index_select(0, pattern.columns)
            of_values = (at_rows * at_columns).reshape(len(pattern.columns), -1).sum(1)
        if ctx.needs_input_grad[1]:
            of_dense = pattern.times(values, gradient, not ctx.transposed)
        return of_values, of_dense, None, None

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: tuple[Any, ...], values: Tensor, dense: Tensor, pattern: Pattern, transposed: bool
    ) -> tuple[Tensor, int]:
        of_values, of_dense, *_ = in_dims
        if of_values is None:  # one matrix for all models: their columns stand side by side
            return pattern.times(values, dense.movedim(of_dense, 1), transposed), 1
        each = [
            pattern.times(one, dense if of_dense is None else dense.select(of_dense, i), transposed)
            for i, one in enumerate(values.unbind(of_values))
        ]
        return torch.stack(each), 0


def entries_of(matrix: Tensor) -> tuple[Pattern, Tensor]:
    """Pattern and values of a compressed tensor, made once for as long as it lives: ``torch.func`` cannot take them out."""
    return remembered(matrix, "entries", lambda it: (Pattern.of_matrix(it), it.values()))


_REMEMBERED: WeakIdKeyDictionary = WeakIdKeyDictionary()


def remembered(tensor: Any, name: str, make: Callable[[Any], T]) -> T:
    """What ``make`` gives for a tensor or array, which nobody changes in place, made once for as long as it lives."""
    if isinstance(tensor, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # pyright: ignore[reportAttributeAccessIssue]
        return make(tensor)
    known: dict[str, Any] = _REMEMBERED.setdefault(tensor, {})  # type: ignore[assignment]
    if name not in known:
        known[name] = make(tensor)
    return known[name]
