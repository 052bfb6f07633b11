"""The outcome of a run, in one of five words, from nothing but its measurements: whoever has these can judge again.

It is the judgement that benchmarks make (``metrics.outcomes``), on the forgotten examples of one request. What is asked of the
measurements, and why in this order, is on the page ``docs/evaluation_protocol.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from expunge.core.measurement import Measurement
from expunge.evidence.membership import FORGET, HELD_OUT
from expunge.metrics import outcomes
from expunge.metrics.outcomes import Judgement, Word

RETAIN = "retain"
SHARES = ("accuracy", "probability")  # of right answers, by which benchmarks judge; the first that can decide does
LOSS = "loss"
LEADING = (*SHARES, LOSS)
DIGITS = 1 / 5  # of an interval's half-width: two of the digits that records keep of a value with such an interval
_WORST = (Word.UTILITY_COLLAPSE, Word.UNDER_FORGETS, Word.OVER_FORGETS, Word.UNDECIDABLE, Word.FORGETS)
_CALLED = {
    "accuracy": ("Accuracy on forgotten examples (%)", "Accuracy on retained examples (%)", "Accuracy on test examples (%)"),
    "probability": ("Probability of forgotten answers (%)", "Probability of retained answers (%)",
                    "Probability of test answers (%)"),
}  # fmt: skip
Items = Mapping[tuple[str, str | None], Measurement]


def judged(measurements: Iterable[Measurement]) -> Judgement:
    """The outcome that measurements amount to; of several views the worst.

    In this order: ``utility-collapse`` by the first share of right answers that was measured (accuracy, then probability) or
    by the loss; ``undecidable`` without a retrained model; then the first of accuracy, probability and loss on the forgotten
    examples that tells the original from the retrained model by more than chance, as :func:`metrics.outcomes.of_accuracies`
    and :func:`metrics.outcomes.of_losses` judge it; ``undecidable`` where none does.

    Args:
        measurements: each with the values of the original and of the retrained model, as far as there are any.

    Formal guarantee: none; what is measured can refute and cannot prove.
    """
    views: dict[str | None, dict[tuple[str, str | None], Measurement]] = {}
    for item in measurements:
        views.setdefault(item.view, {})[item.metric, item.set] = item
    found = [(view, _of_view(items)) for view, items in views.items()]
    if not found:
        return Judgement(Word.UNDECIDABLE, "Nothing was measured.")
    view, worst = min(found, key=lambda pair: _WORST.index(pair[1].word))
    return worst if view is None else Judgement(worst.word, f"{view}: {worst.reason}", worst.moved)


def _of_view(items: Items) -> Judgement:
    shares = [judgement for name in SHARES if (judgement := _share(items, name))]
    loss = _loss(items, utility=not shares)  # a share has a scale of its own, and says better what is still useful
    tried = [*shares, *([loss] if loss else [])]
    if not tried:
        return Judgement(Word.UNDECIDABLE, "Nothing on the forgotten examples can be compared with the original model.")
    if tried[0].word is Word.UTILITY_COLLAPSE:
        return tried[0]
    return next((each for each in tried if each.word is not Word.UNDECIDABLE), tried[0])


def _share(items: Items, name: str) -> Judgement | None:
    """By a share of right answers; ``None`` where it was not measured on the original and the unlearned model."""
    forgotten, kept, tested = (items.get((name, of)) for of in (FORGET, RETAIN, HELD_OUT))
    if forgotten is None or kept is None or forgotten.original is None or kept.original is None or not forgotten.n:
        return None
    tests: dict[str, float] = {}
    if tested is not None and tested.original is not None:
        tests = {"ta_source": 100 * _usual(tested), "ta": 100 * tested.value}
    return outcomes.of_accuracies(
        fa_source=100 * forgotten.original, fa=100 * forgotten.value,
        fa_retrained=None if forgotten.ideal is None else 100 * forgotten.ideal,
        ra_source=100 * _usual(kept), ra=100 * kept.value, n_forget=forgotten.n, names=_CALLED[name],
        null=None if forgotten.null is None else 100 * forgotten.null, **tests,
    )  # fmt: skip


def _loss(items: Items, utility: bool) -> Judgement | None:
    """By the mean loss, that on retained examples only where ``utility``; ``None`` where it was not measured."""
    forgotten, kept = items.get((LOSS, FORGET)), items.get((LOSS, RETAIN))
    if forgotten is None or forgotten.original is None:
        return None
    low, high = forgotten.interval or (forgotten.value, forgotten.value)
    retained = None if not utility or kept is None or kept.original is None else (kept.value, kept.original, kept.ideal)
    return outcomes.of_losses(
        source=forgotten.original, value=forgotten.value, retrained=forgotten.ideal, null=forgotten.null,
        resolution=DIGITS * (high - low) / 2, retained=retained, retained_null=None if kept is None else kept.null,
    )  # fmt: skip


def _usual(item: Measurement) -> float:
    """What utility is compared with: the original model's, or the retrained one's where forgetting itself costs more."""
    assert item.original is not None
    return item.original if item.ideal is None else min(item.original, item.ideal)
