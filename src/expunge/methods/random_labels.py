"""Teach wrong labels for the forgotten rows and the right ones for the rest.

Formal guarantee: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.core.allowed import Count, Positive
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Paper, Ranges
from expunge.descent.descend import Descend
from expunge.descent.schedule import Mixed, Passes
from expunge.methods.by_descent import GradientMethod, by_trainer, given
from expunge.objectives.generation import wrong_labels
from expunge.objectives.supervised import RandomLabels as WrongLabels


@dataclass(frozen=True, kw_only=True)
class RandomLabels(GradientMethod):
    """Per epoch one pass over forgotten rows with labels drawn anew for each batch, then one over retained rows.

    Attributes:
        epochs, retain_lr: 10 and 0.01, for 10 % of CIFAR-10 (DualOptim, arXiv 2504.15827, Tables 7 to 11).
        lr: of forget steps; ``None``: 0.01 shared (the same); 1.3e-4 under ``dual``: SalUn's value, since none is
            published for RL.
        exclude_true: never draw the true label; DualOptim's released code may.
        mixed: one shuffled stream of both instead of two passes (the baseline's form on CIFAR-100); not with ``dual``.
        optimizer: ``adam`` for models that Adam trained, such as DDPM: 1e-4, our choice, there (DualOptim, arXiv
            2504.15827); ``sgd`` else.
        dual: DualOptim.
    """

    name: ClassVar[str] = "random_labels"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class", "node", "edge", "feature"), tasks=("classification", "diffusion", "graph")
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Amnesiac machine learning", "Graves et al., AAAI 2021", "2010.10981"),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-4, 1e-1)}
    epochs: Count = 10
    lr: Positive | None = None
    retain_lr: Positive = 0.01
    batch_size: Count = 128
    exclude_true: bool = False
    mixed: bool = False
    optimizer: Literal["sgd", "adam"] = "sgd"
    dual: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.mixed and self.dual:
            raise InputError(
                "Two optimizers need steps that alternate; a mixed stream has none. Leave out mixed or dual."
            )

    def composition(self, context: Context) -> Descend:
        """Two passes an epoch."""
        objective = wrong_labels(context.task, self.exclude_true)
        if self.mixed and not isinstance(objective, WrongLabels):
            raise InputError(
                f"A {context.task.name} model learns no mixed stream of right and wrong labels; leave out mixed."
            )
        lr = given(self.lr, 1.3e-4 if self.dual else 0.01)
        optimizer = by_trainer(self.optimizer, self.dual, lr, self.retain_lr)
        schedule = Mixed(self.epochs) if self.mixed else Passes(self.epochs)
        return Descend(objective, schedule, optimizer)
