"""Whether the original model knows what it was trained on: where it does not, there is nothing to forget, and no comparison
with retraining would mean anything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from expunge.core.errors import InputError, RefusedError
from expunge.core.measurement import PART
from expunge.core.task import Task
from expunge.evidence.comparison import Reads, Score

_LOG = logging.getLogger(__name__)
TESTED = "test"


@dataclass(frozen=True)
class Knowledge:
    """What the original model knows of ``what``, and the ``least`` that makes a comparison mean anything, ``bar`` in words."""

    value: float
    least: float
    what: str
    bar: str


@runtime_checkable
class Knows(Reads, Protocol):
    """A kind of model that says what its models must know at least. What it asks is a share of right answers."""

    @property
    def right(self) -> str:
        """The metric that is such a share, for example ``accuracy``."""
        ...

    @property
    def known_on(self) -> Sequence[str]:
        """The named sets that what a model knows is read on."""
        ...

    def knowledge(self, scores: Sequence[Score], data: Any) -> Knowledge:
        """What a model knows of ``data``, from its scores on the sets :attr:`known_on`."""
        ...


def must_know(
    kind: Any,
    task: Task,
    tensors: Mapping[str, Any],
    data: Any,
    sets: Mapping[str, Any],
    expected: float | None = None,
    concept: bool = False,
) -> Knowledge | None:
    """Refuse an original model that knows less than its owner expects, and warn of one that knows next to nothing.

    It takes one pass over some of ``sets``, and comes before retrained and shadow models are trained. Without an expectation a
    weak model is served all the same: whoever asks to be forgotten by it has a right to that.

    Args:
        kind: of the model. Kinds that are no :class:`Knows` have nothing to ask.
        tensors: the model's weights, without noise.
        data: what it was trained on.
        expected: the share of right answers that its owner expects of it, on test examples where ``sets`` has some, else on
            training examples; ``None``: it is only said where it does no better than the original model of a benchmark must.
        concept: whether what is to be forgotten is a concept that the model must know for anything to be measured: then it is
            refused where it does no better.

    Returns:
        What was read of the model; ``None`` where there is nothing to read.

    Raises:
        RefusedError: for a model that knows less, by more than the interval of its share.
        InputError: for an expectation of a model whose kind has no share of right answers.
    """
    if not isinstance(kind, Knows):
        if expected is not None:
            raise InputError(
                "Models of this kind have no share of right answers: leave expected_accuracy out of the job."
            )
        return None
    tested = expected is not None and TESTED in sets
    names = [TESTED] if tested else [name for name in kind.known_on if name in sets]
    if not names:
        return None
    scores = [
        score
        for score in kind.score(kind.read(task, tensors, {n: sets[n] for n in names}))
        if score.metric == kind.right
    ]
    if expected is None:
        known, parts = kind.knowledge(scores, data), []
        if concept:  # each concept by itself: one that is known well would hide another that is not known at all
            parts = [name for name in sets if PART in name and name.partition(PART)[0] in kind.known_on]
            read = kind.score(kind.read(task, tensors, {name: sets[name] for name in parts})) if parts else []
            of_parts = {s.set: kind.knowledge([s], data) for s in read if s.metric == kind.right}
            worst = min(of_parts, key=lambda name: of_parts[name].value) if of_parts else None
            if worst is not None and of_parts[worst].value < known.least:
                known = replace(of_parts[worst], what=f"{known.what} ({worst.partition(PART)[2]} in its order)")
        if known.value < known.least and concept:
            raise RefusedError(
                f"The original model scores {known.value:.3f} on {known.what}, below {known.bar} ({known.least:.3f}): it does "
                "not recognise the concept, so that nothing could be forgotten and ignorance would pass for forgetting. Load "
                "other weights, train longer, or see that names and pictures are those that it knows."
            )
        if known.value < known.least:
            _LOG.warning(
                "The original model scores %.3f on %s, below %s (%.3f): it may have nothing to forget. If these are not its "
                "weights, or the data are prepared otherwise than for its training, stop here; with expected_accuracy in the "
                "job it is refused.",
                known.value, known.what, known.bar, known.least,
            )  # fmt: skip
        return known
    examples = sum(score.n for score in scores)
    share = sum(score.n * score.value for score in scores) / examples
    best = sum(score.n * (score.interval or (0.0, score.value))[1] for score in scores) / examples
    if best < expected:
        raise RefusedError(
            f"The original model scores {share:.3f} on {examples:,} {'test' if tested else 'training'} examples; the job "
            f"expects {expected:.3f}. Either these are not its weights, or the data are not prepared as they were for its "
            "training (scaling, order of the classes, template). Mend that, or change expected_accuracy."
        )
    return Knowledge(
        share, expected, f"{examples:,} {'test' if tested else 'training'} examples", "what the job expects"
    )
