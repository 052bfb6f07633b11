"""Representation misdirection: activations of forgotten answers towards one random direction.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

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


@dataclass(frozen=True, kw_only=True)
class RMU(Balanced):
    """``gamma × mean (h - c u)² + alpha × mean (h - h_ref)²`` at one layer, on answer tokens; weights above it stay.

    Attributes:
        layer, c: 7 and 2, a configuration of OpenUnlearning (arXiv 2506.12618); its class has 20 for c where nothing is
            configured. The constants of the original are not known to us.
        retain: ``activations`` as written above, or ``nll`` or ``kl``, under which all weights move.
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
    small: ClassVar[SmallScale] = Balanced.small.but(fit={"layer": 0}, visible={"gamma": 300.0, "steps": 20})
    layer: int = 7
    c: float = 2.0
    retain: str = "activations"

    @property
    def whole_weights(self) -> str:
        """It leaves the model at a layer, before the blocks above have been gathered and let go."""
        return "Misdirection ends its pass in the middle of the model"

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Mean over answer tokens and dimensions of (h - c u)²; u is uniform in [0, 1)^d and normalised, drawn once."""
        hidden, mask = self._hidden(work, work.params, batch)
        u = torch.rand(hidden.shape[-1], generator=work.draw("direction", 0)).to(hidden)
        return work.processes.mean((hidden[mask] - self.c * u / u.norm()).square().mean(-1))

    def retained(self, work: Work, base: Base, batch: Batch) -> Tensor:
        """Mean over answer tokens and dimensions of (h - h_ref)², or a loss of outputs."""
        if self.retain != "activations":
            return super().retained(work, base, batch)
        hidden, mask = self._hidden(work, work.params, batch)
        before = base.says(lambda params: self._hidden(work, params, batch)[0])
        return work.processes.mean((hidden[mask] - before[mask]).square().mean(-1))

    def _hidden(self, work: Work, params: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        hidden = work.language.hidden(work.model, params, batch, self.layer)
        hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
        return hidden, batch["labels"][:, : hidden.shape[1]] != NO_LABEL

    def parameters(self) -> Parameters:
        """What the layer hangs on: AdamW's decay would move the rest as well, and its state would take memory."""
        chosen = super().parameters()
        return chosen if self.retain != "activations" or self.su else UpTo(self.layer, chosen)

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses a layer that the model does not have."""
        with torch.device("meta"):  # the architecture without a weight
            count = len(decoder_layers(autoregressive(context.task).factory()))
        if not -count <= self.layer < count:
            return Refusal(
                f"The model has {count} layers, from 0; there is no layer {self.layer}.", "Name another one."
            )
        return super().check(context)


@dataclass(frozen=True)
class UpTo:
    """Of ``chosen`` only what has an effect on the output of ``layer``."""

    layer: int
    chosen: Parameters

    def select(self, work: Work) -> Selection:
        """What one row's gradient reaches.

        Raises:
            InputError: if that is nothing.
        """
        selection = self.chosen.select(work)
        named = dict(work.model.named_parameters())
        row = work.task.batch(work.deletion.forget, range(1))
        hidden = work.language.hidden(work.model, named, row, self.layer)
        tensors = [named[name] for name in selection.names]
        reached = torch.autograd.grad(hidden.sum(), tensors, allow_unused=True)
        names = tuple(n for n, gradient in zip(selection.names, reached, strict=True) if gradient is not None)
        if not names:
            raise InputError(f"Nothing that may move has an effect on layer {self.layer}. Adapt layers up to it.")
        return Selection(names)
