"""Selective synaptic dampening: shrink the weights that matter more to the forgotten rows than to all rows. No training.

Foster et al., AAAI 2024, arXiv 2308.07707. Formal guarantee: none. It tends to leave random subsets almost untouched
(CoUn, arXiv 2509.16391, measures it): such rows have no weights of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import Count, Positive, must_be_allowed
from expunge.core.method import Capabilities, Context, Estimate, Paper, Ranges, Refusal, SmallScale, Unlearned
from expunge.core.trained import Artifact
from expunge.descent.parameters import mean_squares
from expunge.descent.work import Work
from expunge.methods.stages import stage_once
from expunge.training.descent import trainable


def dampened(
    weights: Mapping[str, Tensor],
    of_forget: Mapping[str, Tensor],
    of_all: Mapping[str, Tensor],
    alpha: float,
    lambda_: float,
) -> dict[str, Tensor]:
    """``theta min(lambda I_D / I_f, 1)`` where ``I_f > alpha I_D``."""
    result = {}
    for name, weight in weights.items():
        chosen = of_forget[name] > alpha * of_all[name]
        tiny = torch.finfo(of_forget[name].dtype).tiny
        factor = (lambda_ * of_all[name] / of_forget[name].clamp_min(tiny)).clamp_max(1)
        result[name] = torch.where(chosen, weight * factor, weight).to(weight.dtype)
    return result


@dataclass(frozen=True, kw_only=True)
class SSD:
    """Importance is the mean over batches of squared gradients, on the forgotten rows and on *all* rows.

    Attributes:
        alpha: how much more important to forgotten rows a weight must be: 10; lambda_: strength of the dampening: 1.
        batch_size: rows per squared gradient; 128, as in the released code.
        loss_free: take the squared length of the outputs instead of the loss: no label is read.
    """

    name: ClassVar[str] = "ssd"
    capabilities: ClassVar[Capabilities] = Capabilities()
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Fast machine unlearning without retraining through selective synaptic dampening",
            "Foster et al., AAAI 2024",
            "2308.07707",
        ),
    )
    ranges: ClassVar[Ranges] = {"alpha": (0.1, 100.0), "lambda_": (0.1, 5.0)}
    small: ClassVar[SmallScale] = SmallScale(quick={"alpha": 1e-3, "lambda_": 1e-3})
    alpha: Positive = 10.0
    lambda_: Positive = 1.0
    batch_size: Count = 128
    loss_free: bool = False

    __post_init__ = must_be_allowed

    def check(self, context: Context) -> Estimate | Refusal:
        """One pass over everything, one over the forgotten rows."""
        if not trainable(context.task.build()):
            return Refusal(
                "The model has no trainable weight: it is frozen.", "Set requires_grad on the weights that may change."
            )
        return Estimate(len(context.deletion.before) + len(context.deletion.forget))

    def run(self, context: Context) -> Unlearned:
        """Two importances, one comparison."""
        deletion, task = context.deletion, context.task
        before = context.trained.artifact.tensors

        def compute() -> dict[str, Tensor]:
            model = task.build(before)
            work = Work(task, model, dict(model.state_dict()), deletion, {}, context.generator_seed)
            names, losses = trainable(model), "outputs" if self.loss_free else "task"
            of_forget, of_all = (
                mean_squares(work, names, task.batch(rows), self.batch_size, losses)
                for rows in (deletion.forget, deletion.before)
            )
            state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name in before}
            return {**state, **dampened({n: state[n] for n in names}, of_forget, of_all, self.alpha, self.lambda_)}

        final = stage_once(context.journal, "dampened", compute)
        changed = sum(int((tensor != before[name].to(tensor)).sum()) for name, tensor in final.items())
        return Unlearned(
            views={"model": Artifact(final)},
            state=final,
            purged=("iterates of training, which hold the removed records",) if context.trained.trail else (),
            remains=("whatever the weights still hold of the removed records: this method bounds nothing",),
            gradient_evaluations=len(deletion.before) + len(deletion.forget),
            details={"dampened": changed},
        )
