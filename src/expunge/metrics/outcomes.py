"""What was measured of forgetting, in one word for every kind of model; the thresholds behind the words are here alone.

``forgets`` says that the numbers on the forget set came near what they should be, and nothing about what else the model
still knows. The words are about measurements: what is proven stands in a certificate's verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, wilson

COLLAPSES_BELOW = 0.8  # of the original model's utility (RA, TA; retained questions); our choice
MOVED_ENOUGH = 0.5  # of the way from the original model's FA to the retrained one's; our choice
STILL_KNOWN = (
    0.5  # of the original model's score on forgotten questions: from here on they are not forgotten; our choice
)
TRIGGER_COST = (
    0.15  # more that trigger words cost than they cost the original model, from which on it counts; our choice
)


class Word(StrEnum):
    """The five outcomes."""

    FORGETS = "forgets"
    UNDER_FORGETS = "under-forgets"
    OVER_FORGETS = "over-forgets"
    UTILITY_COLLAPSE = "utility-collapse"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True)
class Judgement:
    """An outcome and what it rests on.

    Attributes:
        word: the outcome.
        reason: the numbers that decided.
        moved: share of the way from the original model's FA to the retrained one's, with the interval that sampling of the
            forgotten examples gives while that way is taken as known; ``None`` where there is no way to measure along.
    """

    word: Word
    reason: str
    moved: Interval | None = None


def of_accuracies(
    *, fa_source: float, fa: float, fa_retrained: float | None, ra_source: float, ra: float, n_forget: int,
    ta_source: float | None = None, ta: float | None = None, null: float | None = None,
    names: tuple[str, str, str] = ("FA", "RA", "TA"), level: float = 0.95,
) -> Judgement:  # fmt: skip
    """The outcome of a classifier on its forget sets; accuracies in percent, each a mean over seeds if there are several.

    In this order:

    1. ``utility-collapse``: RA, or TA where given, is below 80 % of the original model's (our choice). Needs no retrained
       model.
    2. ``undecidable``: no retrained FA; or the original model's FA is not above the retrained one by more than chance, that
       is, Newcombe's interval of their difference on ``n_forget`` examples reaches 0, or half of the difference is within
       ``null``. Then there is nothing to forget that FA could show. (UNKNOWN, chosen: the 95 % level, and each FA as one
       proportion although a mean over seeds varies less.)
    3. ``under-forgets``: FA moved less than half of the way from original to retrained (our choice).
    4. ``over-forgets``: FA is below the retrained one by more than the original is above it, plus chance: the lower half of
       Newcombe's interval of that difference. (UNKNOWN, chosen: so far off on the other side that doing nothing was
       nearer.)
    5. ``forgets`` otherwise.

    Args:
        null: by how many points two retrained models differ by chance; ``None``: unknown, and left out of the judgement.
        names: what the reason calls the three; another share than accuracy may be judged in the same way. Its interval is
            then at most too wide: no variable between 0 and 1 varies more than one that is only 0 or 1.

    Formal guarantee: none.

    Raises:
        InputError: on accuracies outside [0, 100], no forgotten examples, or TA of only one of the two models.
    """
    known, kept_as, tested_as = names
    given = {"fa_source": fa_source, "fa": fa, "ra_source": ra_source, "ra": ra}
    given |= {
        name: x for name, x in {"fa_retrained": fa_retrained, "ta_source": ta_source, "ta": ta}.items() if x is not None
    }
    if wrong := {name: value for name, value in given.items() if not 0 <= value <= 100}:
        raise InputError(f"Expected accuracies in percent, from 0 to 100; got {wrong}.")
    if n_forget < 1 or (ta is None) != (ta_source is None):
        raise InputError(
            f"Expected at least one forgotten row, and TA of both models or of neither; got n_forget={n_forget}, "
            f"ta={ta}, ta_source={ta_source}."
        )
    kept = [(kept_as, ra, ra_source)] + (
        [(tested_as, ta, ta_source)] if ta is not None and ta_source is not None else []
    )
    moved = None
    if fa_retrained is not None and fa_source > fa_retrained:
        low, high = (x / (fa_source - fa_retrained) for x in _newcombe(fa_source, fa, n_forget, level))
        moved = Interval((fa_source - fa) / (fa_source - fa_retrained), low, high, None, level)
    for name, now, before in kept:
        if now < COLLAPSES_BELOW * before:
            reason = f"{name} fell from {before:.1f} to {now:.1f}, below 80 % of it."
            return Judgement(Word.UTILITY_COLLAPSE, reason, moved)
    if fa_retrained is None:
        return Judgement(Word.UNDECIDABLE, "There is no retrained model to compare with.")
    low, _ = _newcombe(fa_source, fa_retrained, n_forget, level)
    if low <= 0 or fa_source - fa_retrained <= 2 * (null or 0.0):
        return Judgement(
            Word.UNDECIDABLE,
            f"{known} of the source, {fa_source:.1f}, is not above that of retraining, {fa_retrained:.1f}, by more than chance "
            f"on {n_forget} rows.",
            moved,
        )
    assert moved is not None
    way = f"{known} went from {fa_source:.1f} to {fa:.1f}; retraining has {fa_retrained:.1f}"
    if moved.value < MOVED_ENOUGH:
        return Judgement(Word.UNDER_FORGETS, f"{way}: {moved.value:.0%} of the way, less than half.", moved)
    low, _ = _newcombe(fa_retrained, fa, n_forget, level)
    if low > fa_source - fa_retrained:
        further = f"{way}: further below it than the original was above, by more than chance."
        return Judgement(Word.OVER_FORGETS, further, moved)
    return Judgement(Word.FORGETS, f"{way}: {moved.value:.0%} of the way.", moved)


def of_losses(
    *, source: float, value: float, retrained: float | None, null: float | None, resolution: float = 0.0,
    retained: tuple[float, float, float | None] | None = None, retained_null: float | None = None,
) -> Judgement:  # fmt: skip
    """The outcome by mean losses, for what has no share of right answers; lower is better known, in any unit.

    All models are scored on the same forgotten examples, so what chance does to the difference of two of them is how two
    retrained models differ. In this order:

    1. ``utility-collapse``: the loss on retained examples rose above 1.25 times that of the original or of the retrained
       model, whichever is larger, and by more than the loss on forgotten examples had to rise (our choice).
    2. ``undecidable``: no retrained model, or none to compare it with; or half of the way from the original to the retrained
       model's loss is within what two retrained models differ by, or the whole way within ``resolution``.
    3. ``under-forgets``, ``over-forgets``, ``forgets`` as :func:`of_accuracies` has them, on the way between the two losses.

    Args:
        source, value, retrained: mean loss on forgotten examples of the original, the unlearned and the retrained model.
        null: by how much two retrained models differ there by chance; ``None``: unknown.
        resolution: differences up to here are those of rounding.
        retained: losses on retained examples of the unlearned, the original and the retrained model.
        retained_null: by how much two retrained models differ on retained examples by chance.

    Formal guarantee: none.
    """
    way = None if retrained is None else retrained - source
    if retained is not None:
        now, before, again = retained
        usual = max(before, before if again is None else again)
        enough = max((1 / COLLAPSES_BELOW - 1) * abs(usual), retained_null or 0.0, way or 0.0, resolution)
        if now - usual > enough:
            return Judgement(
                Word.UTILITY_COLLAPSE, f"The loss on retained examples rose from {usual:.3g} to {now:.3g}."
            )
    if retrained is None or way is None:
        return Judgement(Word.UNDECIDABLE, "There is no retrained model to compare with.")
    if null is None:
        return Judgement(
            Word.UNDECIDABLE,
            "By how much the losses of two retrained models differ is unknown: set evidence.replicates.",
        )
    if way <= max(2 * null, resolution):
        return Judgement(
            Word.UNDECIDABLE,
            f"The loss of the original model on forgotten examples, {source:.3g}, is not below that of retraining, "
            f"{retrained:.3g}, by more than chance.",
        )
    share = (value - source) / way
    moved = Interval(share, share - null / way, share + null / way)
    text = f"The loss on forgotten examples went from {source:.3g} to {value:.3g}; retraining has {retrained:.3g}"
    if share < MOVED_ENOUGH:
        return Judgement(Word.UNDER_FORGETS, f"{text}: {share:.0%} of the way, less than half.", moved)
    if value - retrained > way + null:
        further = f"{text}: further above it than the original model was below, by more than chance."
        return Judgement(Word.OVER_FORGETS, further, moved)
    return Judgement(Word.FORGETS, f"{text}: {share:.0%} of the way.", moved)


def of_answers(now: Mapping[str, float], before: Mapping[str, float]) -> Judgement:
    """The outcome of a language model; each score is a share of right answers or ROUGE-L recall, a mean over seeds.

    In this order:

    1. ``undecidable``: the original model has no score above 0 on forgotten or on retained questions to compare with.
    2. ``utility-collapse``: retained questions score below 80 % of the original model's (our choice).
    3. ``over-forgets``: everyday trigger words cost retained questions :data:`TRIGGER_COST` more than they cost the
       original model: they have become part of what was forgotten.
    4. ``under-forgets``: forgotten questions, as they were learnt, keep half of the original model's score (our choice).
    5. ``forgets`` otherwise.

    Args:
        now, before: scores of the unlearned and of the original model on ``forget``, ``clean`` (retained questions) and
            ``trigger`` (the same with trigger words).

    Formal guarantee: none.
    """
    if not (before.get("forget", 0) > 0 and before.get("clean", 0) > 0 and "trigger" in before):
        return Judgement(Word.UNDECIDABLE, "The source model has no score above 0 to compare with.")
    kept = f"Retained questions went from {before['clean']:.3f} to {now['clean']:.3f}"
    if now["clean"] < COLLAPSES_BELOW * before["clean"]:
        return Judgement(Word.UTILITY_COLLAPSE, f"{kept}, below 80 % of it.")
    cost, usual = (scores["clean"] - scores["trigger"] for scores in (now, before))
    if cost - usual >= TRIGGER_COST:
        over = f"Trigger words cost retained questions {cost:.3f}; they cost the original {usual:.3f}."
        return Judgement(Word.OVER_FORGETS, over)
    left = f"of the source's score on forgotten questions is left ({now['forget']:.3f} of {before['forget']:.3f})."
    if now["forget"] >= STILL_KNOWN * before["forget"]:
        return Judgement(Word.UNDER_FORGETS, f"Half or more {left}")
    return Judgement(Word.FORGETS, f"Less than half {left}")


def _newcombe(first: float, second: float, rows: int, level: float) -> tuple[float, float]:
    """Interval of first - second, two percentages on ``rows`` rows each (Newcombe 1998, method 10: from Wilson's)."""
    a, b = (wilson(round(value / 100 * rows), rows, level) for value in (first, second))
    difference = first - second
    below = 100 * np.hypot(a.value - a.low, b.high - b.value)
    above = 100 * np.hypot(a.high - a.value, b.value - b.low)
    return float(difference - below), float(difference + above)
