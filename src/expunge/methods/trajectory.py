"""What a language model still answers while it forgets: looks that choose nothing.

A single number at the end hides much: gradient ascent passes through the retrained model's forget quality on its way to
ruin. So a run can be asked to look at itself every so many steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from expunge.data.texts import Texts
from expunge.descent.streams import generator_for
from expunge.descent.work import Objective, Prepared, Work
from expunge.tasks.language import in_batches
from expunge.tasks.passes import ANSWERS, evaluating

RETAINED = 64  # retained records that are looked at, drawn once; ours


@dataclass(frozen=True)
class Remembering:
    """An objective whose run stores what was seen under ``looks``, so that a run taken up again still knows it."""

    objective: Objective
    seen: dict[str, Tensor]

    @property
    def beside(self) -> Mapping[str, int]:
        """Those of the objective."""
        return getattr(self.objective, "beside", {})

    def prepare(self, work: Work) -> Prepared:
        """The objective's own preparation, with the looks in its state."""
        return replace(self.objective.prepare(work), state=self.seen)


def remember(seen: dict[str, Tensor], look: list[float]) -> None:
    """Add one look, a row of numbers, to those in ``seen``."""
    row = torch.tensor([look], dtype=torch.float64)
    before = seen.get("looks", row[:0])
    seen["looks"] = torch.cat([before, row.to(before.device)])


@dataclass(frozen=True)
class Trajectory:
    """Mean probability of forgotten answers and of retained ones, teacher-forced: exp of minus the mean token loss.

    Attributes:
        forget, retain: what is looked at; ``retain`` is ``None`` where it is unknown.
        seen: holds ``looks``, (n, 2), the first before the run.
    """

    forget: Texts
    retain: Texts | None
    seen: dict[str, Tensor]

    @classmethod
    def of(cls, forget: Texts, after: Texts | None, seed: int, seen: dict[str, Tensor]) -> Trajectory:
        """Over all forgotten records and at most :data:`RETAINED` of the others."""
        if after is not None:
            order = torch.randperm(len(after), generator=generator_for(seed, "trajectory", 0))
            after = after.at(sorted(order[:RETAINED].tolist()))
        return cls(forget, after, seen)

    def __call__(self, work: Work) -> float:
        """Look, remember, and give minus the forgotten answers' probability."""
        found = [
            _probability(work, texts) if texts is not None else float("nan") for texts in (self.forget, self.retain)
        ]
        remember(self.seen, found)
        return -found[0]


@torch.no_grad()
def _probability(work: Work, texts: Texts) -> float:
    parts = []
    with evaluating(work.model):
        for part in in_batches(len(texts), ANSWERS):
            batch = work.task.batch(texts, range(len(texts))[part])
            parts.append((-work.task.losses(work.model, work.params, batch)).exp())
    return float(torch.cat(parts).mean())
