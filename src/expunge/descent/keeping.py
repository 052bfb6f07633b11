"""Named criteria by which the best state of a run is kept, instead of the last one.

A criterion looks at the model as it is, on the examples that the method forgets and on some of those that it retains, or on a
set ``validation`` that the caller holds back. It never looks at a retrained model, nor at test examples: what a run is judged
by afterwards did not choose its state.

Formal guarantee: none. A state that was chosen by its loss on forgotten examples is fitted to these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from expunge.core.method import Context, Refusal
from expunge.descent.guard import Guard
from expunge.descent.streams import generator_for, mixed_seed
from expunge.descent.work import Work
from expunge.tasks.passes import ACTIVATIONS, ANSWERS, evaluating
from expunge.tasks.seeds import seed_global

Criterion = Literal["retained", "margin", "validation"]
LOOKS = 20  # of a run, spread evenly, the last one at its end; as many as LUNE's guard; our choice
EXAMPLES = 512  # of a set that are looked at, drawn once; our choice
VALIDATION = "validation"


def mean_loss(work: Work, name: str, examples: Any) -> float:
    """Mean loss of at most :data:`EXAMPLES` of ``examples``, the same at every look, in evaluation mode."""
    count, size = len(examples), ANSWERS if hasattr(examples, "records") else ACTIVATIONS
    order = torch.randperm(count, generator=generator_for(work.seed, f"keep-{name}", 0))[:EXAMPLES].sort().values
    seed_global(mixed_seed(work.seed, f"keep-{name}", 1), next(work.model.parameters()).device)  # for losses that draw
    with torch.no_grad(), evaluating(work.model):
        parts = [work.task.losses(work.model, work.params, work.task.batch(examples, at)) for at in order.split(size)]
    return float(torch.cat([part.double().cpu() for part in parts]).mean())


def _retained(work: Work) -> float:
    return -mean_loss(work, "retain", work.deletion.after)


def _margin(work: Work) -> float:
    return mean_loss(work, "forget", work.deletion.forget) + _retained(work)


def _validation(work: Work) -> float:
    held_out = mean_loss(work, VALIDATION, work.deletion.probes[VALIDATION])
    return -abs(mean_loss(work, "forget", work.deletion.forget) - held_out)


# Larger is better. ``retained``: the least mean loss on retained examples. ``margin``: the largest mean loss on forgotten
# examples less that on retained ones. ``validation``: the mean loss on forgotten examples nearest to that on held-out ones, as
# SCRUB+R compares errors (arXiv 2302.09880).
CRITERIA: Mapping[str, Callable[[Work], float]] = {
    "retained": _retained, "margin": _margin, "validation": _validation,
}  # fmt: skip


def guard_of(criterion: Criterion, steps: int) -> Guard:
    """Looks at a run of ``steps`` steps, and keeps the state that is best by ``criterion``."""
    return Guard(CRITERIA[criterion], max(1, steps // LOOKS), at_end=True)


def cannot_keep(criterion: Criterion, context: Context) -> Refusal | None:
    """A refusal where there is nothing that the criterion could look at."""
    deletion = context.deletion
    lacks = {
        "retained": deletion.after is None or not len(deletion.after),
        "margin": deletion.after is None or not len(deletion.after) or not len(deletion.forget),
        "validation": VALIDATION not in deletion.probes or not len(deletion.forget),
    }
    if not lacks[criterion]:
        return None
    what = f"a set called {VALIDATION} and forgotten examples" if criterion == VALIDATION else "the retained examples"
    return Refusal(
        f"keep_best {criterion} looks at {what}, which are not there.",
        f"Name held-out examples that nothing is judged by (data.sets: {{{VALIDATION}: …}}), or leave keep_best out.",
    )
