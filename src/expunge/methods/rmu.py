"""Representation misdirection: activations of forgotten answers towards one random direction.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from expunge.core.allowed import Allowed, Count, Positive
from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.method import Context, Estimate, Paper, Refusal, SmallScale
from expunge.core.task import autoregressive
from expunge.descent.parameters import Parameters, Selection
from expunge.descent.schedule import Turn
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced
from expunge.objectives.language import Base
from expunge.tasks.language import decoder_layers
from expunge.tasks.prompts import NO_LABEL

SECOND_MATRIX = ("mlp.down_proj.weight", "fc2.weight", "mlp.c_proj.weight", "mlp.dense_4h_to_h.weight")


@dataclass(frozen=True, kw_only=True)
class RMU(Balanced):
    """``gamma × mean (h - c u)² + alpha × mean (h - h_ref)²`` at one layer, on answer tokens; few weights move.

    Attributes:
        layer, c: 7 and 20, those of the class in OpenUnlearning (arXiv 2506.12618), written after WMDP's code; its
            configuration files have had 2 and 300 for c.
        layers, trained: the weights that move: of so many layers, up to ``layer``, the tensors whose name ends so. Three and
            the second matrix of the feed-forward block, the same class's ``layers.(5|6|7).mlp.down_proj.weight``, with the
            names that other architectures have for it. An adapter (``lora``) has its own weights, up to ``layer``.
        retain: ``activations`` as written above, or ``nll`` or ``kl`` of outputs.
        reduction: how squared distances, each a mean over dimensions, become one number: ``tokens``, the mean over all
            answer tokens of a batch; ``crossed``, what OpenUnlearning computes: its division by lengths broadcasts, so that
            the loss is mean_i (sum over the tokens of row i) × mean_j (1 / tokens of row j). Both agree where all answers
            are of one length.
    """

    name: ClassVar[str] = "rmu"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "The WMDP benchmark: measuring and reducing malicious use with unlearning",
            "Li et al., ICML 2024",
            "2403.03218",
        ),
    )
    retained_losses: ClassVar[tuple[str, ...]] = ("activations", "nll", "kl")
    # its loss is a mean over dimensions, small beside a loss of tokens
    small: ClassVar[SmallScale] = Balanced.small.but(
        fit={"layer": 0}, visible={"gamma": 300.0, "steps": 20, "lr": 1e-2}
    )
    layer: Annotated[int, Allowed()] = 7
    c: Positive = 20.0
    layers: Count = 3
    trained: tuple[str, ...] = SECOND_MATRIX
    retain: str = "activations"
    reduction: Literal["tokens", "crossed"] = "tokens"

    @property
    def whole_weights(self) -> str:
        """It leaves the model at a layer, before the blocks above have been gathered and let go."""
        return "Misdirection ends its pass in the middle of the model"

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Of (h - c u)²; u is uniform in [0, 1)^d and normalised, drawn once."""
        hidden, mask = self._hidden(work, work.params, batch)
        u = torch.rand(hidden.shape[-1], generator=work.draw("direction", 0)).to(hidden)
        return self._reduced(work, (hidden - self.c * u / u.norm()).square().mean(-1), mask)

    def retained(self, work: Work, base: Base, batch: Batch) -> Tensor:
        """Of (h - h_ref)², or a loss of outputs."""
        if self.retain != "activations":
            return super().retained(work, base, batch)
        hidden, mask = self._hidden(work, work.params, batch)
        before = base.says(lambda params: self._hidden(work, params, batch)[0])
        return self._reduced(work, (hidden - before).square().mean(-1), mask)

    def _reduced(self, work: Work, distances: Tensor, mask: Tensor) -> Tensor:
        """One number of the distances (b, t) at answer tokens; the sum over processes is that of the whole batch."""
        if self.reduction == "tokens":
            return work.processes.mean(distances[mask])
        count, rows = mask.sum(1).to(distances), work.processes.total(len(mask))
        inverse = work.processes.add_up([(1 / count).sum()])[0] / rows
        return (distances * mask).sum() / rows * inverse

    def _hidden(self, work: Work, params: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        hidden = work.language.hidden(work.model, params, batch, self.layer)
        hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
        return hidden, batch["labels"][:, : hidden.shape[1]] != NO_LABEL

    def parameters(self) -> Parameters:
        """The named weights of the layers below and at ``layer``, or what of an adapter the layer hangs on."""
        return UpTo(self.layer, self.layers, self.trained, None if self.lora is None else super().parameters())

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses a layer that the model does not have, and one without weights of the wanted names."""
        with torch.device("meta"):  # the architecture without a weight
            model = autoregressive(context.task).factory()
        count = len(decoder_layers(model))
        if not -count <= self.layer < count:
            return Refusal(
                f"The model has {count} layers, from 0; there is no layer {self.layer}.", "Name another one."
            )
        if self.lora is None and not _named(model, self.layer, self.layers, self.trained):
            own = ", ".join(name for name, _ in decoder_layers(model)[self.layer].named_parameters())
            return Refusal(
                f"No tensor of layer {self.layer} has a name that ends in {', '.join(self.trained)}; it has {own}.",
                "Say under trained how the names of the weights end that may move.",
            )
        return super().check(context)


def _named(model: nn.Module, layer: int, layers: int, trained: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the weights of ``layers`` layers, up to ``layer``, that end in one of ``trained``."""
    blocks = decoder_layers(model)
    last = layer % len(blocks)
    moving = {
        id(tensor)
        for block in blocks[max(0, last + 1 - layers) : last + 1]
        for name, tensor in block.named_parameters()
        if name.endswith(trained) and tensor.requires_grad
    }
    return tuple(name for name, tensor in model.named_parameters() if id(tensor) in moving)


@dataclass(frozen=True)
class UpTo:
    """The weights that :func:`_named` names; or of an ``adapter`` what has an effect on the output of ``layer``."""

    layer: int
    layers: int
    trained: tuple[str, ...]
    adapter: Parameters | None

    def select(self, work: Work) -> Selection:
        """The names, or what of an adapter one row's gradient reaches.

        Raises:
            InputError: if that is nothing.
        """
        if self.adapter is None:
            return Selection(_named(work.model, self.layer, self.layers, self.trained))
        selection = self.adapter.select(work)
        named = dict(work.model.named_parameters())
        row = work.task.batch(work.deletion.forget, range(1))
        hidden = work.language.hidden(work.model, named, row, self.layer)
        tensors = [named[name] for name in selection.names]
        reached = torch.autograd.grad(hidden.sum(), tensors, allow_unused=True)
        names = tuple(n for n, gradient in zip(selection.names, reached, strict=True) if gradient is not None)
        if not names:
            raise InputError(f"Nothing that may move has an effect on layer {self.layer}. Adapt layers up to it.")
        return Selection(names)
