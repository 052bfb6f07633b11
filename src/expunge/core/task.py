"""How a kind of model is run: the only thing a method needs to know about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Batch = Mapping[str, Any]  # name → tensor; rows along the first axis


@dataclass(frozen=True)
class Outputs:
    """What a model says: ``logits`` (rows first) and, where the task has them, ``features`` before the last layer."""

    logits: Any
    features: Any = None


class Task(Protocol):
    """Runs one kind of model. ``params`` maps names to tensors; the module itself is never mutated.

    Masks (which tokens count, which vocabulary entries are pushed) travel inside the batch.
    """

    @property
    def name(self) -> str:
        """The kind of model: ``classification``, …; what ``Capabilities.tasks`` speaks of."""
        ...

    def build(self, tensors: Mapping[str, Any] | None = None) -> Any:
        """A fresh module, with ``tensors`` loaded where given; raises InputError on another architecture."""
        ...

    def batch(self, data: Any, index: Any = None) -> Batch:
        """Rows ``index`` of ``data`` (all where ``None``) as named tensors."""
        ...

    def outputs(self, model: Any, params: Mapping[str, Any], batch: Batch) -> Outputs:
        """Logits and features."""
        ...

    def losses(self, model: Any, params: Mapping[str, Any], batch: Batch) -> Any:
        """Loss of each row, shape (rows,)."""
        ...

    def pair(self, first: Any, second: Any) -> Any:
        """Data of which each row joins a row of ``first`` to one of ``second``, and what is learnt is the second's.

        SU's joint prompts: both data are equally long. A task for which rows cannot be joined refuses.
        """
        ...

    def files(self) -> Mapping[str, bytes]:
        """What must stand beside released weights for other programs to load them, by file name; empty: nothing."""
        ...
