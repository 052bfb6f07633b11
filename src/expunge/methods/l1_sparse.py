"""Fine-tune under a fading l1 penalty: a sparser model forgets more easily.

Jia et al., "Model sparsity can simplify machine unlearning", NeurIPS 2023, arXiv 2304.04934. Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.allowed import Count, Positive
from expunge.core.method import Capabilities, Context, Paper, Ranges
from expunge.descent.descend import Descend
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Passes
from expunge.methods.by_descent import GradientMethod, sgd
from expunge.objectives.supervised import Sparse


@dataclass(frozen=True, kw_only=True)
class L1Sparse(GradientMethod):
    """Retained rows under ``CE + alpha_t ||theta||_1``, alpha_t falling by the same amount after each epoch.

    Attributes:
        alpha: 1e-4 at the start; the default of the released code (arXiv 2304.04934), 0.2, is unusable.
        epochs, lr: 10 and 0.01, as the released code is run.
    """

    name: ClassVar[str] = "l1_sparse"
    capabilities: ClassVar[Capabilities] = Capabilities(needs=("retained data",))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Model sparsity can simplify machine unlearning", "Jia et al., NeurIPS 2023", "2304.04934"),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-3, 1e-1), "alpha": (1e-5, 1e-2)}
    alpha: Positive = 1e-4
    epochs: Count = 10
    lr: Positive = 0.01
    batch_size: Count = 128

    def composition(self, context: Context) -> Descend:
        """Passes over what stays."""
        return Descend(Sparse(self.alpha, self.epochs), Passes(self.epochs, forget=0), Shared(sgd(self.lr)))
