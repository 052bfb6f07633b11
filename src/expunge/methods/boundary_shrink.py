"""Move the forget set across the nearest decision boundary: each example learns the class that lies next to it.

Chen et al., "Boundary Unlearning", CVPR 2023, arXiv 2303.11570, its variant Boundary Shrink. Formal guarantee: none. The paper
tries it on whole classes; it also runs on single examples here, for which nobody has published a result. Only the forget set
is needed, and nothing holds the rest of the model where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import Count, Positive
from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Paper, Ranges, SmallScale
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import MOMENTUM, Shared
from expunge.descent.schedule import FORGET, Passes, Turn
from expunge.descent.work import Prepared, Work
from expunge.methods.by_descent import GradientMethod
from expunge.objectives.supervised import losses
from expunge.tasks.passes import ACTIVATIONS, evaluating, in_passes


@dataclass(frozen=True, kw_only=True)
class BoundaryShrink(GradientMethod):
    """Cross-entropy towards ``argmax_k f(x + eps sign(grad_x CE(f(x), y)))_k``, k other than y, f the original model.

    The label of an example is found once, before the first step. The released code finds it anew in each step, from the same
    original model and without a random start, which gives the same label as long as inputs are not augmented.

    Attributes:
        eps: length of the step of FGSM (fast gradient sign method) in each coordinate: 0.1, as in the released code
            (TY-LEE-KR/Boundary-Unlearning-Code), where a coordinate is a pixel from 0 to 1. Here it is one of the inputs as the
            model is given them, and nothing is clamped to a range or rounded to 256 values, which only images have: our choice.
        exclude_true: take the likeliest of the *other* classes, as the paper's "nearest but incorrect" has it. The released
            code takes the likeliest of all, so that an example whose class withstands the step is trained on its true label.
        epochs, lr: 10 and 1e-5, SGD with momentum 0.9: the paper and the released code.
        batch_size: 64; UNKNOWN in the paper, our choice.
    """

    name: ClassVar[str] = "boundary_shrink"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=("classification",), needs=("forgotten data",))
    papers: ClassVar[tuple[Paper, ...]] = (Paper("Boundary Unlearning", "Chen et al., CVPR 2023", "2303.11570"),)
    ranges: ClassVar[Ranges] = {"lr": (1e-6, 1e-2), "eps": (0.01, 1.0)}
    small: ClassVar[SmallScale] = GradientMethod.small.but(quick={"lr": 1e-2}, visible={"lr": 1e-3})
    eps: Positive = 0.1
    exclude_true: bool = True
    epochs: Count = 10
    lr: Positive = 1e-5
    batch_size: Count = 64

    def composition(self, context: Context) -> Descend:
        """Passes over the relabelled forget set."""
        return Descend(self, Passes(self.epochs, retain=0), Shared(Member("sgd", self.lr, momentum=MOMENTUM)))

    def preparing(self, forget: int, retain: int) -> int:
        """One gradient of the inputs for each example."""
        return forget

    def prepare(self, work: Work) -> Prepared:
        """Relabel the forget set by the model as it is, before the first step."""
        batch = work.task.batch(work.deletion.forget)
        with evaluating(work.model):
            labels = in_passes(lambda part: self.nearest_class(work, part), batch, ACTIVATIONS)

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            return losses(work, batch).mean()

        return Prepared({FORGET: batch.with_columns(y=labels)}, loss, gradient_evaluations=len(batch))

    def nearest_class(self, work: Work, batch: Batch) -> Tensor:
        """The class that each example of ``batch`` is taken for once it has been pushed across a boundary, (b,)."""
        inputs = batch["x"].detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(losses(work, batch.with_columns(x=inputs)).sum(), inputs)
        pushed = batch.with_columns(x=inputs.detach() + self.eps * slope.sign())
        with torch.no_grad():
            logits = work.task.outputs(work.model, work.params, pushed).logits
        if logits.shape[-1] < 2:
            raise InputError("Another class needs a model with at least two; this one has a single output.")
        if self.exclude_true:
            logits = logits.scatter(1, batch["y"][:, None], float("-inf"))
        return logits.argmax(1)
