"""Train on with the retained rows only and hope that the rest fades.

Formal guarantee: none. Deep fine-tuning is not descent-to-delete (R2D spec 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.core.method import Capabilities, Context, Estimate, Refusal, Unlearned
from expunge.core.trained import Artifact
from expunge.methods.stages import stage_once
from expunge.training.recipes import run_epochs


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Mini-batch SGD on the retained rows, started from the model.

    Attributes:
        epochs, lr: 10 and 0.01, the setting of R2D's baseline (spec 2.4).
        batch_size: 128; the baseline's is 2048 or 512 on far larger data.
        momentum: 0 (spec 2.2: plain SGD).
    """

    name: ClassVar[str] = "fine_tune"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "class"),
        tasks=("*",),
        needs=("retained data",),
        effect="weights",
        certified=False,
        paper="fine-tuning on retained data (baseline; Golatkar et al. 2020, arXiv 1911.04933)",
    )
    epochs: int = 10
    lr: float = 0.01
    batch_size: int = 128
    momentum: float = 0.0

    def check(self, context: Context) -> Estimate | Refusal:
        """Runs on any model."""
        return Estimate(self.epochs * len(context.deletion.after))

    def run(self, context: Context) -> Unlearned:
        """Epochs of SGD on what stays."""
        return descended(context, context.deletion.after, self, sign=1.0)


def descended(context: Context, rows, settings, *, sign: float) -> Unlearned:
    """SGD epochs over ``rows`` from the model as it was released, down (sign 1) or up (sign -1) the loss.

    From the release, not from secret un-noised weights: nothing here would hide them.
    """

    def compute() -> dict[str, torch.Tensor]:
        model = context.task.build(context.trained.artifact.tensors)
        optimizer = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], lr=settings.lr, momentum=settings.momentum
        )
        run_epochs(
            context.task, model, rows, optimizer, epochs=settings.epochs, batch_size=settings.batch_size,
            seed=context.generator_seed, sign=sign, watch=context.watch, stage="unlearn",
        )  # fmt: skip
        return dict(model.state_dict())

    final = stage_once(context.journal, "descended", compute)
    return Unlearned(
        views={"model": Artifact(final)},
        state=final,
        purged=("iterates of training, which hold the removed records",) if context.trained.trail else (),
        remains=("whatever the weights still hold of the removed records: this method bounds nothing",),
        gradient_evaluations=settings.epochs * len(rows),
    )
