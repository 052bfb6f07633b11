"""Fine-tune the last k layers on the retained data, and let them forget the rest.

Goel et al., "Towards adversarial evaluations for inexact machine unlearning" (CF-k, catastrophic forgetting), arXiv 2201.06640.
Formal guarantee: none. It needs the retained data alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge import (
    Ascent,
    Capabilities,
    Context,
    Descend,
    GradientMethod,
    InputError,
    Modules,
    Paper,
    Passes,
    Ranges,
    Shared,
    sgd,
)


@dataclass(frozen=True, kw_only=True)
class CFk(GradientMethod):
    """Mini-batch SGD on the retained rows; only the last ``k`` layers move.

    Attributes:
        k: how many layers with weights of their own, from the output; 1 is our choice.
        epochs, lr, batch_size: 10, 0.01 and 128, those of ``fine_tune`` in expunge: our choice.
    """

    name: ClassVar[str] = "cf_k"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=("classification",), needs=("retained data",))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Towards adversarial evaluations for inexact machine unlearning", "Goel et al. 2022", "2201.06640"),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-3, 1e-1)}
    k: int = 1
    epochs: int = 10
    lr: float = 0.01
    batch_size: int = 128

    def __post_init__(self):
        if self.k < 1:
            raise InputError(f"Expected at least one layer k; got {self.k}.")

    def composition(self, context: Context) -> Descend:
        """Passes over what stays, in the last layers."""
        layers = [name for name, module in context.task.build().named_modules() if [*module.parameters(recurse=False)]]
        last = Modules(tuple(f"{name}.*" for name in layers[-self.k :]))
        return Descend(Ascent(), Passes(self.epochs, forget=0), Shared(sgd(self.lr)), last)
