"""ManiF-SMC's objective: move erased rows off the centre of their neighbours, by a margin, and keep the neighbours there.

Representations only: the input of the classifier head. No label is read unless ``margins`` or ``repair`` ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import with_features
from expunge.descent.schedule import FORGET, RETAIN, Turn
from expunge.descent.streams import mixed_seed
from expunge.descent.work import Prepared, Work
from expunge.objectives.margins import (
    DISTANCES,
    LARGEST,
    Neighbourhood,
    SelfModeConnectivity,
    distance,
    gaps,
    neighbourhood,
    represented,
)
from expunge.objectives.supervised import losses
from expunge.tasks.passes import joined


def hinge(
    anchor: Tensor, positive: Tensor, negative: Tensor, alpha: Tensor | float, kind: str = "sq_l2", keep: float = 1.0
) -> Tensor:
    """``[keep d(positive, anchor) - d(negative, anchor) + alpha]_+`` of each row; one hinge a row, not one a batch.

    Shapes:
        three (b, d), (b,) → (b,)
    """
    return torch.relu(keep * distance(positive, anchor, kind) - distance(negative, anchor, kind) + alpha)


@dataclass(frozen=True)
class Manifold:
    """Triplets of an erased row, one of its neighbours, and the neighbours' centre.

    Attributes:
        margin: ``smc`` (per row and neighbour, from ``curve``) or ``fixed`` (``alpha``).
        alpha: the fixed margin.
        k: neighbours of each erased row; 5 in the released code.
        anchor: ``centroid`` pushes the erased row off the neighbours' centre; ``original`` pulls it to its neighbours and
            away from where it was.
        distance: ``sq_l2``, ``l2`` or ``cosine``, of unit vectors.
        keep: lambda, weight of the neighbour's distance inside the hinge.
        preserve: beta, weight of the neighbour's distance outside it: goes on when the hinge is closed.
        refresh_every: epochs between two measurements of the margins.
        curve: how margins are measured.
        repair: whether there is a retain stream, under cross-entropy: reads labels, not part of the paper.
    """

    margin: str = "smc"
    alpha: float = 0.2
    k: int = 5
    anchor: str = "centroid"
    distance: str = "sq_l2"
    keep: float = 1.0
    preserve: float = 0.0
    refresh_every: int = 1
    curve: SelfModeConnectivity = field(default_factory=SelfModeConnectivity)
    repair: bool = False

    def __post_init__(self):
        for value, known in (
            (self.margin, ("smc", "fixed")),
            (self.anchor, ("centroid", "original")),
            (self.distance, DISTANCES),
            (self.curve.loss, ("rep", "ce")),
            (self.curve.start, ("original", "fresh")),
        ):
            if value not in known:
                raise InputError(f"Expected one of {', '.join(known)}; got {value!r}.")
        if not 0 <= self.alpha <= LARGEST[self.distance]:
            raise InputError(
                f"Expected a margin between 0 and {LARGEST[self.distance]:g}, the largest {self.distance} distance of unit "
                f"vectors; got {self.alpha}: the hinge could never close."
            )
        if self.refresh_every < 1 or self.k < 1:
            raise InputError(
                f"Expected at least one neighbour, and margins measured every 1 or more epochs; got k={self.k} and "
                f"refresh_every={self.refresh_every}."
            )

    def prepare(self, work: Work) -> Prepared:
        """Neighbours and centres, once, under the original model."""
        erased = work.task.batch(work.deletion.forget)
        retained = work.task.batch(work.deletion.after)
        around = neighbourhood(with_features(work.task), work.model, work.base, erased, retained, self.k)
        device = around.near.device
        stream = erased.with_columns(position=torch.arange(len(erased), device=device))
        streams: dict[str, Batch] = {FORGET: stream}
        if self.repair:
            streams[RETAIN] = retained
        prepared = Prepared(streams, _loss(self, work, around))
        if self.margin == "smc":
            prepared.refresh = _refresh(self, work, around, erased, prepared.state)
            prepared.loss = _loss(self, work, around, prepared.state)
        return prepared


def _refresh(settings: Manifold, work: Work, around: Neighbourhood, erased: Batch, state: dict[str, Tensor]):
    task = with_features(work.task)

    def refresh(epoch: int) -> int:
        if epoch % settings.refresh_every:
            return 0
        seed = mixed_seed(work.seed, "bend", epoch)
        middle = settings.curve.surrogate(
            task, work.model, work.model.state_dict(), work.base, around, work.draw("curve", epoch), seed
        )
        pool, rows = (represented(task, work.model, middle, batch) for batch in (around.pool, erased))
        state["margins"] = gaps(pool, rows, around.near, settings.distance)
        return settings.curve.steps * min(settings.curve.batch_size, len(around.pool))

    return refresh


def _loss(settings: Manifold, work: Work, around: Neighbourhood, state: dict[str, Tensor] | None = None):
    old_centre, task = around.centre, with_features(work.task)

    def features(batch: Batch, positives: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
        """Representations of the erased rows and of their positives, from one forward pass."""
        other = around.pool.take(positives)
        if work.augment is not None:
            other = other.with_columns(x=work.augment(other["x"], work.draw("augment-positives", turn.step)))
        z = task.features(work.model, work.params, joined(batch, other)).flatten(1)
        return z[: len(batch)], z[len(batch) :]

    def triplets(role: str, batch: Batch, turn: Turn) -> Tensor:
        if role == RETAIN:
            return losses(work, batch).mean()
        position = batch["position"]
        drawn = torch.randint(settings.k, position.shape, generator=work.draw("positive", turn.step)).to(
            position.device
        )
        positives = around.near[position, drawn]
        erased, positive = (normalize(z, dim=1) for z in features(batch, positives, turn))
        alpha = settings.alpha if state is None else state["margins"][position, drawn]
        if settings.anchor == "centroid":
            anchor, near, far = old_centre[position], positive, erased
        else:
            anchor, near, far = erased, positive, around.old_erased[position]
        loss = hinge(anchor, near, far, alpha, settings.distance, settings.keep).mean()
        if settings.preserve:
            loss = loss + settings.preserve * distance(positive, old_centre[position], settings.distance).mean()
        return loss

    return triplets
